"""What workers tell: what happens there, and what they count, all of them as one.

Those that accept count, those that drain, and what those that have ended had counted: a counter never falls. Of a worker
that was killed, what it has told last counts.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from dataplane.core.phase import Phase
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.net.backend import Backend
from dataplane.node.initial import found
from dataplane.node.node import Node
from dataplane.report.explain import explain
from dataplane.report.figures import Family, Figures, ListenerFigures, ProcessFigures, Tally, total
from dataplane.report.reader import Reader
from dataplane.supervisor.workers import WorkerProcess, Workers
from schemas.replies import Explanation, Info
from schemas.status import WorkerStatus

EXHAUSTED_S: Final = 2.0
"""How long after a worker ran out of descriptors the node gets no traffic."""


def worker_families(
    accepting: int, loads: list[tuple[dict[str, str], float]], ends: Mapping[str, int]
) -> list[Family]:
    """Return what is measured of workers, and not of one process: the clients of each with its labels, and ends by cause."""
    load, end = "lb_worker_connections_active", "lb_worker_ends"
    clients = [(load, labels, active) for labels, active in loads]
    ended = [(f"{end}_total", {"cause": cause}, float(ends.get(cause, 0))) for cause in ("died", "drained")]
    return [
        ("gauge", "lb_workers", "Workers that accept", [("lb_workers", {}, float(accepting))]),
        ("gauge", load, "Clients of each worker, those that drain as well", clients),
        ("counter", end, "Workers that ended, by how", ended),
    ]


class WorkerTally:
    """The figures of a node (dataplane.report.report.Source), and its workers' news."""

    def __init__(self, node: Node, workers: Workers, dropped_lines: Callable[[], int]) -> None:
        self.emit = node.events.emit
        self._node = node
        self._workers = workers
        self.ejected: set[tuple[int, str, str]] = set()
        """Which worker's process has ejected which backend of which service."""
        self._reader = Reader(node, relays=False)
        self._dropped_lines = dropped_lines
        self._exhausted_at = float("-inf")
        self._ends: Counter[str] = Counter()
        self._past = {True: Figures(), False: Figures()}

    @property
    def count(self) -> int:
        """How many workers there should be."""
        return self._workers.count

    async def tally(self, info: Info, *, each: bool, draining: bool) -> Tally:
        """Ask all workers, and add up."""
        del info
        parts = []
        # first: how something is configured is the first one's word
        for part in self._reader.parts(each=each):
            parts.append(part)
            await asyncio.sleep(0)
        parts[0].process = ProcessFigures(dropped_lines=self._dropped_lines())
        statuses: list[WorkerStatus] = []
        loads: list[tuple[dict[str, str], float]] = []
        answers = await self._workers.ask_all("report", {"each": each}, former=True)
        # At once, without giving the loop its turn: who ends from now on is among these.
        for worker, (generation, digest, clients), told in answers:
            if worker.life.phase is Phase.ENDED:  # while others answered: it is part of the past
                continue
            worker.last_told[each] = told
            if worker.leaving:
                for part in told:
                    part.silence()
            else:
                statuses.append(
                    {
                        "index": worker.index,
                        "pid": worker.pid,
                        "generation": generation,
                        "hash": digest,
                        "active": clients,
                        "pooled": sum(part.pooled for part in told),
                    }
                )
            active = sum(service.active for part in told for service in part.services.values())
            loads.append(({"worker": str(worker.index), "pid": str(worker.pid)}, active))
            parts += told
        parts.append(self._past[each])
        figures = await total(parts)
        self._add_silent_listeners(figures, draining=draining)
        statuses.sort(key=lambda status: status["index"])
        return Tally(figures, statuses, worker_families(len(self._workers.serving), loads, self._ends))

    def _add_silent_listeners(self, figures: Figures, *, draining: bool) -> None:
        """Say of addresses that no worker accepts from right now that their clients wait in the queue."""
        for name, running in self._node.running.items():
            for address in running.service.spec.listen:
                known = figures.listeners.get((name, address), ListenerFigures(0, None))
                if known.state is None:
                    state = ListenerFigures(known.accepted, "closing" if draining else "paused")
                    figures.listeners[name, address] = state

    async def explain(self, service: str, client: str) -> Explanation:
        """Say what a client would get, from the first worker that is there."""
        explain(self._node, service, client)  # refuses what cannot be asked
        for _, worker in sorted(self._workers.serving.items()):
            try:
                answer: Explanation = (await worker.ask("explain", (service, client)))[0]
            except (PeerGone, PeerError):
                continue
            return answer
        raise Refused(503, "no_worker", "no worker is there")

    def not_ready(self) -> str | None:
        """Return why clients should go elsewhere."""
        if not self._workers.serving:
            return "no worker is there"
        if time.monotonic() - self._exhausted_at < EXHAUSTED_S:
            return "accepting is paused in a worker: out of descriptors"
        return None

    def judged(self, service: str, backend: Backend, *, changed: bool, passed: bool) -> None:
        """Pass on what a check has found, if it has changed something, or ends an ejection in a worker."""
        ejected = any(one[1:] == (service, backend.id) for one in self.ejected)
        if changed or (passed and ejected):
            self._workers.tell_all("judge", [found(service, backend, passed=passed)])

    def heard(self, worker: WorkerProcess, kind: str, fields: dict[str, Any]) -> None:
        """Pass on what happened in a worker or to it, and note what matters here."""
        if kind in {"backend_ejected", "backend_reinstated"}:
            key = (worker.pid, fields["service"], fields["backend"])
            (self.ejected.add if kind == "backend_ejected" else self.ejected.discard)(key)
        elif kind == "local_error" and "EMFILE" in fields["cause"]:
            self._exhausted_at = time.monotonic()
        self.emit(kind, worker=worker.index, **fields)

    def ended(self, worker: WorkerProcess) -> None:
        """Keep what a worker had counted that has ended."""
        status = worker.process.returncode
        drained = worker.leaving and status == 0
        self._ends["drained" if drained else "died"] += 1
        self.ejected = {one for one in self.ejected if one[0] != worker.pid}
        for each, told in worker.last_told.items():
            past = Figures()  # a new one: the old one may be part of a sum that is being made
            for part in (self._past[each], *(one.past() for one in told)):
                past.add(part)
            self._past[each] = past
        self.forget_gone()
        if worker.leaving:
            kind = "worker_drained" if drained else "worker_died"
            self.emit(kind, worker=worker.index, pid=worker.pid, status=status)

    def forget_gone(self) -> None:
        """Forget what ended workers had counted for what is not configured any more."""
        running = self._node.running
        for each, past in self._past.items():
            self._past[each] = replace(
                past,
                services={name: one for name, one in past.services.items() if name in running},
                listeners={
                    (name, address): one
                    for (name, address), one in past.listeners.items()
                    if name in running and address in running[name].service.spec.listen
                },
                backends={
                    (name, id_): one
                    for (name, id_), one in past.backends.items()
                    if name in running and id_ in running[name].service.backends
                },
                crowds={name: one for name, one in past.crowds.items() if name in running},
            )
