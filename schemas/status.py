"""What `GET /v1/status` of a data plane returns.

Plain dictionaries: built for every scrape, so they cost no validation. Times are RFC 3339 in UTC
("2026-01-01T00:00:00.000Z"); `bytes_in` goes from client to backend, `bytes_out` back.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class HealthStatus(TypedDict):
    """What is observed of a backend."""

    state: Literal["up", "down", "unknown", "ejected"]
    cause: str
    since: str
    reachable: bool
    """False: checks or clients' dials found that no connection can be made. What is reachable serves in panic."""


class Override(TypedDict):
    """An operator's word that holds against the snapshot's."""

    value: int | str
    since: str


class PoolTotals(TypedDict):
    """What became of pooled connections."""

    hits: int
    misses: int
    discarded: dict[str, int]
    """By cause."""


class TimesStatus(TypedDict):
    """How long something took, since the process began."""

    count: int
    sum_s: float
    buckets: dict[str, int]
    """How many took at most as many seconds as the bound, and more than the one below, by the bound: `0.25`, `+Inf`."""


class TlsTotals(TypedDict):
    """TLS handshakes since the process began."""

    handshakes: dict[str, int]
    """Those that succeeded, by version: `TLSv1.3`."""
    resumed: int
    """Those of them that went on with an earlier session."""
    failed: dict[str, int]
    """Those that failed, by cause: `unknown_ca`, `expired`, `no_shared_cipher`."""
    time: TimesStatus
    """How long those took that succeeded."""


class BackendTotals(TypedDict):
    """Counters of a backend since the process began."""

    connections: int
    connect_failures: int
    bytes_in: int
    bytes_out: int
    ejections: int
    first_byte: TimesStatus
    """From connected to the backend's first byte, of connections that have ended."""
    pool: PoolTotals
    tls: NotRequired[TlsTotals]
    """Of TLS that began here; left out where there was none."""


class BackendStatus(TypedDict):
    """One server: intent, observation and load side by side."""

    id: str
    address: str
    weight: int
    """The effective one, after overrides."""
    tier: int
    state: Literal["enabled", "drain", "disabled"]
    """The effective one, after overrides."""
    overridden: dict[str, Override]
    """By field: `state`, `weight`."""
    health: HealthStatus
    active: int
    """Connections that carry a client."""
    pooled: int
    """Idle connections."""
    draining_since: str | None
    removed: NotRequired[bool]
    """True: no longer in the snapshot; listed until its last connection has gone."""
    totals: BackendTotals


class ListenerStatus(TypedDict):
    """One address that is accepted on."""

    address: str
    state: Literal["accepting", "paused", "closing"]
    accepted: int


class ServiceTotals(TypedDict):
    """Counters of a service since the process began."""

    connections: int
    bytes_in: int
    bytes_out: int
    retries: int
    closed: dict[str, int]
    """By close reason."""
    harmed: int
    """Those that got no backend, or were cut off by one, by no doing of their own."""
    tls: NotRequired[TlsTotals]
    """Of clients whose TLS ends here; left out where there was none."""


class RecentStatus(TypedDict):
    """What a service's clients met in the last minute, apart from their own doing and from what was wanted."""

    window_s: float
    """How long that is: about 60 seconds, less for what is younger."""
    connections: int
    """Clients accepted in it."""
    refused: dict[str, int]
    """Those that got no backend, by close reason."""
    cut: dict[str, int]
    """Those whose backend broke off, by close reason."""


class CertificateStatus(TypedDict):
    """A certificate in use; of its key nothing but its kind."""

    place: str
    """The key of the service that names it, such as `tls.certificates[0]`; `backend_tls` is our own, for backends."""
    cert: str
    """Its file."""
    names: list[str]
    """Host names and addresses that it is for."""
    key_type: str
    """`ecdsa`, `rsa`, `ed25519`."""
    serial: str
    begins: str
    ends: str
    not_renewed: str
    """Why what is in its files now is not in use, and the one before is; empty: it is in use."""
    not_renewed_since: str | None
    key_readable_by_all: bool
    """Whether everybody on its machine may read the key's file."""


class MatchStatus(TypedDict):
    """Which clients a service takes where it shares a listener; an empty list leaves it open."""

    sni: list[str]
    alpn: list[str]
    source: list[str]


class BackendTlsStatus(TypedDict):
    """How TLS to the backends of a service begins."""

    verify: bool
    """Whether a backend's certificate has to be accepted."""
    ca: str
    """`system`, or a file of authorities."""
    server_name: str
    """Whose certificate it has to be; empty: that of the host in each backend's address."""


class ServiceStatus(TypedDict):
    """One service, all workers summed."""

    mode: str
    table_hash: str | None
    """Of the sticky table; None in other modes."""
    panic: bool
    """Whether health is ignored because too few backends are usable: all that are reachable serve."""
    tier: int | None
    """The one that serves; None if no backend is usable."""
    active: int
    queued: int
    listeners: list[ListenerStatus]
    match: NotRequired[MatchStatus]
    """Left out where it takes all clients that no other service takes."""
    totals: ServiceTotals
    recent: RecentStatus
    certificates: NotRequired[list[CertificateStatus]]
    """Of TLS that ends or begins here; left out where there are none."""
    backend_tls: NotRequired[BackendTlsStatus]
    """Left out where no TLS begins here."""
    backends: list[BackendStatus]


class WorkerStatus(TypedDict):
    """One process of a data plane."""

    index: int
    pid: int
    generation: int
    hash: str
    active: int
    pooled: int
    """Idle connections to all backends."""


class Status(TypedDict):
    """A data plane."""

    name: str
    pid: int
    instance: str
    """Drawn when the process began."""
    version: str
    build: Literal["compiled", "interpreted"]
    """Which form of the connection path runs."""
    generation: int
    hash: str
    uptime_s: float
    saved: bool
    """Whether a restart would find what runs on disk."""
    phase: str
    """Where the process is in its life: `starting`, `taking_over`, `serving`, `released` (another process has taken its
    listening sockets), `draining` (it was told to end) or `ended`."""
    draining_since: str | None
    """Since when nothing is accepted any more, and what is left finishes; None while this process serves."""
    skew: float
    """How many times the average number of clients the most loaded worker has; 1.0 is even."""
    workers: list[WorkerStatus]
    services: dict[str, ServiceStatus]
