"""Everything that the control plane raises.

ControlError
├── InputError          what somebody wrote is invalid: every problem, with its line
│   ├── UnreadableError     it could not be read: that may pass by itself
│   └── UnidentifiedError   it asks for something of this node that is not known yet
├── PlaceError          no data plane, no directory, no permission: where was looked
├── BusyError           another process is the writer: its pid
├── StoreError          the state directory cannot be read or written
├── UnknownError        a service, backend or generation that does not exist
├── HeldBackError       a change was not made because of what it would do
└── DataPlaneError      one data plane, named
    ├── UnreachableError    it does not exist or does not listen
    │   └── GoneError       it has left its socket behind: since when
    ├── LateError           it did not answer in time
    ├── OvertakenError      it runs what somebody else has pushed meanwhile
    └── RefusedError        it said no: status, code, message, details
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class ControlError(Exception):
    """Whatever an operator gets to see instead of a result."""

    code: ClassVar[str] = "error"
    """The word for it in an error body."""
    status: ClassVar[int] = 500
    """The HTTP status that the daemon answers with."""
    exit_code: ClassVar[int] = 1
    blames_content: ClassVar[bool] = False
    """Whether only another content can help; whatever else is in the way may go, so it is tried again."""


@dataclass(eq=False)
class InputError(ControlError):
    """What somebody wrote is invalid."""

    code = "invalid"
    status = 422
    exit_code = 2
    blames_content = True
    source: str
    """The file, or what else it was read from."""
    problems: Sequence[dict[str, Any]]
    """One JSON object for each: `{path, message, line, column}`."""

    def __str__(self) -> str:
        return "\n".join(map(self._line, self.problems))

    def _line(self, problem: dict[str, Any]) -> str:
        """Write `FILE:LINE:COLUMN: path: message`, of these what there is."""
        where = (self.source, problem.get("line"), problem.get("column"))
        parts = (":".join(str(at) for at in where if at is not None), problem["path"], problem["message"])
        return ": ".join(filter(None, parts))


class UnreadableError(InputError):
    """The system did not let it be read: no descriptor is free, a server of files is away, it is not there."""

    blames_content = False


class UnidentifiedError(InputError):
    """Only a variable of this node is wrong with it, which nobody tells: its Consul agent is away, and may come back."""

    blames_content = False


class PlaceError(ControlError):
    """Something is not where it was looked for."""

    code = "unavailable"
    status = 503


@dataclass(eq=False)
class BusyError(ControlError):
    """Another process is the one writer."""

    code = "busy"
    status = 409

    what: str
    pid: int | None

    def __str__(self) -> str:
        return f"{self.what} is in use by {'another process' if self.pid is None else f'pid {self.pid}'}"


class StoreError(ControlError):
    """The state directory cannot be read or written."""

    code = "store"


class UnknownError(ControlError):
    """A service, backend or generation that does not exist."""

    code = "unknown"
    status = 404


class HeldBackError(ControlError):
    """A change was not made because of what it would do, or because of what stands in its way."""

    code = "held_back"
    status = 409


@dataclass(eq=False)
class DataPlaneError(ControlError):
    """One data plane did not do what it was asked."""

    status = 502
    name: str


@dataclass(eq=False)
class UnreachableError(DataPlaneError):
    """It does not exist, does not listen, or hung up."""

    code = "unreachable"
    reason: str

    def __str__(self) -> str:
        return f"unreachable: {self.reason}"


@dataclass(eq=False)
class GoneError(UnreachableError):
    """Its process has ended, and left its socket behind: `reason` is its path, `since` when it was last alive, RFC 3339."""

    since: str

    def __str__(self) -> str:
        return (
            f"unreachable: gone, its process has ended, and was last alive at {self.since}; if it is not to come back "
            f"under this name: {shlex.join(('rm', self.reason))}"
        )


@dataclass(eq=False)
class LateError(DataPlaneError):
    """It did not answer in time."""

    code = "late"
    status = 504
    timeout_s: float

    def __str__(self) -> str:
        return f"no answer within {self.timeout_s:.3g} s"


@dataclass(eq=False)
class OvertakenError(DataPlaneError):
    """It runs something newer, which somebody else has pushed meanwhile."""

    code = "overtaken"
    status = 409
    generation: int
    who: str

    def __str__(self) -> str:
        return f"meanwhile {self.who} has pushed generation {self.generation}: apply again, or use --force"


class RefusedError(DataPlaneError):
    """It said no, and goes on as before."""

    code = "refused"

    def __init__(self, name: str, http_status: int, body: dict[str, Any]) -> None:
        super().__init__(name)
        self.http_status = http_status
        self.reason = str(body.get("code") or f"http_{http_status}")
        """Its code for it, such as `invalid` or `bind`."""
        self.message = str(body.get("message") or f"status {http_status}")
        self.details: list[dict[str, Any]] = list(body.get("details") or [])
        """`[{path, message}]`."""

    def permanent(self) -> bool:
        """Tell whether the same question would get the same answer: what is wrong is in the question."""
        return 400 <= self.http_status < 500  # noqa: PLR2004 - the class of HTTP status that blames the asker

    def __str__(self) -> str:
        each_said = [f"{each.get('path')}: {each.get('message')}" for each in self.details]
        # where the message is the details, as of files of TLS, once is enough
        details = "; ".join(one for one in each_said if one not in self.message)
        return f"refused: {self.message}" + (f" ({details})" if details else "")
