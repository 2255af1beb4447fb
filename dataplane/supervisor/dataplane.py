"""A data plane of several workers behind one API (dataplane.api.routes.Report); relays nothing itself.

Theory of operation:

1. What runs is kept and checked here once (`Node`), and is run by each worker (`WorkerReplicas`).
2. What is counted is each worker's. Status and metrics are sums, to which those of workers that have ended still
   belong: a counter never falls. Of a worker that was killed, what was last asked of it counts.
3. The listening sockets are opened here (`SocketGroup`) and lent. So a worker that dies loses its own connections
   and nothing else, and a supervisor that dies loses none: its workers have copies (`worker.process`, rule 4).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from dataplane.core.handoff import skew
from dataplane.errors import PeerError, PeerGone, Refused
from dataplane.report.exposition import exposition
from dataplane.report.merge import FamilySum, add_report, add_totals, totals_of, whole_services, worst
from dataplane.report.metrics import DESCRIPTORS, SAVED
from dataplane.report.status import Reporter
from dataplane.telemetry.events import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dataplane.ipc.messages import Families
    from dataplane.node.apply import Applier
    from dataplane.node.node import Node
    from dataplane.supervisor.node import CheckRelay
    from dataplane.supervisor.worker_process import WorkerProcess
    from dataplane.supervisor.workers import Workers
    from dataplane.telemetry.events import Events
    from schemas.replies import Explanation, Info
    from schemas.status import ServiceStatus, Status, WorkerStatus

__all__ = ["Supervisor"]

VERSION: Final = version("livelb")
EXHAUSTED_S: Final = 2.0
"""How long after a worker ran out of descriptors the node gets no traffic."""


class Supervisor:
    """What the API serves, and what workers tell (dataplane.supervisor.succession.Ledger).

    Args:
        name: Of the data plane.
        node: What is known.
        applier: Who changes it.
        workers: Who relays.
        events: Where happenings are told.
    """

    relay: CheckRelay
    """Set as soon as there is one."""

    def __init__(
        self,
        name: str,
        node: Node,
        applier: Applier,
        workers: Workers,
        events: Events,
    ) -> None:
        self.events = events
        self.draining_since: str | None = None
        self.dropped_lines: Callable[[], int] = lambda: 0
        """Tells how many lines the log of this process itself has lost."""
        self._name = name
        self._node = node
        self._applier = applier
        self._workers = workers
        self._reporter = Reporter(node, time.time)
        self._started_at = time.monotonic()
        self._exhausted_at = float("-inf")
        self._ends: Counter[str] = Counter()
        self._past_status: dict[str, ServiceStatus] = {}
        self._past_metrics = FamilySum()

    # -- the API --------------------------------------------------------------------------------------

    def info(self) -> Info:
        """Say who answers, and what it runs."""
        return {
            "name": self._name,
            "pid": os.getpid(),
            "instance": self.events.instance,
            "version": VERSION,
            "workers": self._workers.count,
            "uptime_s": round(time.monotonic() - self._started_at, 3),
            "generation": self._applier.snapshot.generation,
            "hash": self._applier.snapshot.hash,
            "pushed_by": self._applier.pushed_by,
        }

    async def explain(self, service: str, client: str) -> Explanation:
        """Say what a client would get, from the first worker that is there."""
        running = self._node.running.get(service)
        if running is None:
            raise Refused(404, "no_such_service", f"there is no service {service}")
        try:
            self._reporter.explain(running, client)  # for the client's address
        except ValueError as error:
            raise Refused(422, "invalid", f"client: {error}") from error
        for _, member in sorted(self._workers.serving.items()):
            try:
                explanation, _ = await member.ask("explain", (service, client))
            except (PeerGone, PeerError):
                continue
            answer: Explanation = explanation
            return answer
        raise Refused(503, "no_worker", "no worker is there")

    def begin_draining(self) -> None:
        """Want no traffic any more."""
        self.draining_since = rfc3339(time.time())

    async def status(self) -> Status:
        """Describe everything: configuration and checks as known here, the rest as the workers' sum."""
        services = await self._reporter.services()
        workers: list[WorkerStatus] = []
        for member, (generation, digest, active), parts in await self._workers.ask_all("report", former=True):
            report = whole_services(parts)
            member.last_report = report
            add_report(services, report, accepting=not member.leaving)
            if not member.leaving:
                workers.append(
                    {
                        "index": member.index,
                        "pid": member.pid,
                        "generation": generation,
                        "hash": digest,
                        "active": active,
                        "pooled": sum(
                            backend["pooled"]
                            for service in report.values()
                            for backend in service["backends"]
                        ),
                    }
                )
        add_totals(services, self._past_status)
        self._add_silent_listeners(services)
        info = self.info()
        return {
            "name": info["name"],
            "pid": info["pid"],
            "instance": info["instance"],
            "version": info["version"],
            "generation": info["generation"],
            "hash": info["hash"],
            "uptime_s": info["uptime_s"],
            "saved": self._applier.saved,
            "draining_since": self.draining_since,
            "skew": round(skew([worker["active"] for worker in workers]), 2),
            "workers": sorted(workers, key=lambda worker: worker["index"]),
            "services": services,
        }

    def _add_silent_listeners(self, services: dict[str, ServiceStatus]) -> None:
        """List addresses that no worker accepts from right now: their clients wait in the queue."""
        for name, running in self._node.running.items():
            there = {listener["address"] for listener in services[name]["listeners"]}
            services[name]["listeners"].extend(
                {"address": address, "state": "closing" if self.draining_since else "paused", "accepted": 0}
                for address in running.service.spec.listen
                if address not in there
            )

    async def metrics(self) -> bytes:
        """Return Prometheus text, all workers in one."""
        total = FamilySum()
        loads: list[tuple[dict[str, str], float]] = []
        answers = await self._workers.ask_all("metrics", former=True)
        # At once, without giving the loop its turn: who ends from now on is among the answers, too.
        total.add(self._past_metrics.families(), ended=True)
        for member, _, parts in answers:
            member.last_families = [family for part in parts for family in part]
        for member, _, parts in answers:
            active = 0.0
            for part in parts:
                total.add(part, leaving=member.leaving)
                active += sum(
                    value
                    for _, name, _, samples in part
                    if name == "lb_connections_active"
                    for _, _, value in samples
                )
                await asyncio.sleep(0)
            loads.append(({"worker": str(member.index), "pid": str(member.pid)}, active))
        total.fill(self._silence())
        live = [member.last_families for member, _, _ in answers if not member.leaving]
        for (name, help_), value in zip(DESCRIPTORS.items(), worst(live, *DESCRIPTORS), strict=True):
            total.set(name, help_, [({}, value)])
        snapshot = self._applier.snapshot
        total.set(
            "lb_uptime_seconds", "Since the supervisor began", [({}, time.monotonic() - self._started_at)]
        )
        total.set("lb_generation", "Generation of the snapshot that runs", [({}, snapshot.generation)])
        total.set("lb_snapshot_info", "Hash of the snapshot that runs", [({"hash": snapshot.hash}, 1)])
        total.set("lb_snapshot_saved", SAVED, [({}, self._applier.saved)])
        total.set("lb_workers", "Workers that accept", [({}, len(self._workers.serving))])
        total.set("lb_worker_connections_active", "Clients of each worker, those that drain as well", loads)
        total.count(
            "lb_worker_ends",
            "Workers that ended, by how",
            [({"cause": cause}, self._ends[cause]) for cause in ("died", "drained")],
        )
        total.count(
            "lb_log_lines_dropped",
            "Log lines that a slow reader or a full disk cost",
            [({}, self.dropped_lines())],
        )
        return await exposition([total.families()])

    def _silence(self) -> Families:
        """Return 0 for each address, which is what remains where no worker accepts, though one should."""
        if self.draining_since:
            return []
        name = "lb_listener_accepting"
        samples = [
            (name, {"service": service, "address": address}, 0.0)
            for service, running in self._node.running.items()
            for address in running.service.spec.listen
        ]
        return [("gauge", name, "1 unless accepting is paused", samples)]

    def not_ready(self) -> str | None:
        """Return why this node should get no traffic."""
        if self.draining_since:
            return "the process is ending"
        if not self._applier.snapshot.generation:
            return "generation 0: waiting for a snapshot"
        if not self._workers.serving:
            return "no worker is there"
        if time.monotonic() - self._exhausted_at < EXHAUSTED_S:
            return "accepting is paused in a worker: out of descriptors"
        return None

    def _exists(self, labels: Mapping[str, str]) -> bool:
        """Tell whether what a series is about is still configured."""
        service = labels.get("service")
        if service is None:
            return True
        running = self._node.running.get(service)
        if running is None:
            return False
        if "address" in labels:
            return labels["address"] in running.service.spec.listen
        backend = labels.get("backend")
        return backend is None or backend == "_all" or backend in running.service.backends

    # -- workers --------------------------------------------------------------------------------------

    def heard(self, member: WorkerProcess, kind: str, fields: dict[str, Any]) -> None:
        """Pass on what happened in a worker or to it, and note what matters here."""
        if kind in {"backend_ejected", "backend_reinstated"}:
            key = (member.pid, fields["service"], fields["backend"])
            ejected = self.relay.ejected
            (ejected.add if kind == "backend_ejected" else ejected.discard)(key)
        elif kind == "local_error" and "EMFILE" in fields["cause"]:
            self._exhausted_at = time.monotonic()
        self.events.emit(kind, worker=member.index, **fields)

    def ended(self, member: WorkerProcess) -> None:
        """Keep the numbers of a worker that has ended."""
        drained = member.leaving and member.process.returncode == 0
        self._ends["drained" if drained else "died"] += 1
        self.relay.ejected = {one for one in self.relay.ejected if one[0] != member.pid}
        past = totals_of(member.last_report)
        for name, service in past.items():
            if name in self._past_status:
                add_report(self._past_status, {name: service}, accepting=True)
            else:
                self._past_status[name] = service
        self._past_metrics.add(member.last_families, ended=True)
        self.forget_gone()
        if member.leaving:
            kind = "worker_drained" if drained else "worker_died"
            status = member.process.returncode
            self.events.emit(kind, worker=member.index, pid=member.pid, status=status)

    def forget_gone(self) -> None:
        """Forget what ended workers had counted for services and backends that are not configured any more."""
        running = self._node.running
        self._past_status = {name: one for name, one in self._past_status.items() if name in running}
        for name, service in self._past_status.items():
            known = running[name].service.backends
            service["backends"] = [one for one in service["backends"] if one["id"] in known]
        kept = FamilySum()
        kept.add(self._past_metrics.families(self._exists), ended=True)
        self._past_metrics = kept
