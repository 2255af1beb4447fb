"""What a snapshot becomes before the connection path sees it: frozen, slotted, in plain units.

Seconds are floats, shares are fractions (0..1), and 0 means "none" wherever lb.yaml says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Mode(StrEnum):
    """The balancing algorithm."""

    RR = "rr"
    STICKY = "sticky"
    LEASTCONN = "leastconn"
    P2C = "p2c"
    RANDOM = "random"


class OperatorState(StrEnum):
    """What people want of a backend."""

    ENABLED = "enabled"
    DRAIN = "drain"
    DISABLED = "disabled"


class PoolMode(StrEnum):
    """What a pool may hold."""

    OFF = "off"
    PRECONNECT = "preconnect"
    REUSE = "reuse"


class ProxySend(StrEnum):
    """Which PROXY header a backend is sent."""

    OFF = "off"
    V1 = "v1"
    V2 = "v2"


class ProxyAccept(StrEnum):
    """Whether clients must send a PROXY header."""

    OFF = "off"
    REQUIRED = "required"


class CheckType(StrEnum):
    """What an active check does after it has connected."""

    NONE = "none"
    TCP = "tcp"
    TLS = "tls"
    HTTP = "http"
    EXPECT = "expect"


class Resets(StrEnum):
    """Which resets before a backend's first byte are failures of the backend."""

    OFF = "off"
    UNPROVOKED = "unprovoked"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class ListenSpec:
    """How one address is listened on."""

    freebind: bool = False
    """Also if no interface has it yet."""
    mode: int | None = None
    """Permissions of a Unix socket; None: what the umask leaves."""
    owner: str = ""
    """User of a Unix socket, by name or number; empty: this process's."""
    group: str = ""


class BackendSpec(NamedTuple):
    """One server of a service; a tuple, because 10,000 of a frozen dataclass take four times as long to make."""

    id: str
    address: str
    """`host:port`, `[v6]:port` or `unix:/path`."""
    weight: int
    """0..256; 0 takes no new connection."""
    tier: int
    state: OperatorState


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """The pool of each backend; sizes are per backend and node."""

    mode: PoolMode
    min_idle: int
    max_idle: int
    idle_timeout_s: float
    max_age_s: float
    greeting_age_s: float
    """How old a connection may be on which the backend has spoken; 0: any."""


@dataclass(frozen=True, slots=True)
class ActiveCheckSpec:
    """How each backend is probed."""

    type: CheckType
    interval_s: float
    timeout_s: float
    rise: int
    fall: int
    jitter: float
    """Share of the interval, 0..1, by which a probe may be early or late."""
    port: int | None
    """Another port than the backend's own; None: the same."""
    http_path: str
    http_status: tuple[tuple[int, int], ...]
    """First and last of each range that means up."""
    http_host: str
    """Host header; empty: the backend's address."""
    expect_send: bytes
    expect_expect: bytes
    expect_quit: bytes
    tls: bool = False
    """Over TLS, begun as `ServiceSpec.backend_tls` says."""


@dataclass(frozen=True, slots=True)
class PassiveSpec:
    """When a backend is ejected for what clients' connections met."""

    failures: int
    """Consecutive failures that eject; 0: never."""
    ejection_s: float
    max_ejection_s: float
    max_ejected: float
    """Share of a service's backends, 0..1; one is always allowed."""
    resets: Resets


@dataclass(frozen=True, slots=True)
class TimeoutsSpec:
    """Deadlines of a connection; 0: none."""

    connect_s: float
    idle_s: float
    half_closed_s: float
    lifetime_s: float
    proxy_header_s: float
    client_hello_s: float = 5.0
    """For the ClientHello that tells which service of a listener a client wants."""
    tls_handshake_s: float = 10.0
    """For a client's whole TLS handshake; a backend's has what `connect_s` leaves."""


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """PROXY protocol on both legs."""

    send: ProxySend
    accept: ProxyAccept
    trusted: tuple[str, ...]
    """CIDRs whose headers are believed."""
    send_tls: bool = True
    """Tell, in version 2, what is known of the client's TLS."""
    pass_tlvs: bool = False
    """Pass on, in version 2, the fields of the header that the client began with."""
    checksum: bool = False
    """Send a checksum in version 2."""


@dataclass(frozen=True, slots=True)
class LimitsSpec:
    """Admission limits, per node; 0: none."""

    connections: int
    per_backend: int
    per_client: int
    client_rate: float
    """New connections a second and client address."""
    queue: int
    queue_timeout_s: float
    drop_abandoned: bool
    """Whether a client whose FIN comes while it waits has left."""


@dataclass(frozen=True, slots=True)
class AccessSpec:
    """CIDRs, matched with the real client address."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DrainSpec:
    """How long drained connections may stay, and over how long the rest is closed."""

    timeout_s: float
    close_s: float


@dataclass(frozen=True, slots=True)
class MatchSpec:
    """Which clients of a listener that it shares a service takes; empty: any."""

    sni: tuple[str, ...] = ()
    """Names in lower case, `*.example.com` for one label in front of it."""
    alpn: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    """CIDRs, matched with the real client address."""


@dataclass(frozen=True, slots=True)
class CertificateSpec:
    """A certificate (with its chain) and its key: files in PEM, by absolute path."""

    cert: str
    key: str


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """How TLS of clients ends here."""

    certificates: tuple[CertificateSpec, ...]
    """Chosen by SNI; the first is the default."""
    client_ca: str = ""
    """File of authorities; clients must have a certificate of one. Empty: they need none."""
    min_version: str = "1.2"
    alpn: tuple[str, ...] = ()
    """In order of preference; empty: nothing is negotiated."""
    ciphers: str = ""
    """OpenSSL's list for TLS 1.2; empty: the default."""


@dataclass(frozen=True, slots=True)
class BackendTlsSpec:
    """How TLS to backends begins here."""

    ca: str = "system"
    """`system`, or a file of authorities."""
    server_name: str = ""
    """Sent as SNI and verified; empty: the host name of the backend's address, or its IP, which is verified and not sent."""
    verify: bool = True
    cert: str = ""
    """Our own certificate and its key; empty: none."""
    key: str = ""
    alpn: tuple[str, ...] = ()
    pass_sni: bool = False
    """Send the client's SNI, if it has sent one; what is verified is still the above."""
    pass_alpn: bool = False
    """Offer what the client and this end have agreed on, or what the client offers if its TLS does not end here."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service, every default resolved."""

    name: str
    listen: tuple[str, ...]
    mode: Mode
    seed: str
    """Keys the sticky hash."""
    backends: tuple[BackendSpec, ...]
    pool: PoolSpec
    active: ActiveCheckSpec
    passive: PassiveSpec
    panic: float
    """Share of usable backends, 0..1, below which health is ignored; 0: never."""
    timeouts: TimeoutsSpec
    retries: int
    proxy: ProxySpec
    limits: LimitsSpec
    access: AccessSpec
    drain: DrainSpec
    slow_start_s: float
    listen_options: tuple[tuple[str, ListenSpec], ...] = ()
    """Of those addresses among `listen` that have any."""
    balance_workers: bool = False
    """Whether a supervisor's workers hand clients over to the one that has the fewest."""
    match: MatchSpec | None = None
    """None: all clients of its listeners that no other service takes."""
    tls: TlsSpec | None = None
    """None: the bytes of clients are passed on as they are."""
    backend_tls: BackendTlsSpec | None = None
    """None: backends get what the client has sent, or what was in its TLS."""
