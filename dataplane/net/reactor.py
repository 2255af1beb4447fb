"""One epoll of our own, itself watched by the event loop: the table of handlers and the timer wheel.

Theory of operation:

1. asyncio runs everything that is not a client's byte. It sees one descriptor of ours: the epoll below.
2. When that is readable, `_ready` takes a batch of events and calls the handler of each descriptor, and looks
   for more a few times as long as there are some: a turn of asyncio's loop costs as much as a few messages.
   No task, future, transport or callback object exists per connection.
3. Events are level-triggered and only hints: a descriptor may have been closed and its number used again
   within one batch. A handler learns the truth from its own system call, never from the event alone.
4. A handler does one read and one write for each event, so that one busy flow cannot starve the others.
   The backends' events of a batch are handled before the clients': backends that have more to do when they look again
   sleep less often, and a sleep and a wake-up cost more than a message.
5. Deadlines are kept in a wheel of coarse ticks: adding and removing one is O(1), and a deadline that moves
   with every byte is not moved at all: when its tick comes, the owner looks at its last activity.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, Protocol

from dataplane.net.calls import Epoll, monotonic
from dataplane.net.sockopts import current_descriptor_limit

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_EVENTS: Final = 24
"""In one batch. With 256, what is written waits at the backends until the batch is over: three quarters of HAProxy's rate of
connections instead of nineteen twentieths, at the same CPU for each; with 8 each costs more."""
MAX_BATCHES: Final = 4
"""In one turn of asyncio's loop: what else is waiting there waits for a few milliseconds at most."""
TICK_S: Final = 0.05
LIMIT_TICKS: Final = 10
"""Every so many ticks the limit of descriptors is read again: prlimit(1) changes it at any time."""


class Handler:
    """Whatever owns a descriptor."""

    __slots__ = ("is_backend",)

    is_backend: bool
    """Whether it is a backend's: of a batch of events, those are handled first."""

    def on_event(self, events: int) -> object:
        """Take note that epoll reported `events` (EPOLLIN and its kin) for the descriptor; nobody wants an answer."""
        raise NotImplementedError

    def settle(self) -> None:
        """Draw the conclusions from all events of a batch, if it is `deferred`; may be called more than once, and after the end."""
        raise NotImplementedError

    def on_failure(self) -> None:
        """Close what is owned: `on_event` or `settle` raised, which is a bug of ours."""
        raise NotImplementedError


class Handlers:
    """Who gets the events of each descriptor: an array, as the kernel gives the lowest number that is free."""

    __slots__ = ("_table",)

    def __init__(self) -> None:
        self._table: list[Handler | None] = [None] * 64

    def get(self, fd: int) -> Handler | None:
        """Return who gets the events of `fd`; None: nobody."""
        table = self._table
        return table[fd] if 0 <= fd < len(table) else None

    def put(self, fd: int, handler: Handler) -> None:
        """Send the events of `fd` to `handler` from now on."""
        table = self._table
        if fd >= len(table):
            table.extend([None] * (fd + 1))
        table[fd] = handler

    def drop(self, fd: int) -> bool:
        """Send the events of `fd` to nobody; return whether somebody got them."""
        table = self._table
        if not 0 <= fd < len(table) or table[fd] is None:
            return False
        table[fd] = None
        return True

    def all(self) -> dict[int, Handler]:
        """Return everybody, by descriptor: made for who asks."""
        return {fd: handler for fd, handler in enumerate(self._table) if handler is not None}

    def __len__(self) -> int:
        return len(self.all())


class Timed(Protocol):
    """Whatever has a deadline in the wheel; `tick` is the wheel's own note, 0 when not in it."""

    tick: int

    def on_timer(self, now: float) -> None:
        """Take note that the deadline has passed. The item is in the wheel no longer."""


class Wheel:
    """Deadlines, rounded up to ticks.

    Args:
        now: Monotonic seconds.
        on_error: Told of what an item's `on_timer` raised, which is a bug of ours.
    """

    __slots__ = ("_on_error", "_slots", "_turn", "resolution_s")

    def __init__(
        self, now: float, on_error: Callable[[object, Exception], None], resolution_s: float = TICK_S
    ) -> None:
        self.resolution_s = resolution_s
        self._on_error = on_error
        self._slots: dict[int, set[Timed]] = {}
        self._turn = int(now / resolution_s)

    def __bool__(self) -> bool:
        return bool(self._slots)

    def at(self, item: Timed, when: float) -> None:
        """Put `item`, which is not in the wheel, at monotonic second `when`."""
        tick = int(when / self.resolution_s)
        if tick * self.resolution_s < when:
            tick += 1
        if tick <= self._turn:
            tick = self._turn + 1
        item.tick = tick
        slot = self._slots.get(tick)
        if slot is None:
            self._slots[tick] = {item}
        else:
            slot.add(item)

    def cancel(self, item: Timed) -> None:
        """Take `item` out, if it is in."""
        tick = item.tick
        if tick:
            item.tick = 0
            slot = self._slots.get(tick)
            if slot is not None:
                slot.discard(item)

    def move(self, item: Timed, when: float) -> None:
        """Put `item` at `when`, wherever it was."""
        if item.tick:
            self.cancel(item)
        self.at(item, when)

    def advance(self, now: float) -> None:
        """Call `on_timer` of everything whose tick has come."""
        turn = int(now / self.resolution_s)
        while self._turn < turn:
            self._turn += 1
            slot = self._slots.get(self._turn)
            while slot:
                item = slot.pop()
                item.tick = 0
                try:
                    item.on_timer(now)
                except Exception as error:  # noqa: BLE001 - a bug met by one must not stop everybody's clock
                    self._on_error(item, error)
            if slot is not None:
                del self._slots[self._turn]


