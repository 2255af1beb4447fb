"""What the data plane's API answers besides snapshot and status: plain dictionaries."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


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
    build: Literal["compiled", "interpreted"]
    """Which form of the connection path runs."""
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


class CertificateImpact(TypedDict):
    """A certificate that is shown from a change on, or not any more."""

    action: Literal["add", "remove"]
    service: str
    place: str
    """The key of the service that names it: `tls.certificates[0]`, or `backend_tls`."""
    cert: str
    """Its file."""
    names: list[str]
    ends: str


NameImpact = TypedDict("NameImpact", {"name": str, "from": str, "to": str})
"""A name of `match.sni` whose clients get another service; empty: none."""


class Impact(TypedDict):
    """What a change does to what is running."""

    drain: list[ConnectionCount]
    """Clients' connections on backends that take no new ones."""
    pool: list[ConnectionCount]
    """Idle connections that would be closed."""
    remap: dict[str, str]
    """Share of sticky clients that would move, by service: `12.5%`."""
    listeners: list[ListenerImpact]
    certificates: NotRequired[list[CertificateImpact]]
    """Left out where there are none."""
    names: NotRequired[list[NameImpact]]
    """Left out where none moves."""


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


class Routed(TypedDict):
    """One address that several services share, or one that does not take everybody, and who takes a client there."""

    address: str
    service: str | None
    """None: nobody; the client is closed with `no_route`."""


class Explanation(TypedDict):
    """`GET /v1/explain`: the candidates, best first."""

    service: str
    client: str
    panic: bool
    """Whether health is ignored, and the candidates are those that are reachable."""
    candidates: list[Candidate]
    skipped: list[Skipped]
    routes: NotRequired[list[Routed]]
    """If it was asked for a name or protocols: where they lead, at each address."""
