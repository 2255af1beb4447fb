"""The node of one process: what it says, and what it is told of its backends."""

from __future__ import annotations

import errno
from random import Random
from types import SimpleNamespace

import pytest

from dataplane.core.health import Outcome
from dataplane.net.goal import PoolShare
from dataplane.net.prober import Target
from dataplane.net.reactor import Reactor
from dataplane.node import node
from dataplane.node.node import Node
from dataplane.telemetry.events import Events
from tests.dataplane.net.rig import spec
from tests.dataplane.node.bench import benched

PLAIN = ({"id": "a", "address": "127.0.0.1:1"}, {"id": "b", "address": "127.0.0.1:2"})


@pytest.fixture
async def bench():
    """A node with two backends that nobody listens at."""
    async with benched() as bench:
        await bench.put(*PLAIN)
        bench.told.clear()
        yield bench


async def test_a_burst_of_changes_costs_one_selection(bench):
    """It is made anew in the loop's next round, however often something happened."""
    running, before = bench.node.running["s"], bench.service.selection
    for backend in bench.service.backends.values():
        running.reassess(backend)
    assert bench.service.selection is before
    await bench.until(lambda: bench.service.selection is not before)


async def test_what_the_machine_lacks_is_said_at_most_once_a_second(bench):
    """With how often it was met; each errno by itself."""
    bench.reactor.now = 100.0
    for _ in range(5):
        bench.node.local_error("s", errno.EMFILE)
    bench.node.local_error("s", errno.EADDRNOTAVAIL)
    bench.reactor.now += node.LOCAL_ERROR_EVERY_S
    bench.node.local_error("s", errno.EMFILE)
    assert [fields["times"] for kind, fields in bench.told if kind == "local_error"] == [1, 1, 5]


async def test_a_check_of_an_address_that_is_no_more_says_nothing(bench):
    """A verdict may come when the backend is elsewhere already."""
    spec = bench.service.spec
    for address in ("127.0.0.1:9", "127.0.0.1:1"):
        target = Target("s", "a", address, spec.active, spec.proxy.send)
        for _ in range(9):
            bench.node.on_verdict(target, Outcome(ok=False, cause="no"))
        down = bench.service.backends["a"].health.state.value == "down"
        assert down is (address == "127.0.0.1:1")


async def test_nobody_to_wait_for(bench):
    """A node without connections has drained at once."""
    assert bench.node.connections() == 0
    await bench.node.drain()
    assert bench.service.draining


def test_backends_of_a_process_that_may_hold_nothing():
    """A supervisor's backends are configured as they are, and their pools stay empty, whatever they should hold."""
    reactor = Reactor(SimpleNamespace(), 1024)  # type: ignore[arg-type]
    events = Events(lambda _kind, **_fields: None, lambda: 0.0)
    wanted = spec(backends=["127.0.0.1:2"], pool={"mode": "preconnect", "min_idle": 4, "max_idle": 4})
    for share, goal in ((None, 4), (PoolShare(cap=0), 0)):
        backend = Node(reactor, events, Random(1), share).make_backend(wanted.backends[0], wanted)
        backend.pool.goal.aim()
        assert (backend.pool.goal.spec, backend.pool.goal.count) == (wanted.pool, goal)
    backend.configure(wanted.backends[0], wanted, reactor.now)
    assert (backend.pool.own, backend.pool.goal.count) == (0, 0)
    reactor.epoll.close()


async def test_a_certificate_that_ends_soon_is_told(bench):
    """Whatever the check found besides; one without a certificate says nothing."""
    spec = bench.service.spec
    target = Target("s", "a", "127.0.0.1:1", spec.active, spec.proxy.send)
    bench.node.on_verdict(target, Outcome(ok=True, cause="ok"))
    bench.node.on_verdict(target, Outcome(True, "ok", certificate_ends=4e9, certificate_due=3.9e9))
    for _ in range(3):
        bench.node.on_verdict(target, Outcome(True, "ok", certificate_ends=2e9, certificate_due=1.0))
    [fields] = [fields for kind, fields in bench.told if kind == "backend_certificate_ends"]
    assert (fields["backend"], fields["ends"][:10]) == ("a", "2033-05-18")