class Reactor:
    """The epoll, its handlers, and the wheel of one process.

    Args:
        loop: Watches the epoll.
        descriptors: How many the process may have.
        source: Of the time in monotonic seconds; None: the system's.
    """

    __slots__ = (
        "_descriptors",
        "_loop",
        "_source",
        "_ticks",
        "_timer",
        "accept_ceiling",
        "deferred",
        "dial_ceiling",
        "epoll",
        "handlers",
        "lag_s",
        "now",
        "wheel",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptors: int,
        source: Callable[[], float] | None = None,
    ) -> None:
        self._loop = loop
        self._source = source
        self._descriptors = 0
        self._ticks = 0
        self.limit_descriptors(descriptors)
        self.epoll = Epoll()
        self.handlers = Handlers()
        self.deferred: list[Handler] = []
        """What wants to be settled when the batch of events is over."""
        self.now = self.clock()
        self.wheel = Wheel(self.now, self._report)
        self.lag_s = 0.0
        """How late the last tick was: the time that something held the loop."""
        self._timer: asyncio.TimerHandle | None = None

    def limit_descriptors(self, descriptors: int) -> None:
        """Take note of how many descriptors the process may have."""
        reserve = min(64, max(8, descriptors // 8))
        self._descriptors = descriptors
        self.dial_ceiling = descriptors - reserve
        """Descriptor numbers from here on are kept for the API, the checks and the logs. The kernel gives
        the lowest number that is free, so a number this high means that nearly all are in use."""
        self.accept_ceiling = descriptors - 2 * reserve
        """Accepting pauses here already: whoever was accepted needs a second descriptor."""

    def is_short(self) -> bool:
        """Return whether the next client to be accepted would get a descriptor from the reserve, or none."""
        try:
            lowest = os.dup(self.epoll.fileno())
        except OSError:
            return True
        os.close(lowest)
        return lowest >= self.accept_ceiling

    def start(self) -> None:
        """Begin to handle events; call it on the loop's own thread."""
        self._loop.add_reader(self.epoll.fileno(), self._ready)
        self._schedule_tick()

    def close(self) -> None:
        """Stop. Descriptors that handlers own stay open: closing them is their owners' work."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self.epoll.fileno())
        self.epoll.close()
        self.handlers = Handlers()

    def clock(self) -> float:
        """Return the time and remember it as the batch's."""
        source = self._source
        self.now = now = monotonic() if source is None else source()
        return now

    def watch(self, fd: int, handler: Handler, events: int) -> None:
        """Send the events of `fd` to `handler` from now on."""
        self.handlers.put(fd, handler)
        self.epoll.register(fd, events)

    def forget(self, fd: int) -> None:
        """Drop `fd`, which its owner closes next: closing takes it out of the epoll."""
        self.handlers.drop(fd)

    def unwatch(self, fd: int) -> None:
        """Drop `fd`, which stays open."""
        if self.handlers.drop(fd):
            self.epoll.unregister(fd)

    def _ready(self) -> None:
        for _ in range(MAX_BATCHES):
            if not self._handle_batch():
                return

    def _handle_batch(self) -> int:
        """Handle what there is, and return how many events that were."""
        self.clock()
        handlers, epoll = self.handlers, self.epoll
        count = epoll.wait(MAX_EVENTS)
        clients = 0
        for index in range(count):
            fd = epoll.fd(index)
            handler = handlers.get(fd)
            if handler is None:
                continue
            if not handler.is_backend:
                clients += 1
                continue
            try:
                handler.on_event(epoll.events(index))
            except Exception as error:  # noqa: BLE001 - a bug met by one connection must not end the others
                self._failed(fd, handler, error)
        for index in range(count if clients else 0):
            fd = epoll.fd(index)
            handler = handlers.get(fd)
            if handler is not None and not handler.is_backend:
                try:
                    handler.on_event(epoll.events(index))
                except Exception as error:  # noqa: BLE001 - the same
                    self._failed(fd, handler, error)
        deferred = self.deferred
        while deferred:
            flow = deferred.pop()
            try:
                flow.settle()
            except Exception as error:  # noqa: BLE001 - the same
                self._report(flow, error)
                flow.on_failure()
        return count

    def _failed(self, fd: int, handler: Handler, error: Exception) -> None:
        self._report(handler, error)
        self.unwatch(fd)
        handler.on_failure()

    def _report(self, culprit: object, error: Exception) -> None:
        self._loop.call_exception_handler({"message": f"{culprit!r} failed", "exception": error})

    def _schedule_tick(self) -> None:
        self._timer = self._loop.call_at(
            self._loop.time() + self.wheel.resolution_s, self._tick, self.clock()
        )

    def _tick(self, scheduled_at: float) -> None:
        now = self.clock()
        self.lag_s = max(0.0, now - scheduled_at - self.wheel.resolution_s)
        self.wheel.advance(now)
        self._ticks += 1
        if not self._ticks % LIMIT_TICKS:
            descriptors = current_descriptor_limit()
            if descriptors != self._descriptors:
                self.limit_descriptors(descriptors)
        self._schedule_tick()
