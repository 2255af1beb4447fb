"""The desired state: what an operator wrote in lb.yaml, checked, with `defaults` merged into every service.

A problem is reported where it was written: in `defaults` if a service only inherited it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from schemas.cluster import Cluster
from schemas.discovery import Consul, Discover, Guard
from schemas.editor_schema import editor_schema
from schemas.errors import MAX_PROBLEMS, InvalidDocument, Problem, format_path, shown
from schemas.fields import Frozen, ServiceName, refused
from schemas.loops import Loops
from schemas.options import Limits
from schemas.reading.findings import Finding, check_all, find, findings_of, validated, visible_path
from schemas.sharing import listener_clashes
from schemas.snapshot import Backend, Backends, Service, ServiceOptions, backend_loops
from schemas.variables import Replaced, Variables, replaced

if TYPE_CHECKING:
    from schemas.reading.document import Document

SHARED_LIMITS: Final = ("connections", "per_backend", "per_client", "client_rate", "queue")
"""Those that a cluster's nodes have shares of."""
_SOURCES = ("backends", "discover")


class DesiredLimits(Limits):
    """Admission limits; 0 is none."""

    scope: Literal["node", "cluster"] = "node"
    """Whom the counts and the rate are for: each node, or all nodes of the cluster together, each having an equal share."""

    def here(self, nodes: int) -> Limits:
        """Return what they are on a node, as a snapshot has them; of a whole cluster's its share, which is never none.

        Args:
            nodes: How many there are.
        """
        values = {name: getattr(self, name) for name in Limits.model_fields}
        if self.scope == "cluster" and nodes > 1:
            values |= {name: _share(values[name], nodes) for name in SHARED_LIMITS}
        return Limits.model_construct(**values)


