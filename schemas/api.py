"""Bodies of the data-plane API besides snapshot, status and health.

What we answer is a plain dictionary; what we are sent is checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, Self, TypedDict

from pydantic import Field, ValidationError, model_validator

from schemas.errors import InvalidDocument
from schemas.fields import Frozen, Word, refused
from schemas.reading.findings import findings_of, to_problems
from schemas.snapshot import OperatorState

__all__ = [
    "Applied",
    "BackendPatch",
    "Candidate",
    "Change",
    "ConnectionCount",
    "ErrorBody",
    "ErrorDetail",
    "Explanation",
    "FieldChange",
    "Impact",
    "Info",
    "ListenerImpact",
    "Planned",
    "PushOrigin",
    "PushedBy",
    "Skipped",
    "parse_backend_patch",
    "parse_pushed_by",
]


class PushOrigin(TypedDict):
    """Who pushed what runs."""

    program: str
    host: str
    pid: int
    user: str
    source: str | None
    """The file or key that it follows; None: it follows nothing."""
    at: str
    """When, RFC 3339."""


class Info(TypedDict):
    """`GET /v1/info`."""

    name: str
    pid: int
    """As it sees itself: in a container it is 1, also after a restart."""
    instance: str
    """Drawn when the process began: another process has another one, whatever its pid."""
    version: str
    workers: int
    uptime_s: float
    generation: int
    hash: str
    pushed_by: PushOrigin | None
    """None: it was not pushed but began with it, or whoever pushed it did not say who that is."""


FieldChange = TypedDict("FieldChange", {"from": Any, "to": Any})
"""One field, before and after; None where it did not exist."""


class Change(TypedDict):
    """One difference between two snapshots."""

    action: Literal["add", "remove", "change"]
    kind: Literal["service", "listener", "backend", "option"]
    service: str
    id: NotRequired[str]
    """Of a backend."""
    address: NotRequired[str]
    """Of a listener."""
    fields: NotRequired[dict[str, FieldChange]]
    """By dotted name, such as `pool.max_idle`."""


class ConnectionCount(TypedDict):
    """How many connections of a backend a change concerns."""

    service: str
    id: str
    connections: int


class ListenerImpact(TypedDict):
    """A listening socket that is opened or closed."""

    action: Literal["bind", "close"]
    service: str
    address: str


class Impact(TypedDict):
    """What a change does to what is running."""

    drain: list[ConnectionCount]
    """Clients' connections on backends that take no new ones."""
    pool: list[ConnectionCount]
    """Idle connections that would be closed."""
    remap: dict[str, str]
    """Share of sticky clients that would move, by service: `12.5%`."""
    listeners: list[ListenerImpact]


class Applied(TypedDict):
    """`PUT /v1/snapshot`, 200."""

    generation: int
    hash: str
    changes: list[Change]


class Planned(TypedDict):
    """`PUT /v1/snapshot?dry_run=true`, 200."""

    changes: list[Change]
    impact: Impact


class Candidate(TypedDict):
    """A backend that a client may get."""

    id: str
    address: str


class Skipped(TypedDict):
    """A backend that a client does not get, and why."""

    id: str
    reason: str


class Explanation(TypedDict):
    """`GET /v1/explain`: the candidates, best first."""

    service: str
    client: str
    panic: bool
    """Whether health is ignored, and the candidates are those that are reachable."""
    candidates: list[Candidate]
    skipped: list[Skipped]


class ErrorDetail(TypedDict):
    """One problem of a refused body."""

    path: str
    message: str


class ErrorBody(TypedDict):
    """Every answer that is an error."""

    code: str
    message: str
    details: list[ErrorDetail]


class PushedBy(Frozen):
    """The header `Livelb-Pushed-By` of `PUT /v1/snapshot`, as JSON: who pushes, for whoever wonders."""

    program: Word
    """As `lb-control run`."""
    host: Word
    """Its machine's name."""
    pid: Annotated[int, Field(strict=True, ge=1)]
    """As it sees itself."""
    user: Word
    """Whose it is."""
    source: Word | None = None
    """The file or key that it follows."""

    def __str__(self) -> str:
        source = f", from {self.source}" if self.source else ""
        return f"{self.program} of {self.user} (pid {self.pid} on {self.host}){source}"


class BackendPatch(Frozen):
    """`PATCH /v1/services/{service}/backends/{id}`: an operator's override."""

    state: OperatorState | None = None
    """None: leave it alone."""
    weight: Annotated[int, Field(strict=True, ge=0, le=256)] | None = None
    """None: leave it alone."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.state is None and self.weight is None:
            raise refused(((), "must say state, weight or both"))
        return self

    def body(self) -> dict[str, Any]:
        """Return what travels as JSON: only what is overridden."""
        return self.model_dump(mode="json", exclude_none=True)


def parse_pushed_by(text: str) -> PushedBy:
    """Check the header of a push.

    Raises:
        InvalidDocument: It is not JSON, or says something else.
    """
    try:
        return PushedBy.model_validate_json(text)
    except ValidationError as error:
        raise InvalidDocument(to_problems(findings_of(error, PushedBy), {})) from None


def parse_backend_patch(data: object) -> BackendPatch:
    """Check a decoded patch.

    Raises:
        InvalidDocument: With every problem found, by path.
    """
    try:
        return BackendPatch.model_validate(data)
    except ValidationError as error:
        raise InvalidDocument(to_problems(findings_of(error, BackendPatch), data)) from None
