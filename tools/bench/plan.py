"""Which studies a run makes, and who takes part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from tools.bench import loads
from tools.bench.acknowledged import AcknowledgedStudy
from tools.bench.changes import ChangeStudy
from tools.bench.contenders import CONTENDERS, INTERPRETED_SUFFIX
from tools.bench.costs import CollectorStudy, PartsStudy
from tools.bench.distance import DistanceStudy
from tools.bench.loads import (
    BULK_METRICS,
    LATENCY_METRICS,
    OPERATION_METRICS,
    SQL_METRICS,
    LoadStudy,
    Pressure,
)
from tools.bench.memory import MemoryStudy
from tools.bench.registration import RegistrationStudy
from tools.bench.scrape import ScrapeStudy
from tools.bench.services import ServicesStudy
from tools.bench.start import StartStudy
from tools.bench.study import Pace, Study
from tools.bench.tls import HANDSHAKE_METRICS, MESSAGE_METRICS, STREAM_METRICS, RouteStudy, TlsStudy
from tools.bench.veth import VethStudy
from tools.bench.workers import WorkersStudy

FULL: Final = Pace(rounds=6, seconds=0.6, warm_up_s=0.4, brief_rounds=3, brief_seconds=0.4, starts=3)
QUICK: Final = Pace(rounds=3, seconds=0.5, warm_up_s=0.3, brief_rounds=2, brief_seconds=0.3)

_PEERS: Final = ("direct", "relay", "haproxy", "nginx", "envoy", "traefik")
_EVERYBODY: Final = (*_PEERS, "ours-off", "ours-preconnect", "ours-reuse", "ours-log")
_DEFAULTS: Final = (*_PEERS, "ours-preconnect")
"""For what stays connected: how its connection was made is over before the measurement begins."""
_SHORT_LIST: Final = ("direct", "relay", "haproxy", "ours-off", "ours-preconnect", "ours-reuse")
_QUICK_LIST: Final = ("direct", "relay", "haproxy", "ours-preconnect")
_PAIR: Final = ("haproxy", "ours-off")
_WORKERS: Final = ("haproxy", "haproxy-2", "ours-preconnect", "ours-2", "ours-4")
_TLS: Final = ("haproxy", "nginx", "envoy", "ours-off")
_TAIL: Final = ("relay", "haproxy", "ours-off", "ours-preconnect", "ours-reuse")

FORMS: Final = ("installed", "interpreted", "both")
"""Which of our data plane's forms run: as it is installed here (compiled, if it is), interpreted, or one beside the other."""
_IN_BOTH: Final = frozenset(
    {"keepalive", "connect", "veth", "connect-latency", "connect-latency-80", "workers-connect", "workers-echo", "start"}
)  # fmt: skip
"""Studies that a full run makes with both forms: those whose targets are about what is compiled."""
_HALF: Final = 0.5
_MOST_OF_IT: Final = 0.8
_TAIL_CONNECTIONS: Final = 512
_TAIL_S: Final = 1.5

_BACKEND_COUNTS: Final = (10, 100, 1_000, 10_000)
_JUDGED_COUNTS: Final = (100, 10_000)
"""Of backends: those that a target is about."""
_CONNECTION_COUNTS: Final = (1, 64, 1_000, 9_000)
_SERVICE_COUNTS: Final = (1, 10, 100, 500)
_SIZES: Final = (16, 4_096, 65_536)
_CHANGES: Final = 1_000
_TLS_KEYS: Final = (("", "ecdsa", "ECDSA P-256"), ("-rsa", "rsa", "RSA 2048"))
"""What the names of their studies end with, the certificate, and what it is called."""
_TLS_BULK: Final[tuple[tuple[Literal["down", "up"], str], ...]] = (
    ("down", "backend to client"),
    ("up", "client to backend"),
)

_KEEP_ALIVE_NOTE: Final = (
    f"`wrk`, {loads.CONNECTIONS} connections, nginx answers with 16 bytes. Latencies are of a closed loop:"
    " those below, at one rate for all, compare better."
)
_CONNECT_NOTE: Final = f"`load.c`, closed loop, {loads.CONNECTIONS} clients at once; 16 bytes to an echo server and back on each connection."
_LATENCY_NOTE: Final = (
    "`load.c`, open loop at half of HAProxy's highest rate, latency from the intended time of sending."
)