def _share(limit: float, nodes: int) -> float:
    """Divide, rounding down: to 1 at least, but not to more than it was, such as a rate of 0.5."""
    return min(limit, type(limit)(max(1, limit // nodes)))


class DesiredService(ServiceOptions):
    """A service as it was written: its backends, or where to find them."""

    limits: DesiredLimits = DesiredLimits()
    """Admission limits; 0 is none."""
    backends: Backends | None = None
    """Its servers, unless they are discovered."""
    discover: Discover | None = None
    """Where to find its servers, unless they are listed."""

    @model_validator(mode="after")
    def _backends_come_from_one_place(self) -> Self:
        if self.backends is not None and self.discover is not None:
            raise refused((("discover",), "excludes backends; a service has one of them"), about=_SOURCES)
        if self.backends is None and self.discover is None:
            raise refused(((), "must have either backends or discover"), about=_SOURCES)
        return self

    def with_backends(self, backends: Sequence[Backend], nodes: int = 1) -> Service:
        """Return the service that runs, with these servers, on one of so many nodes."""
        options = {name: getattr(self, name) for name in ServiceOptions.model_fields}
        options["limits"] = self.limits.here(nodes)
        return Service.model_construct(**options, backends=tuple(backends))


class Desired(Frozen):
    """A checked lb.yaml."""

    version: Literal[1]
    """Of this format."""
    services: dict[ServiceName, DesiredService]
    """By name, with what `defaults` say."""
    consul: Consul = Consul()
    """The Consul agent."""
    guard: Guard = Guard()
    """How much discovery may take away."""
    cluster: Cluster | None = None
    """The nodes that this one belongs to, which see each other through Consul."""


class _File(Desired):
    """What stands in lb.yaml."""

    defaults: dict[str, Any] = Field(default_factory=dict)
    """Anything that a service may say; a service overrides it key by key."""


_SERVICE_NAME: TypeAdapter[str] = TypeAdapter(ServiceName)
_NO_CLUSTER: Final = "cluster needs the section cluster: it says which nodes share these limits"
_NOT_ABOUT_DEFAULTS = frozenset({"missing", "refused"})


def load_desired(raw: bytes, variables: Variables | None = None) -> Desired:
    """Read and check an lb.yaml, or the same in JSON.

    InvalidDocument has every problem found, in the order of the text, each with its line and column.
    """
    from schemas.reading.document import scan_document  # noqa: PLC0415 - 15 ms and 1 MiB, where no file is read

    return desired_of(scan_document(raw), variables)


def desired_of(document: Document, variables: Variables | None = None) -> Desired:
    """Check an lb.yaml that was scanned, for the node that has these variables; see `load_desired`."""
    filled = replaced(document.value, variables or Variables())
    findings, desired = _check(filled.value)
    problems = _problems(document, filled, findings)
    if problems or desired is None:
        raise InvalidDocument(problems)
    return desired


def resolve(
    desired: Desired, discovered: Mapping[str, Sequence[Backend]], nodes: int = 1
) -> dict[str, Service]:
    """Return the services that run; one that says `discover` has those backends, or none if it is missing there.

    `nodes` is how many share limits of `scope: cluster`.
    """
    return {
        name: service.with_backends(
            service.backends if service.backends is not None else discovered.get(name, ()), nodes
        )
        for name, service in desired.services.items()
    }


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of lb.yaml, for editors."""
    return editor_schema(_File, DesiredService)


def check_service(name: str, value: object) -> tuple[list[Finding], DesiredService | None]:
    """Check one service, `defaults` already merged in.

    Returns the findings, with paths from `services` on, and the service: as far as it is right, if there are any.
    """
    at = ("services", name)
    findings: list[Finding] = []
    try:
        _SERVICE_NAME.validate_python(name)
    except ValidationError as error:
        findings.append(Finding(at, findings_of(error, DesiredService)[0].message, at_key=True))
    wrong, service = check_all(DesiredService, value)
    findings += [Finding((*at, *one.path), one.message, one.at_key, one.kind) for one in wrong]
    return findings, service


def _check(value: object) -> tuple[list[Finding], Desired | None]:
    if not isinstance(value, dict):
        return [
            Finding((), f"must be a mapping with the keys version and services, not {shown(value)}")
        ], None
    findings, frame = _check_frame(value)
    defaults, written = value.get("defaults"), value.get("services")
    if isinstance(defaults, dict):
        findings += _check_defaults(defaults)
    services: dict[str, DesiredService] = {}
    for name, one in written.items() if isinstance(written, dict) else ():
        if len(findings) >= MAX_PROBLEMS:
            break
        wrong, service = check_service(name, _merged(defaults, one))
        if service is not None and service.limits.scope == "cluster" and value.get("cluster") is None:
            wrong.append(Finding(("services", name, "limits", "scope"), _NO_CLUSTER))
        findings += [_where_written(finding, one, defaults) for finding in wrong]
        if service is not None and not any(finding.path[2:3] == ("listen",) for finding in wrong):
            services[name] = service
    for below, message in listener_clashes(services):
        findings.append(Finding(("services", *below), message))
    listed = {name: service.backends or () for name, service in services.items()}
    loops = Loops({name: service.addresses for name, service in services.items()})
    for below, message in backend_loops(listed, loops):
        found = Finding(("services", *below), message)
        findings.append(_where_written(found, find(written, below[:1])[1], defaults))
    if findings or frame is None:
        return findings, None
    return findings, Desired.model_construct(
        version=frame.version,
        services=services,
        consul=frame.consul,
        guard=frame.guard,
        cluster=frame.cluster,
    )


def _check_frame(value: dict[str, Any]) -> tuple[list[Finding], _File | None]:
    """Check all but the content of services."""
    frame = dict(value)
    if isinstance(frame.get("services"), dict):
        frame["services"] = {}
    return validated(_File, frame)


def _check_defaults(defaults: dict[str, Any]) -> list[Finding]:
    """Check each value of `defaults`; what is incomplete or contradictory there, services may set right."""
    found, _ = validated(DesiredService, defaults, ("defaults",))
    return [finding for finding in found if finding.kind not in _NOT_ABOUT_DEFAULTS]


def _merged(defaults: object, service: object) -> object:
    if not isinstance(defaults, dict) or not isinstance(service, dict):
        return service
    # A service that lists its backends has answered where they come from, and the other way round.
    said = service.keys() & set(_SOURCES)
    answered = set(_SOURCES) - said if said else set()
    return _merged_deep({key: value for key, value in defaults.items() if key not in answered}, service)


def _merged_deep(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    merged = {**below, **above}
    for key, value in above.items():
        under = below.get(key)
        if isinstance(value, dict) and isinstance(under, dict):
            merged[key] = _merged_deep(under, value)
    return merged


def _where_written(finding: Finding, service: object, defaults: object) -> Finding:
    """Move a finding to `defaults` if more of its path stands there than in the service."""
    inside = finding.path[2:]
    if find(defaults, inside)[0] <= find(service, inside)[0]:
        return finding
    return Finding(("defaults", *inside), finding.message, finding.at_key, finding.kind)


def _problems(document: Document, filled: Replaced, findings: list[Finding]) -> tuple[Problem, ...]:
    problems = [flaw.problem() for flaw in document.flaws]
    hidden = {flaw.path for flaw in document.flaws if flaw.hides}
    unfilled = {finding.path for finding in filled.findings}
    for finding in [*filled.findings, *findings]:
        if any(finding.path[:steps] in hidden for steps in range(len(finding.path) + 1)):
            continue
        path = visible_path(finding, filled.value)
        if path in unfilled and finding not in filled.findings:  # it would be about a stand-in
            continue
        line, column = document.locate(path, at_key=finding.at_key)
        problems.append(Problem(format_path(path), finding.message + filled.note(path), line, column))
    unique = dict.fromkeys(problems)  # what two services inherit is one problem
    return tuple(sorted(unique, key=lambda problem: (problem.line or 0, problem.column or 0))[:MAX_PROBLEMS])
