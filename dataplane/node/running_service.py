"""A service as its node runs it: who may get its clients now, and what is found out about its backends."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Protocol

from dataplane.core.balance.sticky_table import StickyTable
from dataplane.core.health import Change, HealthState, HealthView, combine
from dataplane.core.outlier import Ejection, Evidence, Failure, Outliers
from dataplane.core.reasons import DiscardCause
from dataplane.core.selection import Selection, next_step, ramp
from dataplane.core.spec import BackendSpec, CheckType, OperatorState, ServiceSpec
from dataplane.net.backend import Backend
from dataplane.net.connect import Observer
from dataplane.net.reactor import Reactor
from dataplane.net.service import Service
from dataplane.node.backend_certificates import BackendCertificates
from dataplane.telemetry.events import Events


class Owner(Protocol):
    """The node that runs a service."""

    reactor: Reactor
    events: Events
    random: Random

    def make_service(self, spec: ServiceSpec, observer: Observer) -> Service:
        """Make a service without backends."""

    def restock(self, running: RunningService) -> None:
        """Rebuild its selection before the loop's next round: a burst of changes costs one."""

    def local_error(self, service: str, code: int) -> None:
        """Say that this machine ran out of something."""

    def drained(self, running: RunningService) -> None:
        """Forget a removed service that has no connection any more."""


