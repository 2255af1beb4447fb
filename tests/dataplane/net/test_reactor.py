"""The timer wheel, and what one handler's bug may cost the others."""

from __future__ import annotations

import asyncio
import os
import select
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.net.reactor import TICK_S, Handler, Reactor, Wheel


def wheel_at(now):
    """Return a wheel whose items are not expected to fail."""

    def failed(item, error):
        raise error

    return Wheel(now, failed)


class Item:
    """Notes when it was called."""

    def __init__(self, wheel, then=None):
        self.tick = 0
        self.calls = []
        self.wheel = wheel
        self.then = then

    def on_timer(self, now):
        """Note it, and do what comes then."""
        self.calls.append(now)
        if self.then is not None:
            self.then(self)


MOVES = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from(["at", "cancel", "advance"]), st.floats(0, 3)), max_size=40
)


@settings(deadline=None)
@given(MOVES)
def test_a_deadline_is_kept_within_two_ticks(moves):
    """Nothing is called early, nothing late by more than two ticks, and nothing that was taken out."""
    now = 1000.0
    wheel = wheel_at(now)
    items = [Item(wheel) for _ in range(5)]
    due = {}
    for index, what, value in moves:
        item = items[index]
        if what == "at":
            wheel.move(item, now + value)
            due[index] = now + value
        elif what == "cancel":
            wheel.cancel(item)
            due.pop(index, None)
        else:
            now += value
            before = [len(one.calls) for one in items]
            wheel.advance(now)
            for number, one in enumerate(items):
                called = len(one.calls) - before[number]
                if number in due and due[number] <= now - 2 * TICK_S:
                    assert called == 1
                if called:
                    assert called == 1
                    assert due.pop(number) <= now + 1e-9
    wheel.advance(now + 10)
    assert not wheel
    assert all(not item.tick for item in items)


def test_a_deadline_that_is_set_again_from_its_own_call():
    """An item may put itself back, even for a moment that has passed: it is called at the next tick."""
    wheel = wheel_at(0.0)
    item = Item(wheel, then=lambda item: wheel.at(item, 0.0))
    wheel.at(item, 0.01)
    wheel.advance(0.051)
    assert len(item.calls) == 1
    wheel.advance(0.11)
    assert len(item.calls) == 2


def test_one_item_takes_another_out():
    """What an item takes out of the very tick that is being called is not called."""
    wheel = wheel_at(0.0)
    items = []
    items += [Item(wheel, then=lambda item: [wheel.cancel(other) for other in items]) for _ in range(3)]
    for item in items:
        wheel.at(item, 0.01)
    wheel.advance(0.1)
    assert sum(len(item.calls) for item in items) == 1


@pytest.fixture
async def reactor():
    """A reactor on the running loop."""
    reactor = Reactor(asyncio.get_running_loop(), 1024)
    reactor.start()
    yield reactor
    reactor.close()


@pytest.fixture
async def complaints():
    """What the event loop was told of bugs."""
    told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    return told


async def test_a_timer_with_a_bug_stops_no_other(reactor, complaints):
    """An exception in one deadline is reported; those of the same tick and of later ones are still called."""

    def fail(item):
        raise ZeroDivisionError

    called = asyncio.Event()
    failing = [Item(reactor.wheel, then=fail) for _ in range(3)]
    for item in failing:
        reactor.wheel.at(item, reactor.now)
    reactor.wheel.at(Item(reactor.wheel, then=lambda _: called.set()), reactor.now + 2 * TICK_S)
    await asyncio.wait_for(called.wait(), 10)
    assert [type(error) for error in complaints] == [ZeroDivisionError] * 3
    assert all(len(item.calls) == 1 for item in failing)


class Pipe(Handler):
    """Reads from a pipe, and does what it is told to."""

    def __init__(self, reactor, then):
        self.is_backend = False
        self.fd, self.other = os.pipe()
        self.then = then
        self.failures = 0
        reactor.watch(self.fd, self, select.EPOLLIN)

    def on_event(self, events):
        """Read, and go on."""
        os.read(self.fd, 10)
        self.then()

    def on_failure(self):
        """Note it."""
        self.failures += 1

    def close(self):
        """Close both ends."""
        os.close(self.fd)
        os.close(self.other)


async def test_a_handler_with_a_bug_stops_no_other(reactor, complaints):
    """An exception of one handler is reported and told to it alone; all others get their events."""

    def fail():
        raise ZeroDivisionError

    called = asyncio.Event()
    bad, good = Pipe(reactor, fail), Pipe(reactor, called.set)
    for handler in (bad, good):
        os.write(handler.other, b"x")
    await asyncio.wait_for(called.wait(), 10)
    assert bad.failures == 1
    assert not good.failures
    assert [type(error) for error in complaints] == [ZeroDivisionError]
    assert reactor.handlers.get(bad.fd) is None
    os.write(bad.other, b"x")
    called.clear()
    os.write(good.other, b"x")
    await asyncio.wait_for(called.wait(), 10)
    assert bad.failures == 1, "it is not watched any more"
    bad.close()
    good.close()


def test_backends_come_first_in_a_batch():
    """Whatever the order in which epoll reports them."""
    reactor = Reactor(SimpleNamespace(), 1024)
    told = []
    pipes = [Pipe(reactor, partial(told.append, place)) for place in range(4)]
    pipes[1].is_backend = pipes[3].is_backend = True
    for pipe in pipes:
        os.write(pipe.other, b"x")
    assert reactor._handle_batch() == 4
    assert sorted(told[:2]) == [1, 3]
    assert sorted(told[2:]) == [0, 2]
    for pipe in pipes:
        pipe.close()
    reactor.epoll.close()
