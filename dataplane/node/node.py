"""The running state of one process: its services, their listeners and their health."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any, Final

from dataplane.core.drain import closing_times
from dataplane.core.health import HealthState, HealthView, combine
from dataplane.core.outlier import Ejection, Failure
from dataplane.core.reasons import CloseReason, DiscardCause
from dataplane.core.selection import Selection
from dataplane.core.slowstart import next_step, ramp
from dataplane.core.spec import CheckType, OperatorState
from dataplane.net.backend import Backend
from dataplane.net.prober import Prober, Target
from dataplane.net.service import Service
from dataplane.net.sockopts import error_text
from dataplane.node.backend_addresses import Whereabouts
from dataplane.node.drain import undrain
from dataplane.node.running_service import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dataplane.core.health import Change, Outcome
    from dataplane.core.outlier import Evidence
    from dataplane.core.spec import BackendSpec, ServiceSpec
    from dataplane.net.flow import Flow
    from dataplane.net.listener import Listener
    from dataplane.net.observer import Observer
    from dataplane.net.reactor import Reactor
    from dataplane.telemetry.events import Events
    from schemas.health import HealthUpdate, Verdict

__all__ = ["Node"]

LOCAL_ERROR_EVERY_S: Final = 1.0


class Node:
    """Owns everything that accepts, relays or checks in this process."""

    def __init__(self, reactor: Reactor, events: Events, random: Random) -> None:
        self.reactor = reactor
        self.events = events
        self.random = random
        self.running: dict[str, Running] = {}
        self.leaving: dict[str, Running] = {}
        """Removed services that still have connections."""
        self.listeners: dict[str, Listener] = {}
        self.overrides: dict[tuple[str, str], dict[str, tuple[Any, float]]] = {}
        """By (service, backend id): field -> (value, monotonic second since)."""
        self.whereabouts = Whereabouts(self)
        self.prober = Prober(
            self.on_verdict,
            random=random.random,
            on_local_error=self._on_probe_error,
            locate=self.whereabouts.of,
            on_reached=self.whereabouts.reached,
        )
        self.access_log: Callable[..., None] | None = None
        self.idle = asyncio.Event()
        """Set whenever a draining service has lost its last connection."""
        self._stale: set[Running] = set()
        self._local_errors: dict[int, tuple[float, int]] = {}

    # -- health and selection -------------------------------------------------------------------------

    def health(self, running: Running, backend: Backend) -> HealthView:
        """Return what is observed of a backend, or why it is nowhere."""
        absence = backend.absence
        if absence is not None:
            since = absence.since or backend.health.since
            return HealthView(absence.state, absence.cause, since, absence.state is not HealthState.DOWN)
        ejection = running.outliers.ejection(backend.id)
        return combine(backend.health.view, ejection.view if ejection else None)

    def reassess(self, running: Running, backend: Backend) -> None:
        """Take note that something that decides a backend's usability has happened."""
        self.refresh(running, backend)
        self.restock(running)

    def refresh(self, running: Running, backend: Backend) -> None:
        """Find out whether a backend is usable; the selection is the caller's to rebuild."""
        spec, was = backend.spec, backend.usable
        enabled = spec.state is OperatorState.ENABLED and spec.weight > 0 and not backend.removed
        health = self.health(running, backend)
        backend.healthy = health.state.usable and backend.address is not None
        backend.reachable = health.reachable and backend.address is not None
        backend.usable = enabled and backend.healthy
        backend.standing = backend.stand(1.0)
        if backend.usable and not was:
            backend.ramp_from = self.reactor.now
            backend.pool.restock()
        elif was and not backend.usable:
            backend.pool.clear(DiscardCause.UNUSABLE)

    def restock(self, running: Running) -> None:
        """Rebuild a service's selection before the loop's next round: a burst of changes costs one."""
        if not self._stale:
            asyncio.get_running_loop().call_soon(self.rebuild_stale)
        self._stale.add(running)

    def rebuild_stale(self) -> None:
        """Rebuild what waits for the loop's next round."""
        stale, self._stale = self._stale, set()
        for running in stale:
            self.rebuild(running)

    def rebuild(self, running: Running) -> None:
        """Make the selection of a service anew, and say what became of it."""
        service = running.service
        self._grow(running)
        selection = Selection.build(
            [backend.standing for backend in service.backends.values()],
            mode=service.spec.mode,
            panic=service.spec.panic,
            random=self.random.random,
            tables=running.tables,
            previous=service.selection,
        )
        service.selection = selection
        if selection.panic is not running.panic:
            running.panic = selection.panic
            self.events.emit(
                "panic" if selection.panic else "panic_over",
                service=service.name,
                usable=selection.usable,
                serving=len(selection.candidates),
                threshold=f"{service.spec.panic:.0%}",
            )
        serving = len(selection.candidates)
        if service.backends and (serving == 0) is not (running.serving == 0):
            kind = "usable_again" if serving else "no_usable_backend"
            if running.serving >= 0 or not serving:
                self.events.emit(kind, service=service.name, usable=selection.usable)
        running.serving = serving
        self.set_timer(running)
        service.serve_queue()

    def _grow(self, running: Running) -> None:
        """Give slow starters their share of now."""
        slow = running.service.spec.slow_start_s
        for backend in running.service.backends.values() if slow else ():
            if backend.ramp_from is not None:
                backend.standing = backend.stand(ramp(self.reactor.now, backend.ramp_from, slow))

    def set_timer(self, running: Running) -> None:
        """Wake up for the next end of an ejection or the next step of a slow start."""
        now, slow = self.reactor.now, running.service.spec.slow_start_s
        deadlines = [running.outliers.next_deadline()]
        for backend in running.service.backends.values() if slow else ():
            if backend.ramp_from is not None:
                step = next_step(now, backend.ramp_from, slow)
                if step is None:
                    backend.ramp_from = None
                deadlines.append(step)
        due = [deadline for deadline in deadlines if deadline is not None]
        if due:
            self.reactor.wheel.move(running, min(due))
        else:
            self.reactor.wheel.cancel(running)

    def on_service_timer(self, running: Running, now: float) -> None:
        """Do what `set_timer` waited for."""
        for backend_id in running.outliers.expire(now):
            self._reinstated(running, backend_id, "the ejection's time is over")
        self.restock(running)

    def _reinstated(self, running: Running, backend_id: str, cause: str) -> None:
        backend = running.service.backends.get(backend_id)
        if backend is not None:
            backend.failures = 0
            self.events.emit(
                "backend_reinstated", service=running.service.name, backend=backend_id, cause=cause
            )
            self.reassess(running, backend)

    # -- what services meet ---------------------------------------------------------------------------

    def backend_failed(self, running: Running, backend: Backend, evidence: Evidence, cause: str) -> None:
        """Count a failed connect or an early reset."""
        service, outliers = running.service, running.outliers
        if self.running.get(service.name) is not running or backend.removed:
            return
        answer = outliers.failure(
            Failure(backend.id, evidence, cause, self.reactor.now),
            population=len(service.backends),
            has_others=lambda: any(
                other.usable and other.spec.tier == backend.spec.tier and other is not backend
                for other in service.backends.values()
            ),
        )
        backend.failures = outliers.failing.get(backend.id, 0)
        if isinstance(answer, Ejection):
            backend.totals.ejections += 1
            self.events.emit(
                "backend_ejected",
                service=service.name,
                backend=backend.id,
                cause=cause,
                seconds=answer.until - answer.since,
                times=answer.times,
            )
            self.reassess(running, backend)
        elif answer is not None:
            self.events.emit(
                "ejection_refused",
                service=service.name,
                backend=backend.id,
                cause=f"{cause}; {answer.value}",
            )

    def local_error(self, service: str, code: int) -> None:
        """Say at most once a second that this machine ran out of something."""
        now = self.reactor.now
        at, count = self._local_errors.get(code, (0.0, 0))
        count += 1
        if now - at >= LOCAL_ERROR_EVERY_S:
            self.events.emit("local_error", service=service, cause=error_text(code), times=count)
            at, count = now, 0
        self._local_errors[code] = (at, count)

    def drained(self, running: Running) -> None:
        """Forget a removed service when its last connection has gone."""
        service = running.service
        if service.flows:
            return
        if self.leaving.get(service.name) is running:
            del self.leaving[service.name]
            self.events.emit("service_drained", service=service.name)
        self.idle.set()

    # -- active checks --------------------------------------------------------------------------------

    def probe_all(self) -> None:
        """Tell the prober what to check from now on."""
        self.prober.update(
            Target(
                service.name, backend.id, backend.spec.address, service.spec.active, service.spec.proxy.send
            )
            for service in (running.service for running in self.running.values())
            if service.spec.active.type is not CheckType.NONE
            for backend in service.backends.values()
            if backend.spec.state is not OperatorState.DISABLED
        )

    def on_verdict(self, target: Target, outcome: Outcome) -> None:
        """Take what one active check has found."""
        running = self.running.get(target.service)
        backend = running.service.backends.get(target.backend_id) if running else None
        if running is None or backend is None or backend.spec.address != target.address:
            return
        now = self.reactor.clock()
        change = backend.health.observe(outcome, now)
        if outcome.ok and running.outliers.passed_check(backend.id, now):
            self._reinstated(running, backend.id, "an active check passed")
        if change is not None:
            self._tell_health(running, backend, change)
            if change.new.state is HealthState.UP:
                backend.ramp_from = now
            self.reassess(running, backend)

    def decide(self, service: str, backend_id: str, verdict: Verdict) -> bool:
        """Take somebody else's verdict (`PUT /v1/health`), which needs no streak; False if there is no such backend.

        It holds until the next verdict of a check of our own, if there are any.
        """
        running = self.running.get(service)
        backend = running.service.backends.get(backend_id) if running else None
        if running is None or backend is None:
            return False
        now, state = self.reactor.clock(), HealthState(verdict.state)
        change = backend.health.decide(state, verdict.cause, now, reachable=verdict.reachable)
        if state is HealthState.UP and running.outliers.passed_check(backend_id, now):
            self._reinstated(running, backend_id, "said to be up")
        if change is not None:
            self._tell_health(running, backend, change)
            self.reassess(running, backend)
        return True

    def decide_all(self, update: HealthUpdate) -> list[str]:
        """Take a whole body of `PUT /v1/health`; return the `service/backend` of those that do not exist here."""
        return [
            f"{service}/{backend_id}"
            for service, verdicts in update.verdicts.items()
            for backend_id, verdict in verdicts.items()
            if not self.decide(service, backend_id, verdict)
        ]

    def forget_health(self, running: Running, backend: Backend) -> None:
        """Take note that nobody checks a backend any more."""
        change = backend.health.forget(self.reactor.now)
        if change is not None:
            self._tell_health(running, backend, change)

    def _tell_health(self, running: Running, backend: Backend, change: Change) -> None:
        old, new = change.old, change.new
        kind = new.state.value
        if new.state is old.state:
            kind = "reachable" if new.reachable else "unreachable"
        self.events.emit(
            f"backend_{kind}",
            service=running.service.name,
            backend=backend.id,
            address=backend.spec.address,
            was=old.state.value,
            reachable=new.reachable,
            cause=new.cause,
        )

    def _on_probe_error(self, cause: str) -> None:
        self.events.emit("local_error", service="", cause=f"active check: {cause}", times=1)

    # -- overrides ------------------------------------------------------------------------------------

    def drop_overrides(
        self, service: str, backend_id: str, old: BackendSpec | None, new: BackendSpec | None
    ) -> None:
        """End the overrides of fields that a snapshot changes; those that it repeats stay."""
        override = self.overrides.pop((service, backend_id))
        if old is None or new is None:
            return
        kept = {name: value for name, value in override.items() if getattr(old, name) == getattr(new, name)}
        if kept:
            self.overrides[service, backend_id] = kept

    def after_state(self, running: Running, backend: Backend, before: BackendSpec) -> None:
        """Drain, or stop draining, the connections of a backend whose operator state may have changed."""
        state, service = backend.spec.state, running.service
        if state is before.state:
            return
        if state is OperatorState.ENABLED:
            here = backend.spec.address
            undrain(flow for flow in service.flows if flow.backend is backend and flow.place == here)
        elif before.state is OperatorState.ENABLED:
            count = self.drain_backend(service, backend)
            self.events.emit(
                "drain",
                service=service.name,
                backend=backend.id,
                state=state.value,
                connections=count,
                timeout_s=service.spec.drain.timeout_s,
            )
        if state is OperatorState.DISABLED:
            self.forget_health(running, backend)

    # -- draining -------------------------------------------------------------------------------------

    def drain(self, flows: Iterable[Flow], service: Service, reason: CloseReason) -> int:
        """Give flows their last deadline; return how many there are."""
        service.drain_reason = reason
        chosen = [flow for flow in flows if not flow.deadline or reason is CloseReason.SHUTDOWN]
        spec = service.spec.drain
        times = closing_times(len(chosen), self.reactor.now, timeout_s=spec.timeout_s, close_s=spec.close_s)
        for flow, when in zip(chosen, times, strict=True):
            flow.deadline = when
            service.deadlines.schedule(flow)
        return len(chosen)

    def drain_backend(self, service: Service, backend: Backend) -> int:
        """Drain the connections of one backend; return how many there are."""
        return self.drain(
            (flow for flow in service.flows if flow.backend is backend), service, CloseReason.DRAIN_TIMEOUT
        )

    # -- creating -------------------------------------------------------------------------------------

    def make_service(self, spec: ServiceSpec, observer: Observer) -> Service:
        """Make a service without backends."""
        return Service(self.reactor, spec, observer)

    def new_backend(self, spec: BackendSpec, service: ServiceSpec) -> Backend:
        """Make a backend, configured and not yet checked."""
        return Backend(self.reactor, spec, service)

    def new_service(self, spec: ServiceSpec) -> Running:
        """Make a service, or take back one that is leaving."""
        running = self.leaving.pop(spec.name, None)
        if running is None:
            running = Running(self, spec)
            running.service.access_log = self.access_log
            return running
        running.service.draining = False
        # Those that have a backend are undrained when it comes back, too (`after_state`): it may not.
        undrain(flow for flow in running.service.flows if flow.backend is None)
        running.service.configure(spec)
        return running