@dataclass(frozen=True)
class Curve:
    """One figure of studies that differ in one number."""

    name: str
    title: str
    metric: str


@dataclass(frozen=True)
class Family:
    """Studies that differ in one number."""

    title: str
    across: str
    """What the number is."""
    studies: tuple[tuple[int, str], ...]
    """The number, and the name of its study."""
    curves: tuple[Curve, ...]


def _family(title: str, across: str, stem: str, numbers: Sequence[int], *curves: Curve) -> Family:
    return Family(title, across, tuple((number, f"{stem}-{number}") for number in numbers), curves)


FAMILIES: Final = (
    _family(
        "Messages and the number of connections", "connections", "connections", _CONNECTION_COUNTS,
        Curve("curve-connections", "Messages of 16 bytes", "rate"),
        Curve("curve-connections-cpu", "Messages of 16 bytes", "proxy_cpu"),
    ),
    _family(
        "Messages and their size", "bytes of a message", "size", _SIZES,
        Curve("curve-sizes", "Messages on 64 connections", "machine_cpu"),
    ),
    _family(
        "Short connections and the number of services", "services", "services", _SERVICE_COUNTS,
        Curve("curve-services", "Connect, send, receive, close at one of them", "proxy_cpu"),
        Curve("curve-services-memory", "Services", "memory"),
        Curve("curve-services-change", "Services", "change_ms"),
    ),
    _family(
        "Weight changes one by one", "backends", "weights", _BACKEND_COUNTS,
        Curve("curve-weights", "One weight change", "change_ms"),
        Curve("curve-stall", "One weight change after the other", "max_us"),
    ),
    _family(
        "All weights at once", "backends", "apply", _BACKEND_COUNTS,
        Curve("curve-apply", "All weights at once", "change_ms"),
        Curve("curve-apply-stall", "All weights at once", "max_us"),
    ),
)  # fmt: skip


GROUPS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "costs": ("parts", "collector", "scrape"),
        "curves": tuple(name for family in FAMILIES for _, name in family.studies),
        "workers": ("workers-connect", "workers-echo"),
        "tls": (
            *(
                f"tls-{what}"
                for what in ("full", "full-rsa", "resumed", "resumed-rsa", "echo", "down", "up", "memory")
            ),
            "route",
        ),
        "tail": ("connect-latency", "connect-latency-80"),
        "acknowledged": tuple(f"acknowledged-{what}" for what in ("one", "all", "sticky", "patch", "first")),
    }
)
"""Names of several studies at once."""


def _keep_alive(contenders: Sequence[str]) -> Study:
    return LoadStudy(
        "keepalive", "Requests on connections that stay", _KEEP_ALIVE_NOTE,
        OPERATION_METRICS, contenders, "http", loads.http(),
    )  # fmt: skip


def _connect(contenders: Sequence[str]) -> Study:
    return LoadStudy(
        "connect", "Connect, send, receive, close", _CONNECT_NOTE,
        OPERATION_METRICS, contenders, "echo", loads.connects(),
    )  # fmt: skip


def _latency(contenders: Sequence[str]) -> Study:
    return Pressure(
        "latency", "Latency of a message at one rate for all", _LATENCY_NOTE,
        LATENCY_METRICS, contenders, "echo", loads.echoes(),
    )  # fmt: skip


def _bulk(contenders: Sequence[str], direction: str) -> Study:
    options = ("-R",) if direction == "down" else ()
    title = "Bulk, backend to client" if direction == "down" else "Bulk, client to backend"
    note = "`iperf3`, one stream."
    return LoadStudy(
        f"bulk-{direction}", title, note, BULK_METRICS, contenders, "iperf", loads.bulk(*options)
    )


def _tail(share: float, at_least_s: float = 0.0) -> Study:
    percent = f"{share:.0%}"
    name = "connect-latency" if share == _HALF else f"connect-latency-{percent.removesuffix('%')}"
    return Pressure(
        name, f"Latency of a connection at {percent} of HAProxy's highest rate",
        f"`load.c`, open loop: connect, send, receive, close, begun at {percent} of the rate that HAProxy reaches in a closed"
        f" loop, on at most {_TAIL_CONNECTIONS} connections at once; latency from the intended beginning.",
        LATENCY_METRICS, _TAIL, "echo", loads.connects(),
        share=share, mode="connect", connections=_TAIL_CONNECTIONS, at_least_s=at_least_s,
    )  # fmt: skip


