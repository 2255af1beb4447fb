"""Which studies a run makes, and who takes part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tools.bench import loads
from tools.bench.changes import ChangeStudy
from tools.bench.distance import DistanceStudy
from tools.bench.loads import BULK_METRICS, OPERATION_METRICS, SQL_METRICS, LoadStudy, Pressure
from tools.bench.memory import MemoryStudy
from tools.bench.study import Pace, Study

__all__ = ["CURVES", "FULL", "QUICK", "Curve", "full", "quick"]

FULL: Final = Pace(rounds=5, seconds=0.8, warm_up_s=0.5)
QUICK: Final = Pace(rounds=3, seconds=0.5, warm_up_s=0.3)

_PEERS: Final = ("direct", "relay", "haproxy", "nginx", "envoy", "traefik")
_EVERYBODY: Final = (*_PEERS, "ours-off", "ours-preconnect", "ours-reuse", "ours-log", "ours-2")
_SHORT_LIST: Final = ("direct", "relay", "haproxy", "ours-off", "ours-preconnect", "ours-reuse")
_QUICK_LIST: Final = ("direct", "relay", "haproxy", "ours-preconnect")
_PAIR: Final = ("haproxy", "ours-off")

_BACKEND_COUNTS: Final = (10, 100, 1_000, 10_000)
_CONNECTION_COUNTS: Final = (1, 64, 1_000, 4_000)
_SIZES: Final = (16, 4_096, 65_536)
_CHANGES: Final = 1_000

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
    """Studies that differ in one number."""

    name: str
    title: str
    across: str
    """What the number is."""
    studies: tuple[tuple[int, str], ...]
    """The number, and the name of its study."""
    metric: str


def _family(stem: str, numbers: Sequence[int]) -> tuple[tuple[int, str], ...]:
    return tuple((number, f"{stem}-{number}") for number in numbers)


CURVES: Final = (
    Curve("curve-connections", "Messages and connections", "connections", _family("connections", _CONNECTION_COUNTS), "rate"),
    Curve("curve-sizes", "CPU and message size", "bytes", _family("size", _SIZES), "machine_cpu"),
    Curve("curve-weights", "One weight change", "backends", _family("weights", _BACKEND_COUNTS), "change_ms"),
    Curve("curve-stall", "Longest stall during weight changes", "backends", _family("weights", _BACKEND_COUNTS), "max_us"),
    Curve("curve-apply", "All weights at once", "backends", _family("apply", _BACKEND_COUNTS), "change_ms"),
)  # fmt: skip


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
        OPERATION_METRICS, contenders, "echo", loads.echoes(),
    )  # fmt: skip


def _bulk(contenders: Sequence[str], direction: str) -> Study:
    options = ("-R",) if direction == "down" else ()
    title = "Bulk, backend to client" if direction == "down" else "Bulk, client to backend"
    note = "`iperf3`, one stream."
    return LoadStudy(
        f"bulk-{direction}", title, note, BULK_METRICS, contenders, "iperf", loads.bulk(*options)
    )


def quick() -> list[Study]:
    """Return what fits in two minutes."""
    return [
        _keep_alive(_QUICK_LIST),
        _connect(_SHORT_LIST),
        _latency(_QUICK_LIST),
        _bulk(("relay", "haproxy", "ours-off"), "down"),
        MemoryStudy(_PAIR, connections=300),
        DistanceStudy(("haproxy", "ours-off", "ours-preconnect")),
        ChangeStudy(_PAIR, backends=100, changes=_CHANGES),
        ChangeStudy(_PAIR, backends=100, changes=None),
    ]


def full() -> list[Study]:
    """Return everything."""
    for_bulk = (*_PEERS[:3], "haproxy-splice", *_PEERS[3:], "ours-off")
    return [
        _keep_alive(_EVERYBODY),
        LoadStudy(
            "http-close",
            "Requests with `Connection: close`",
            f"`wrk`, {loads.CONNECTIONS} connections; the backend closes first, so that nothing can be reused.",
            OPERATION_METRICS,
            (*_PEERS, "ours-off", "ours-preconnect"),
            "http",
            loads.http("Connection: close"),
        ),
        _connect(_EVERYBODY),
        _latency(_EVERYBODY),
        Pressure(
            "connect-latency",
            "Latency of connect, send, receive at one rate for all",
            _LATENCY_NOTE,
            OPERATION_METRICS,
            _SHORT_LIST,
            "echo",
            loads.connects(),
            mode="connect",
        ),
        _bulk(("direct", "relay", "haproxy", "ours-off"), "up"),
        _bulk(for_bulk, "down"),
        MemoryStudy((*_PEERS[1:], "ours-off"), connections=2_000),
        DistanceStudy(("direct", "haproxy", "nginx", "ours-off", "ours-preconnect", "ours-reuse")),
        *_applications(),
        *_scaling(),
        *(ChangeStudy(_PAIR, backends=n, changes=_CHANGES) for n in _BACKEND_COUNTS),
        *(ChangeStudy(_PAIR, backends=n, changes=None) for n in _BACKEND_COUNTS),
    ]


def _applications() -> list[Study]:
    contenders = ("direct", "haproxy", "ours-off", "ours-preconnect")
    return [
        LoadStudy(
            "redis", "Redis", "`redis-benchmark`, GET and SET, 50 connections that stay.",
            OPERATION_METRICS, contenders, "redis", loads.redis,
        ),
        LoadStudy(
            "postgres", "PostgreSQL", "`pgbench`, read-only, 8 connections that stay.",
            SQL_METRICS, contenders, "postgres", loads.sql(),
        ),
        LoadStudy(
            "postgres-connect", "PostgreSQL, a connection for each transaction", "`pgbench -C`, read-only, 8 clients.",
            SQL_METRICS, contenders, "postgres", loads.sql("-C"),
        ),
    ]  # fmt: skip


def _scaling() -> list[Study]:
    note = "`load.c`, closed loop."
    return [
        *(
            LoadStudy(
                f"connections-{n}", f"Messages of 16 bytes on {n:,} connections", note,
                OPERATION_METRICS, _PAIR, "echo", loads.echoes(connections=n),
            )
            for n in _CONNECTION_COUNTS
        ),
        *(
            LoadStudy(
                f"size-{n}", f"Messages of {n:,} bytes on {loads.CONNECTIONS} connections", note,
                OPERATION_METRICS, _PAIR, "echo", loads.echoes(size=n),
            )
            for n in _SIZES
        ),
    ]  # fmt: skip
