"""Backends and services that two workers count together."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.ipc.shared_counters import CounterBoard
from dataplane.net.reactor import Wheel
from dataplane.worker.board import Board
from dataplane.worker.client_handoff import Siblings
from dataplane.worker.shared import SharedParts
from tests.dataplane.net.rig import count, spec

WANTED = spec(backends=["127.0.0.1:2"])
KEY = (WANTED.name, WANTED.backends[0].id)


@pytest.fixture
def parts() -> Iterator[list[SharedParts]]:
    """What the nodes of two workers are built from."""
    counters = CounterBoard(2)
    columns = dict(counters.assign({WANTED.name, KEY}))
    made = []
    for _ in range(2):
        row = counters.take_row()
        assert row is not None
        one = SharedParts(Board(counters, row), Siblings())
        one.columns = columns
        made.append(one)
    yield made
    counters.close()


def make(kind: str, parts: SharedParts) -> Any:
    """Make a service or a backend that counts where everybody does."""
    reactor: Any = SimpleNamespace(now=0.0)
    if kind == "backend":
        return parts.backend(reactor, WANTED.backends[0], WANTED)
    reactor.wheel = Wheel(0.0, print)
    service = parts.service(reactor, WANTED, SimpleNamespace())  # type: ignore[arg-type]
    service.use(parts.columns[WANTED.name])
    return service


@pytest.mark.parametrize("kind", ["backend", "service"])
def test_who_enters_here_is_active_everywhere(kind: str, parts: list[SharedParts]) -> None:
    """Each counts its own, and sees the sum."""
    one, other = (make(kind, each) for each in parts)
    for counted in (one, one, other):
        count(counted, 1)
    assert (one.own, other.own, one.active, other.active) == (2, 1, 3, 3)
    count(one, -1)
    assert (one.own, other.active) == (1, 2)


@pytest.mark.parametrize("kind", ["backend", "service"])
def test_what_is_counted_moves_along(kind: str, parts: list[SharedParts]) -> None:
    """In another column nothing is lost, and nothing is left in the old one; without a column each is alone."""
    one, other = (make(kind, each) for each in parts)
    count(one, 1)
    count(other, 1)
    one.use(7)
    assert (one.active, other.active) == (1, 1)
    other.use(7)
    assert (one.active, other.active) == (2, 2)
    one.use(None)
    count(one, 1)
    assert (one.own, one.active, other.active) == (2, 2, 1)
    count(other, -1)