def in_forms(studies: Sequence[Study], forms: str | None) -> Sequence[Study]:
    """Have studies made with forms of our data plane, and return them.

    Args:
        studies: Whose contenders are changed.
        forms: One of FORMS; None for both where targets are about them, else as it is installed.
    """
    for study in studies:
        wanted = forms or ("both" if study.name in _IN_BOTH else "installed")
        study.contenders = [name for each in study.contenders for name in _in_forms(each, wanted)]
    return studies


def _in_forms(name: str, forms: str) -> list[str]:
    interpreted = name + INTERPRETED_SUFFIX
    if forms == "installed" or interpreted not in CONTENDERS:
        return [name]
    return [interpreted] if forms == "interpreted" else [name, interpreted]


def quick() -> list[Study]:
    """Return what fits in a few minutes."""
    return [
        _keep_alive(_QUICK_LIST),
        _connect(_SHORT_LIST),
        VethStudy(("haproxy", "ours-off", "ours-preconnect", "ours-reuse")),
        _latency(_QUICK_LIST),
        _tail(_HALF),
        _tail(_MOST_OF_IT),
        _bulk(_PAIR, "down"),
        MemoryStudy(_PAIR, connections=300),
        StartStudy(("haproxy", "ours-off", "ours-off-2")),
        DistanceStudy(("haproxy", "ours-off", "ours-preconnect")),
        WorkersStudy(("ours-preconnect", "ours-2"), "connect"),
        WorkersStudy(("ours-preconnect", "ours-2"), "echo"),
        ChangeStudy(_PAIR, backends=100, changes=_CHANGES),
        *_acknowledged(),
        RegistrationStudy(("ours-off",), thorough=False),
        *_tls(_PAIR, idle=150),
    ]


def full() -> list[Study]:
    """Return everything: first what is behind the targets, then the curves and the costs."""
    return [
        _keep_alive(_DEFAULTS),
        _connect(_EVERYBODY),
        VethStudy(_SHORT_LIST[1:]),
        _latency(_DEFAULTS),
        _tail(_HALF, _TAIL_S),
        _tail(_MOST_OF_IT, _TAIL_S),
        _bulk(("direct", "relay", "haproxy", "ours-off"), "up"),
        _bulk(("direct", "relay", "haproxy", "haproxy-splice", "nginx", "envoy", "ours-off"), "down"),
        MemoryStudy((*_PEERS[1:], "ours-off"), connections=1_500),
        StartStudy(("haproxy", "ours-off", "ours-off-2")),
        DistanceStudy(("direct", "haproxy", "nginx", "ours-off", "ours-preconnect", "ours-reuse")),
        WorkersStudy(_WORKERS, "connect"),
        WorkersStudy(_WORKERS, "echo"),
        *_changes(),
        *_acknowledged(),
        RegistrationStudy(("ours-off",)),
        *_tls(_TLS, idle=400),
        *_secondary(),
        *_scaling(),
        PartsStudy(),
        CollectorStudy(),
        ScrapeStudy(),
    ]


def _changes() -> list[Study]:
    return [
        *(
            ChangeStudy(_PAIR, backends=n, changes=_CHANGES, thorough=n in _JUDGED_COUNTS)
            for n in _BACKEND_COUNTS
        ),
        *(ChangeStudy(_PAIR, backends=n, changes=None, thorough=False) for n in _BACKEND_COUNTS),
    ]


def _acknowledged() -> list[Study]:
    pair = ("haproxy", "ours-off-2")
    return [
        AcknowledgedStudy(pair, "one"),
        AcknowledgedStudy(pair, "all"),
        AcknowledgedStudy(("haproxy-sticky", "ours-sticky-2"), "sticky"),
        AcknowledgedStudy(pair, "patch"),
        AcknowledgedStudy(("ours-off-2",), "first"),
    ]


