"""When each backend is checked: one schedule for all of them, and as many probes at a time as allowed.

A heap of due times and one timer, not a task and a timer per backend: what 10,000 backends cost is their probes.
A new target is due at once. Its second probe comes after a random part of the interval, so that what was added
together is spread from then on; after that, `jitter` keeps it from falling into step again.
"""

from __future__ import annotations

import asyncio
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Final

from dataplane.core.spec import CheckType
from dataplane.errors import LocalError, NowhereError
from dataplane.net.probes import Probe, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dataplane.core.health import Outcome
    from dataplane.core.spec import ActiveCheckSpec
    from dataplane.net.probe_connection import Connection
    from dataplane.net.probes import Locate
    from dataplane.net.sockopts import SocketAddress

SLACK_S: Final = 0.002
"""How early a probe may start. uvloop's timers and clock count whole milliseconds, and would else wake too early."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A target and its place in the schedule."""

    target: Target
    probe: Probe | None = None
    """Made when it is due: 10,000 at once would stall the loop for 0.2 s."""
    live: bool = True
    fresh: bool = True
    task: asyncio.Task[None] | None = None
    """The probe while its verdict is open."""

    def stop(self) -> None:
        self.live = False
        if self.task is not None:
            self.task.cancel()


@dataclass(slots=True, eq=False, repr=False)
class Prober:
    """Check every target again and again, and report each verdict."""

    on_result: Callable[[Target, Outcome], None]
    """Called with each verdict: the target, and what was found. Not called any more for a target that `update` has
    removed or changed."""
    _: KW_ONLY
    on_local_error: Callable[[str], None]
    """Called with the cause when this machine could not probe. Nobody is to blame, so there is no verdict; the target
    is tried again an interval later."""
    random: Callable[[], float]
    """A float in 0 <= x < 1 at each call."""
    locate: Locate | None = None
    """Tells where a target is (see `net.probes.Probe`); by default where its address says."""
    on_reached: Callable[[Target, SocketAddress], None] | None = None
    """Called with a target and that of its addresses which has accepted, where one before it did not."""
    concurrency: int = 256
    """How many verdicts may be open at once, at least 1. Connections that are only being closed are not among them, but
    no more than as many again; beyond, they are closed without waiting."""
    _entries: dict[tuple[str, str], _Entry] = field(init=False, default_factory=dict)
    _heap: list[tuple[float, int, _Entry]] = field(init=False, default_factory=list)
    _turn: Iterator[int] = field(init=False, default_factory=count)
    _busy: int = field(init=False, default=0)
    _leaving: int = field(init=False, default=0)
    _wake: asyncio.Event = field(init=False, default_factory=asyncio.Event)

    async def run(self) -> None:
        """Probe until cancelled; leaves no task and no connection behind. After a failure it can be run again."""
        self._begin_anew()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            while True:
                self._wake.clear()
                self._start_due(group, loop.time() + SLACK_S)
                timer = None
                if self._heap and self._busy < self.concurrency:
                    timer = loop.call_at(self._heap[0][0], self._wake.set)
                try:
                    await self._wake.wait()
                finally:
                    if timer is not None:
                        timer.cancel()

    def _begin_anew(self) -> None:
        """Have every target due that is not in the schedule: its probe was broken off by what ended the last run."""
        self._busy = self._leaving = 0
        there = {id(item[2]) for item in self._heap}
        for entry in self._entries.values():
            entry.task = None
            if id(entry) not in there:
                self._schedule(entry, 0.0)

    def update(self, targets: Iterable[Target]) -> None:
        """Take the complete set of targets, in the event loop's thread.

        An unchanged target keeps its schedule. A new or changed one is due at once. A probe of one that is gone or
        changed is broken off.

        Args:
            targets: At most one for each pair of service and backend id (of several, the last counts). Those
                of the type `none` are left out.
        """
        wanted = {
            (target.service, target.backend_id): target
            for target in targets
            if target.check.type is not CheckType.NONE
        }
        stopped = [key for key, entry in self._entries.items() if wanted.get(key) != entry.target]
        for key in stopped:
            self._entries.pop(key).stop()
        if stopped:
            self._heap = [item for item in self._heap if item[2].live]
            heapify(self._heap)
        for key, target in wanted.items():
            if key not in self._entries:
                entry = self._entries[key] = _Entry(target)
                self._schedule(entry, 0.0)
        self._wake.set()

    def _schedule(self, entry: _Entry, due: float) -> None:
        heappush(self._heap, (due, next(self._turn), entry))

    def _start_due(self, group: asyncio.TaskGroup, now: float) -> None:
        while self._heap and self._heap[0][0] <= now and self._busy < self.concurrency:
            entry = heappop(self._heap)[2]
            self._busy += 1
            entry.task = group.create_task(self._probe(entry))
            # A task that is cancelled before its first step never runs, and could not give its place back itself.
            entry.task.add_done_callback(partial(self._give_back, entry))

    def _give_back(self, entry: _Entry, task: asyncio.Task[None]) -> None:
        if entry.task is not task:
            return
        entry.task = None
        self._busy -= 1
        if self._busy == self.concurrency - 1 or (self._heap and self._heap[0][2] is entry):
            self._wake.set()  # else the timer that is set is the right one

    async def _probe(self, entry: _Entry) -> None:
        target = entry.target
        if entry.probe is None:
            entry.probe = Probe(target, locate=self.locate, on_reached=self.on_reached)
        started = asyncio.get_running_loop().time()
        try:
            outcome, connection = await entry.probe.run()
        except LocalError as error:
            self._again(entry, started)
            self.on_local_error(str(error))
            return
        except NowhereError:
            self._again(entry, started)
            return
        except Exception as error:  # noqa: BLE001 - a bug of ours that one check has met must end no other
            self._again(entry, started)
            self._report(target, error)
            return
        self._again(entry, started)
        try:
            self.on_result(target, outcome)
        except Exception as error:  # noqa: BLE001 - the same
            self._report(target, error)
        finally:
            if connection is not None:
                await self._leave(connection, target.check.timeout_s)

    def _report(self, target: Target, error: Exception) -> None:
        message = f"checking backend {target.backend_id} of service {target.service} failed"
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

    def _again(self, entry: _Entry, started: float) -> None:
        """Give the place back, and put the target where it is due next (at once if the probe took too long)."""
        self._schedule(entry, started + delay_s(entry.target.check, self.random(), first=entry.fresh))
        entry.fresh = False
        if entry.task is not None:
            self._give_back(entry, entry.task)

    async def _leave(self, connection: Connection, within_s: float) -> None:
        if self._leaving >= self.concurrency:
            connection.leave_nowait()
            return
        self._leaving += 1
        try:
            await connection.leave(within_s)
        finally:
            self._leaving -= 1


def delay_s(check: ActiveCheckSpec, sample: float, *, first: bool) -> float:
    """Return the seconds from the start of one probe to the next; after a target's first one it picks its phase.

    `sample` is a random number, 0 <= sample < 1.
    """
    if first:
        return check.interval_s * sample
    return check.interval_s * (1.0 + check.jitter * (2.0 * sample - 1.0))
