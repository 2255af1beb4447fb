"""What `model_cluster` measures: our own code on a document of many services."""

from __future__ import annotations

import json
import resource
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeVar

from controlplane.core.compile import compile_services
from controlplane.core.node_record import FirstByte, NodeRecord, Outcomes
from controlplane.dataplanes.requests import encode
from dataplane.core.balance.sticky_table import StickyTable
from schemas.desired import load_desired
from schemas.reading.document import MAX_BYTES
from schemas.snapshot import Backend, parse_snapshot

T = TypeVar("T")

DIALS: Final = 300
BUSY: Final = 1000
"""Services that a record is made of: more than it has room for."""
BOUNDS: Final = ("0.5", "1.0", "2.5", "5.0", "10.0", "25.0")
"""Of times that a service's clients meet."""
PARSES: Final = 20
TABLES: Final = 5


@dataclass(frozen=True, slots=True)
class Size:
    """What is modelled; numbers that were scaled may be fractions."""

    nodes: float
    services: float
    backends: int
    """Of each service."""
    queries: float
    """Distinct questions to Consul for backends; services that ask the same share one. 0: no discovery."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one service costs; times are CPU seconds of this machine."""

    sample: int
    """Services of the document that was measured: as many as were asked for, or as fit into 1 MiB."""
    listed_bytes: float
    """Of the lb.yaml, where backends are listed."""
    discovered_bytes: float
    """Of the lb.yaml, where they come from Consul."""
    snapshot_bytes: float
    read_s: float
    """Reading and checking the lb.yaml."""
    compile_s: float
    """From there to the bytes that are pushed."""
    take_s: float
    """Of a data plane: reading and checking those."""
    daemon_kib: float
    """Memory that all of this needs at its peak."""
    table_s: float
    """Building one table of a sticky service."""
    table_bytes: int
    parse_s: float
    """Reading a KiB of a node's record."""
    dial_s: float
    """Connecting over loopback and closing, which a TCP check is; the kernel's part included."""


def lb_yaml(services: int, backends: int, *, discovered: bool) -> str:
    """Return an lb.yaml as a person would write it who has many services: one line for each, `defaults` for the rest."""
    lines = ["version: 1", "defaults: {mode: p2c}", "services:"]
    for number in range(services):
        name, listen = f"service-{number:05}", f'listen: "0.0.0.0:{_port(number)}"'
        if discovered:
            source = f"discover: {{consul: {{service: {name}}}}}"
        else:
            source = f"backends: [{', '.join(address(number * backends + each) for each in range(backends))}]"
        lines.append(f"  {name}: {{{listen}, {source}}}")
    return "\n".join(lines) + "\n"


def address(number: int) -> str:
    """Return a backend's address."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8080"


def _port(number: int) -> int:
    return 2000 + number % 63000


def measure(size: Size) -> Measured:
    """Measure on the larger of the two forms of the lb.yaml that the size stands for."""
    sample = _fitting(round(size.services), size.backends)
    listed, discovered = (lb_yaml(sample, size.backends, discovered=each) for each in (False, True))
    text = discovered if size.queries else listed
    before = _peak_kib()
    desired, read_s = _timed(lambda: load_desired(text.encode()))
    found = {} if not size.queries else _found(sample, size.backends)
    body, compile_s = _timed(lambda: encode(compile_services(desired, found, {}).body(1)))
    daemon_kib = _peak_kib() - before
    _, take_s = _timed(lambda: parse_snapshot(json.loads(body)))
    members = [(address(each), 1) for each in range(size.backends)]
    tables, tables_s = _timed(lambda: [StickyTable.build_now(members, str(each)) for each in range(TABLES)])
    return Measured(
        sample=sample,
        listed_bytes=len(listed) / sample,
        discovered_bytes=len(discovered) / sample,
        snapshot_bytes=len(body) / sample,
        read_s=read_s / sample,
        compile_s=compile_s / sample,
        take_s=take_s / sample,
        daemon_kib=daemon_kib / sample,
        table_s=tables_s / TABLES,
        table_bytes=memoryview(tables[0].slots).nbytes,
        parse_s=_parse_s(size),
        dial_s=_dial_s(),
    )


def _fitting(services: int, backends: int) -> int:
    """Return how many services are measured: all of them, or as many as an lb.yaml may have bytes for."""
    size = max(len(lb_yaml(services, backends, discovered=each)) for each in (False, True))
    return max(1, min(services, services * MAX_BYTES // size))


@cache
def record(services: int, room: float = 1.0) -> bytes:
    """Return a node's record, with clients on every service, and one service in ten a sticky one; `room` as for `encode`."""
    names = [f"service-{number:05}" for number in range(min(services, BUSY))]
    times = FirstByte(120_000, 240_000.5, dict.fromkeys(BOUNDS, 20_000))
    return NodeRecord(
        node="edge-paris-17",
        at="2026-11-30T12:00:00.000Z",
        started="2026-11-01T12:00:00.000Z",
        livelb="0.1.0",
        address="http://192.0.2.17:9100",
        key="lb/edge.yaml",
        content="0" * 64,
        generation=1_234,
        hash="0" * 64,
        converged=True,
        ready=True,
        since="2026-11-01T12:00:01.000Z",
        table_hashes=dict.fromkeys(names[::10], "0123456789abcdef"),
        active=12_345,
        variables={"NODE_IP": "192.0.2.17"},
        outcomes=dict.fromkeys(names, Outcomes(120_000, 12, 1, 3, 3, times)),
    ).encode(room)


def _parse_s(size: Size) -> float:
    raw = record(round(size.services))
    _, spent = _timed(lambda: [NodeRecord.parse(raw) for _ in range(PARSES)])
    return spent / PARSES / len(raw) * 1024


def _found(services: int, backends: int) -> dict[str, list[Backend]]:
    return {
        f"service-{number:05}": [
            Backend.model_validate(
                {"id": f"node-{each}/service-{number:05}", "address": address(number * backends + each)}
            )
            for each in range(backends)
        ]
        for number in range(services)
    }


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    before = time.process_time()
    result = work()
    return result, time.process_time() - before


def _peak_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _dial_s() -> float:
    with socket.create_server(("127.0.0.1", 0), backlog=DIALS) as server:
        there: Any = server.getsockname()

        def dial() -> None:
            for _ in range(DIALS):
                socket.create_connection(there).close()

        return _timed(dial)[1] / DIALS
