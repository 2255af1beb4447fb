"""What a supervisor asks of a worker that has begun, done: changes, sockets, numbers.

A change comes in two steps: `stage` prepares it, in slices between which the loop relays, and may fail; `commit` runs it
and cannot; `stage_words` and `commit_words` do the same with operators' overrides. Listening sockets come with `listen` and go with `drop`; from `drain` on none is left here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dataplane.ipc.messages import (
    Columns,
    Running,
    StagedChange,
    Verdict,
    Welcome,
    Word,
    load,
    unpack,
    unpack_columns,
)
from dataplane.ipc.shared_counters import Board, CounterBoard
from dataplane.ipc.takeover import Giver, Offer
from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import descriptor_limit
from dataplane.node.change import Changer, Computed, Draft, Words
from dataplane.node.drain import drain_all
from dataplane.node.slices import lasting, sliced, tune_collector
from dataplane.report.explain import explain
from dataplane.report.figures import Figures
from dataplane.report.reader import Reader
from dataplane.telemetry.connection_log import Recording
from dataplane.telemetry.events import Events
from dataplane.telemetry.line_writer import LineSink
from dataplane.worker.node import LentListeners, WorkerNode

ORPHAN_S: Final = 5.0
"""How long a worker without a supervisor accepts, if no new supervisor asks for its sockets."""


class Requests:
    """A worker's services, and what its supervisor does with them; `memory` is the descriptor of the shared counters."""

    def __init__(self, welcome: Welcome, memory: int, events: Events, log: LineSink) -> None:
        self._runs = (0, "")
        """Generation and hash."""
        self._next: tuple[Draft, tuple[int, str], Columns] | None = None
        self._words: Words | None = None
        self._columns: Columns = {}
        """Of what runs."""
        self.welcome = welcome
        board = Board(CounterBoard(welcome.rows, memory), welcome.row)
        reactor = Reactor(asyncio.get_running_loop(), descriptor_limit())
        self.node = WorkerNode(reactor, events, random.SystemRandom(), board)
        self.listeners = LentListeners(self.node)
        self._changer = Changer(self.node)
        self.recording = recording = Recording(welcome.settings.recording, welcome.settings.name, events.emit)
        self.node.access_log = recording.record
        self._reader = Reader(self.node, lambda: log.dropped + recording.dropped_lines, recording.spans)

    def start(self) -> int:
        """Begin to count and to look at what the other workers count; return the process id."""
        tune_collector()
        self.node.reactor.start()
        self._reader.outcomes.start()
        self.recording.watch(self.node.reactor)
        self.node.start_refreshing()
        return os.getpid()

    async def answer(self, kind: str, body: Any, sockets: list[int], part: Callable[[Any], None]) -> Any:
        """Do what the supervisor asks for."""
        result: Any = None
        match kind:
            case "stage":
                with lasting():
                    result = await self._stage(body)
            case "commit":
                with lasting():
                    await self._commit(body)
            case "listen":
                self.listeners.take(body, sockets)
            case "meet":
                self.node.siblings.meet(body, sockets)
            case "stage_words":
                await self._stage_words(*body)
            case "commit_words":
                await self._commit_words()
            case "drain_all":
                services = [running.service for running in self.node.running.values()]
                await drain_all(services, self.node.events, draining=body)
            case "report":
                result = await self._report(part, **body)
            case "explain":
                result = explain(self.node, *body)
            case _:
                raise AssertionError(kind)  # both ends are one version of this program
        return result

    def notice(self, kind: str, body: Any) -> None:
        """Take note of what wants no answer."""
        if kind == "drop":
            self.listeners.drop(body)
        elif kind == "judge":
            self.node.judge(body)
        elif kind == "put":
            self.node.backend_addresses.take(body)
        elif kind == "reopen":
            self.recording.reopen()
        elif kind == "abandon":
            self._next = self._words = None
            self.node.columns = self._columns
            self.node.arm()
        elif kind == "arm":
            self.node.arm()

    def leave(self, *, last: bool) -> None:
        """Accept nothing more; with `last`, sockets are closed for good, so whoever is in their queues is served first."""
        if last:
            self.listeners.shut({})
        else:
            self.listeners.leave_all()
        self.listeners.leave_inboxes()

    def final_figures(self) -> dict[bool, list[Figures]]:
        """Return the last numbers, with each backend of a crowd and with crowds as one."""
        return {each: list(self._reader.parts(each=each)) for each in (True, False)}

    # -- without a supervisor (ipc.takeover.Holder) ---------------------------------------------------

    async def serve_alone(self, path: Path) -> None:
        """Accept until a new supervisor has taken over at `path`, but no longer than ORPHAN_S."""
        events = self.node.events
        self.node.siblings.meet(None, ())
        events.emit("orphaned", pid=os.getpid(), seconds=ORPHAN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORPHAN_S):
                await Giver(path, self, events).run()

    async def offer(self) -> Offer:
        """Offer every socket that is accepted from."""
        return {}, [(one.address, one.sock) for one in self.node.listeners.values()]

    def keep(self, cause: str) -> None:
        """Go on."""
        self.node.events.emit("takeover_failed", cause=cause)

    async def release(self) -> None:
        """Stop accepting."""
        self.listeners.leave_all()

    # -- changes --------------------------------------------------------------------------------------

    async def _stage(self, change: StagedChange) -> bool:
        """Prepare a change; False: what runs here is not what it begins with."""
        if change.base not in {None, self._runs}:
            return False
        running = self.node.running if change.base is not None else {}
        specs, computed = [], {}
        for packed in change.services:
            known = running.get(packed.name)
            before = Running(known.service.spec, known.effective) if known else None
            specs.append(await unpack(packed, before))
            computed[packed.name] = Computed(load(packed.tables), packed.loops)
        columns = self._columns if change.columns is None else await unpack_columns(change.columns)
        self.node.columns = columns  # before backends are made: they dial only where the others see it
        draft = await self._changer.prepare(specs, computed)
        await self._changer.make(draft)
        self._next = (draft, (change.generation, change.digest), columns)
        self.node.disarm({spec.name for spec in specs if spec.balance_workers})
        return True

    async def _commit(self, verdicts: list[Verdict]) -> None:
        assert self._next is not None  # noqa: S101 - the supervisor stages first
        (draft, self._runs, columns), self._next = self._next, None
        stay, self._columns = columns is self._columns, columns
        self.listeners.empty_inboxes()  # every worker has staged this: nobody sends clients of what goes any more
        await self._changer.swap(draft, self.listeners)
        if not stay:
            self.node.count_in(columns)
        self.node.judge(verdicts)

    async def _stage_words(self, service: str, words: list[Word], tables: bytes) -> None:
        running = self.node.running[service]
        backends, specs = running.service.backends, []
        async for backend_id, state, weight in sliced(words):
            specs.append(backends[backend_id].spec._replace(state=state, weight=weight))
        self._words = await self._changer.prepare_words(running, specs, load(tables))

    async def _commit_words(self) -> None:
        assert self._words is not None  # noqa: S101 - the supervisor stages first
        words, self._words = self._words, None
        await self._changer.obey(words)

    # -- numbers --------------------------------------------------------------------------------------

    async def _report(self, part: Callable[[Any], None], *, each: bool) -> tuple[int, str, int]:
        """Tell all figures, in slices."""
        for figures in self._reader.parts(each=each):
            part(figures)
            await asyncio.sleep(0)
        return *self._runs, self.node.connections()