def _tls(contenders: Sequence[str], idle: int) -> list[Study]:
    """Return the studies of TLS.

    Args:
        contenders: Who takes part.
        idle: Connections whose memory is measured.
    """
    same = "`tls_load.c`, one thread, closed loop; TLS 1.3, TLS_AES_128_GCM_SHA256, X25519 and nothing else is offered."
    handshakes = (
        "16 clients at once connect, shake hands, send 16 bytes to a plain echo server, wait for them, and close with"
        " close_notify."
    )
    return [
        *(
            TlsStudy(
                f"tls-full{suffix}", f"TLS handshakes in full, {kind}", f"{same} {handshakes} The certificate's key is {kind}.",
                HANDSHAKE_METRICS, contenders, "full", key,
            )
            for suffix, key, kind in _TLS_KEYS
        ),
        *(
            TlsStudy(
                f"tls-resumed{suffix}", f"TLS handshakes resumed, {kind}",
                f"{same} {handshakes} Each with the ticket that the connection before it was given, and a new exchange of"
                " keys; all sessions are in tickets, nobody keeps a cache of them.",
                HANDSHAKE_METRICS, contenders, "resumed", key,
            )
            for suffix, key, kind in _TLS_KEYS
        ),
        TlsStudy(
            "tls-echo", "Messages on TLS connections that stay", f"{same} {loads.CONNECTIONS} connections, 16 bytes to a plain"
            " echo server and back.", MESSAGE_METRICS, contenders, "echo", connections=loads.CONNECTIONS,
        ),
        *(
            TlsStudy(
                f"tls-{mode}", f"Bulk over TLS, {words}", f"{same} Two connections, a plain server of `stream.c`.",
                STREAM_METRICS, contenders, mode, connections=2, size=65_536,
            )
            for mode, words in _TLS_BULK
        ),
        MemoryStudy(
            contenders, idle, key="ecdsa", name="tls-memory", title="Memory of an idle TLS connection",
        ),
        RouteStudy(
            "route", "Passing TLS through by its name", "`load.c`, closed loop, 64 clients at once send the ClientHello of this"
            " machine's OpenSSL and wait until the backend has sent it back; no key is used anywhere. `By name`: one of two"
            " sets of backends is chosen by the name in it.",
            OPERATION_METRICS, [*_PAIR, *(f"{plain}-route" for plain in contenders)],
            "echo", loads.connects(),
        ),
    ]  # fmt: skip


def _secondary() -> list[Study]:
    contenders = ("direct", "haproxy", "ours-off", "ours-preconnect")
    return [
        LoadStudy(
            "http-close", "Requests with `Connection: close`",
            f"`wrk`, {loads.CONNECTIONS} connections; the backend closes first, so that nothing can be reused.",
            OPERATION_METRICS, (*_PEERS, "ours-preconnect"), "http", loads.http("Connection: close"), thorough=False,
        ),
        LoadStudy(
            "redis", "Redis", "`redis-benchmark`, GET and SET, 50 connections that stay.",
            OPERATION_METRICS, contenders, "redis", loads.redis, thorough=False,
        ),
        LoadStudy(
            "postgres", "PostgreSQL", "`pgbench`, read-only, 8 connections that stay.",
            SQL_METRICS, contenders, "postgres", loads.sql(), thorough=False,
        ),
        LoadStudy(
            "postgres-connect", "PostgreSQL, a connection for each transaction", "`pgbench -C`, read-only, 8 clients.",
            SQL_METRICS, contenders, "postgres", loads.sql("-C"), thorough=False,
        ),
    ]  # fmt: skip


def _scaling() -> list[Study]:
    note = "`load.c`, closed loop."
    return [
        *(
            LoadStudy(
                f"connections-{n}", f"Messages of 16 bytes, connections: {n:,}", note,
                OPERATION_METRICS, _PAIR, "echo", loads.echoes(connections=n), thorough=False,
            )
            for n in _CONNECTION_COUNTS
        ),
        *(
            LoadStudy(
                f"size-{n}", f"Messages of {n:,} bytes on {loads.CONNECTIONS} connections", note,
                OPERATION_METRICS, _PAIR, "echo", loads.echoes(size=n), thorough=False,
            )
            for n in _SIZES
        ),
        *(ServicesStudy(_PAIR, services=n) for n in _SERVICE_COUNTS),
    ]  # fmt: skip
