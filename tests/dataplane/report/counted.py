"""Nodes of which every number is another one, so that two that are mixed up are seen."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.outlier import Evidence, Failure
from dataplane.core.phase import Life, Turn
from dataplane.net.counters import Histogram, tls_totals
from dataplane.net.reactor import Reactor
from dataplane.node.change import Changer
from dataplane.node.node import Node
from dataplane.node.specs import service_spec
from dataplane.report.report import Report
from dataplane.telemetry.events import Events
from schemas.snapshot import parse_snapshot

EXPECTED = Path(__file__).parent / "expected"
NOW = 5000.25
"""Monotonic seconds, and Unix seconds too."""
SERVICES: dict[str, Any] = {
    "big": {"listen": ["unix:/big"], "backends": ["unix:/1", "unix:/2", "unix:/3"]},
    "web": {
        "mode": "sticky",
        "listen": ["unix:/x", "unix:/y"],
        "backends": [
            {"id": "a", "address": "unix:/a", "weight": 5},
            {"id": "b", "address": "unix:/b", "tier": 1},
        ],
    },
}


class Still(Reactor):
    """A reactor whose clock stands."""

    __slots__ = ()

    def clock(self) -> float:
        """Return the time."""
        return NOW


class Sized:
    """Something of a length: a pool, a queue."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class Flow:
    """As much of a connection in place as is read of it."""

    def __init__(self, backend: object, received: int, answered: int) -> None:
        self.backend = backend
        self.client = SimpleNamespace(received=received)
        self.server = SimpleNamespace(received=answered)


class NoListeners:
    """Listeners of nobody."""

    def shut(self, addresses: object) -> None:
        """Do nothing."""

    def open(self, addresses: object) -> None:
        """Do nothing."""


async def make_node(
    first: int, *ejected: tuple[str, str, float], services: dict[str, Any] | None = None
) -> Node:
    """Return a node.

    Args:
        first: It has counted from there on; 0: nothing at all.
        ejected: Service and id of backends that passive health has ejected, and when.
        services: What it runs.
    """
    reactor = Still(asyncio.get_running_loop(), 1024)
    reactor.now = NOW - 100
    node = Node(reactor, Events(lambda kind, **fields: None, lambda: NOW), Random(1))
    quiet: dict[str, Any] = {"pool": {"mode": "off"}, "health": {"active": {"type": "none"}}}
    body = {name: quiet | one for name, one in (SERVICES if services is None else services).items()}
    snapshot = parse_snapshot({"version": 1, "generation": 1, "services": body})
    changer = Changer(node)
    specs = [service_spec(name, service) for name, service in snapshot.services.items()]
    await changer.swap(await changer.prepare(specs), NoListeners())  # type: ignore[arg-type] # none are needed
    for one in ejected:
        _eject(node, *one)
    if first:
        _count(node, first)
    reactor.close()
    return node


def _count(node: Node, first: int) -> None:
    numbers, handshakes = itertools.count(first), itertools.count(1000 * first)
    node.reactor.lag_s = next(numbers) / 1024
    for name, running in node.running.items():
        service: Any = running.service
        _fill(service.totals, numbers)
        if name == "web":
            _fill(tls_totals(service.totals), handshakes)
        service.own, service.queue = next(numbers), Sized(next(numbers))
        for backend in service.backends.values():
            _fill(backend.totals, numbers)
            if backend.id != "b":
                _fill(tls_totals(backend.totals), handshakes)
            backend.own, backend.pool = next(numbers), Sized(next(numbers))
            service.flows.add(Flow(backend, next(numbers), next(numbers)))
        for address in service.spec.listen:
            listener: Any = SimpleNamespace(
                address=address, service=service, accepted=next(numbers), paused=False
            )
            node.listeners[f"{name} {address}"] = listener


def _fill(totals: Any, numbers: itertools.count[int]) -> None:
    for field in sorted(totals.__slots__):
        value = getattr(totals, field)
        if field == "tls":
            continue
        if isinstance(value, dict):
            value.update((key, next(numbers)) for key in value)
        elif isinstance(value, Histogram):
            value.counts = [next(numbers) for _ in value.counts]
            value.sum = next(numbers) / 8
        else:
            setattr(totals, field, next(numbers))


def _eject(node: Node, service: str, backend_id: str, at: float) -> None:
    running = node.running[service]
    backend = running.service.backends[backend_id]
    for _ in range(10):
        running.outliers.failure(
            Failure(backend_id, Evidence.CONNECT, f"refused at {at}", at),
            population=9,
            has_others=lambda: True,
        )
    assert running.outliers.ejection(backend_id)
    running.reassess(backend)
    node.rebuild_stale()


def stop_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have all clocks stand at `NOW`."""
    monkeypatch.setattr(time, "time", lambda: NOW)
    monkeypatch.setattr(time, "monotonic", lambda: NOW)


def report_of(node: Node, source: Any) -> Report:
    """Return what tells of it."""
    node.events.instance = "instance"
    applier: Any = SimpleNamespace(
        node=node,
        snapshot=SimpleNamespace(generation=7, hash="0123"),
        store=SimpleNamespace(saved=True),
        pushed_by=None,
    )
    life = Life()
    life.turn(Turn.SERVE, NOW)
    return Report("main", life, applier, source)


def same(name: str, text: str) -> None:
    """Compare with what is kept; a file that is not there is written, and the test fails."""
    path = EXPECTED / name
    text = re.sub(r"(uptime_s\W+|lb_uptime_seconds |\"pid\": |pid=\")[0-9.e-]+", r"\1*", text) + "\n"
    text = re.sub(r"\"(version|build)\": \"[^\"]*\"", r'"\1": "*"', text)
    if not path.exists():
        path.write_text(text)
        raise AssertionError(f"{path} was not there")
    assert text == path.read_text()


def in_order(text: bytes) -> str:
    """Return the lines of a scrape in an order that means nothing."""
    return "\n".join(sorted(text.decode().splitlines()))
