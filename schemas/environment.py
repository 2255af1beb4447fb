"""A data plane's configuration from environment variables, for one service on a machine of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.desired import Desired, check_service
from schemas.errors import InvalidDocument, Path, Problem, shown
from schemas.fields import FALSE_WORDS, TRUE_WORDS
from schemas.loops import Loops
from schemas.quantities import parse_duration
from schemas.reading.findings import Finding
from schemas.snapshot import backend_loops

SERVICE: Final = "default"
"""The name of the one service."""
_LISTEN: Final = ":4000"
_WHOLE: Final = re.compile(r"0|[1-9][0-9]{0,8}")


def desired_from_environment(environ: Mapping[str, str]) -> Desired | None:
    """Read what the environment says: one service called "default"; None without `BACKENDS`.

    A variable that is set but empty counts as unset, and one that is not in `_VARIABLES` is ignored. InvalidDocument
    if a value is wrong, whether or not `BACKENDS` is set; the problem's path is the variable.
    """
    service: dict[str, Any] = {"listen": _LISTEN, "backends": []}
    problems: list[Problem] = []
    for variable, (path, read) in _VARIABLES.items():
        text = environ.get(variable, "").strip()
        if not text:
            continue
        try:
            _put(service, path, read(text))
        except ValueError as error:
            problems.append(Problem(variable, str(error)))
    findings, checked = check_service(SERVICE, service)
    if checked is not None and not findings:
        loops = backend_loops({SERVICE: checked.backends or ()}, Loops({SERVICE: checked.addresses}))
        findings = [Finding(("services", *below), message) for below, message in loops]
    problems += [_problem(finding) for finding in findings]
    if problems or checked is None:
        raise InvalidDocument(tuple(problems))
    return Desired(version=1, services={SERVICE: checked}) if checked.backends else None


def _backends(text: str) -> list[str]:
    addresses = [part.strip() for part in text.split(",")]
    named = [address for address in addresses if address]
    if not named:
        raise ValueError(f'must name at least one address such as "10.0.0.1:80", not {shown(text)}')
    return named


def _proxy_v1(text: str) -> str:
    if text.lower() in TRUE_WORDS | {"1"}:
        return "v1"
    if text.lower() in FALSE_WORDS | {"0"}:
        return "off"
    raise ValueError(f"must be one of 1, true, yes, on, 0, false, no, off, not {shown(text)}")


def _whole(text: str) -> int:
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f"must be a whole number, not {shown(text)}")
    return int(text)


def _active_check(text: str) -> dict[str, str]:
    """Read how often to check; zero is never, for a check cannot follow the last one at once."""
    return {"type": "none"} if parse_duration(text) == 0 else {"interval": text}


_VARIABLES: Final[dict[str, tuple[Path, Callable[[str], Any]]]] = {
    "LISTEN": (("listen",), str),
    "BACKENDS": (("backends",), _backends),
    "LB_MODE": (("mode",), str),
    "POOL_MODE": (("pool", "mode"), str),
    "POOL_SIZE": (("pool", "max_idle"), _whole),
    "PROXY_V1": (("proxy_protocol", "send"), _proxy_v1),
    "DIAL_TIMEOUT": (("timeouts", "connect"), str),
    "IDLE_TIMEOUT": (("pool", "idle_timeout"), str),
    "IO_TIMEOUT": (("timeouts", "idle"), str),
    "HEALTH_EVERY": (("health", "active"), _active_check),
}
"""Where each variable goes in a service, and how its text is read."""


def _put(service: dict[str, Any], path: Path, value: object) -> None:
    *above, last = path
    for part in above:
        service = service.setdefault(str(part), {})
    service[str(last)] = value


def _problem(finding: Finding) -> Problem:
    path = finding.path[2:]
    variable = next(name for name, (place, _) in _VARIABLES.items() if path[: len(place)] == place)
    if finding.kind == "refused" and variable == "PROXY_V1":
        message = "PROXY_V1 and POOL_MODE=reuse exclude each other: a connection that carried one client's PROXY header cannot serve another; use POOL_MODE=preconnect or off"
        return Problem(variable, message)
    return Problem(variable, finding.message)