class RunningService:
    """A service, with what only its node needs of it; it is told what the service meets (net.connect.Observer)."""

    def __init__(self, owner: Owner, spec: ServiceSpec) -> None:
        self._owner = owner
        self.service = owner.make_service(spec, self)
        self.configured: dict[str, BackendSpec] = {}
        """Backends as the snapshot has them, by id."""
        self.effective: dict[str, BackendSpec] = {}
        """The same with overrides applied: the `spec` of each backend."""
        self.loops: frozenset[str] = frozenset()
        """The ids of those backends that lead back into the balancer by what was configured."""
        self.outliers = Outliers(spec.passive)
        self.certificates = BackendCertificates(spec.name, owner.events.emit)
        self.tables: dict[int, StickyTable] = {}
        """Of mode `sticky`, by tier."""
        self.serving = -1
        """How many backends clients may get; -1 before the first selection."""
        self.tick = 0

    # -- who may get clients --------------------------------------------------------------------------

    def health(self, backend: Backend) -> HealthView:
        """Return what is observed of a backend, or why it is nowhere."""
        absence = backend.absence
        if absence is not None:
            since = absence.since or backend.health.since
            return HealthView(absence.state, absence.cause, since, absence.state is not HealthState.DOWN)
        ejection = self.outliers.ejection(backend.id)
        return combine(backend.health.view, ejection.view if ejection else None)

    def reassess(self, backend: Backend) -> None:
        """Take note that something that decides a backend's usability has happened."""
        self.refresh(backend)
        self._owner.restock(self)

    def refresh(self, backend: Backend) -> None:
        """Find out whether a backend is usable; the selection is the caller's to rebuild."""
        spec, was = backend.spec, backend.usable
        enabled = spec.state is OperatorState.ENABLED and spec.weight > 0 and not backend.removed
        health = self.health(backend)
        backend.healthy = health.state.usable and backend.address is not None
        backend.reachable = health.reachable and backend.address is not None
        backend.usable = enabled and backend.healthy
        backend.standing = backend.stand(1.0)
        if backend.usable and not was:
            backend.ramp_from = self._owner.reactor.now
            backend.pool.refiller.restock()
        elif was and not backend.usable:
            backend.pool.clear(DiscardCause.UNUSABLE)

    def rebuild(self) -> None:
        """Make the selection anew, say what became of it, and wake up when it is due again."""
        service = self.service
        deadlines = [self._ramp(), self.outliers.next_deadline()]
        before = service.selection
        service.selection = Selection.build(
            [backend.standing for backend in service.backends.values()],
            mode=service.spec.mode,
            panic=service.spec.panic,
            random=self._owner.random.random,
            tables=self.tables,
            previous=before,
        )
        self._tell_selection(before.panic, service.selection)
        due = [deadline for deadline in deadlines if deadline is not None]
        if due:
            self._owner.reactor.wheel.move(self, min(due))
        else:
            self._owner.reactor.wheel.cancel(self)
        service.serve_queue()

    def _ramp(self) -> float | None:
        """Give slow starters their share of now; return when the first of them grows (monotonic seconds)."""
        slow, now = self.service.spec.slow_start_s, self._owner.reactor.now
        steps = []
        for backend in self.service.backends.values() if slow else ():
            if backend.ramp_from is not None:
                backend.standing = backend.stand(ramp(now, backend.ramp_from, slow))
                step = next_step(now, backend.ramp_from, slow)
                if step is None:
                    backend.ramp_from = None
                else:
                    steps.append(step)
        return min(steps, default=None)

    def _tell_selection(self, panicked: bool, selection: Selection[Backend]) -> None:  # noqa: FBT001 - what was so
        service, emit = self.service, self._owner.events.emit
        serving = len(selection.candidates)
        if selection.panic is not panicked:
            emit(
                "panic" if selection.panic else "panic_over",
                service=service.name,
                usable=selection.usable,
                serving=serving,
                threshold=f"{service.spec.panic:.0%}",
            )
        turned = service.backends and (serving == 0) is not (self.serving == 0)
        if turned and (self.serving >= 0 or not serving):
            kind = "usable_again" if serving else "no_usable_backend"
            emit(kind, service=service.name, usable=selection.usable)
        self.serving = serving

    def on_timer(self, now: float) -> None:
        """End ejections whose time is over, and let slow starters grow."""
        for backend_id in self.outliers.expire(now):
            self._reinstate(backend_id, "the ejection's time is over")
        self._owner.restock(self)

    # -- verdicts -------------------------------------------------------------------------------------

    def judged(self, backend: Backend, change: Change | None, *, passed: str = "") -> None:
        """Act on a verdict, and what it has changed; `passed` is why it ends an ejection, if it does."""
        if passed and self.outliers.passed_check(backend.id, self._owner.reactor.now):
            self._reinstate(backend.id, passed)
        if change is not None:
            self.tell_health(backend, change)
            self.reassess(backend)

    def _reinstate(self, backend_id: str, cause: str) -> None:
        backend = self.service.backends.get(backend_id)
        if backend is not None:
            backend.failures = 0
            name = self.service.name
            self._owner.events.emit("backend_reinstated", service=name, backend=backend_id, cause=cause)
            self.reassess(backend)

    def tell_health(self, backend: Backend, change: Change) -> None:
        """Say what has changed in a backend's health."""
        old, new = change.old, change.new
        kind = new.state.value
        if new.state is old.state:
            kind = "reachable" if new.reachable else "unreachable"
        self._owner.events.emit(
            f"backend_{kind}",
            service=self.service.name,
            backend=backend.id,
            address=backend.spec.address,
            was=old.state.value,
            reachable=new.reachable,
            cause=new.cause,
        )

    # -- what the service meets (net.connect.Observer) -----------------------------------------------

    def backend_failed(self, backend: Backend, evidence: Evidence, cause: str) -> None:
        """Count a failed connect or an early reset."""
        backends, owner = self.service.backends, self._owner
        if backends.get(backend.id) is not backend:
            return  # it is removed, or the service is
        answer = self.outliers.failure(
            Failure(backend.id, evidence, cause, owner.reactor.now),
            population=len(backends),
            has_others=lambda: any(
                other.usable and other.spec.tier == backend.spec.tier and other is not backend
                for other in backends.values()
            ),
        )
        backend.failures = self.outliers.failing.get(backend.id, 0)
        where = {"service": self.service.name, "backend": backend.id}
        if isinstance(answer, Ejection):
            backend.totals.ejections += 1
            seconds = answer.until - answer.since
            owner.events.emit("backend_ejected", **where, cause=cause, seconds=seconds, times=answer.times)
            self.reassess(backend)
        elif answer is not None:
            owner.events.emit("ejection_refused", **where, cause=f"{cause}; {answer.value}")

    def backend_spoke(self, backend: Backend) -> None:
        """End a streak of failures."""
        backend.failures = 0
        self.outliers.success(backend.id)

    def local_error(self, code: int) -> None:
        """Say that this machine ran out of something."""
        self._owner.local_error(self.service.name, code)

    def drained(self) -> None:
        """Let the node forget a removed service when its last connection has gone."""
        if not self.service.flows:
            self._owner.drained(self)


def take_share(running: RunningService, backend: Backend, spec: BackendSpec) -> bool:
    """Give a backend of a service another share of new connections, if nothing else changes; tell whether that is so.

    It is what most changes of many backends are, and costs a fifth of finding out all else anew.
    """
    before = backend.spec
    alone = (
        spec.weight > 0 < before.weight
        and spec.state is before.state is OperatorState.ENABLED
        and (spec.address, spec.tier) == (before.address, before.tier)
        and not backend.removed
    )
    # What somebody else has found of a backend without checks ends with each change of it.
    if not alone or (
        running.service.spec.active.type is CheckType.NONE and backend.health.state is not HealthState.UNKNOWN
    ):
        return False
    backend.spec = spec
    backend.standing = backend.stand(1.0)
    return True


def find(
    services: Mapping[str, RunningService], service: str, backend_id: str
) -> tuple[RunningService, Backend] | None:
    """Return a service and its backend; None if there is none of the name."""
    running = services.get(service)
    backend = running.service.backends.get(backend_id) if running else None
    return None if running is None or backend is None else (running, backend)
