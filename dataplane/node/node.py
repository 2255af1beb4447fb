"""The running state of one process: its services, their listeners and their health."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Any, Final

from dataplane.core.health import HealthState, Outcome
from dataplane.core.reasons import CloseReason
from dataplane.core.spec import BackendSpec, CheckType, OperatorState, ServiceSpec
from dataplane.net.backend import Backend
from dataplane.net.connect import Observer
from dataplane.net.goal import PoolShare
from dataplane.net.listener import Listener
from dataplane.net.prober import Prober
from dataplane.net.probes import CheckTls, Target
from dataplane.net.reactor import Reactor
from dataplane.net.router import Router
from dataplane.net.service import Service
from dataplane.net.sockopts import error_text
from dataplane.node.backend_addresses import BackendAddresses
from dataplane.node.drain import drain, undrain
from dataplane.node.running_service import RunningService, find
from dataplane.telemetry.events import Events

LOCAL_ERROR_EVERY_S: Final = 1.0


class Node:
    """Owns everything that accepts, relays or checks in this process; `share` is what a pool may hold, None: all that it wants."""

    def __init__(
        self, reactor: Reactor, events: Events, random: Random, share: PoolShare | None = None
    ) -> None:
        self.reactor = reactor
        self.events = events
        self.random = random
        self._share = share
        self.running: dict[str, RunningService] = {}
        self.leaving: dict[str, RunningService] = {}
        """Removed services that still have connections."""
        self.listeners: dict[str, Listener] = {}
        self.routers: dict[str, Router] = {}
        """By address, of those that several services share, or one that does not take everybody."""
        self.overrides: dict[tuple[str, str], dict[str, tuple[Any, float]]] = {}
        """By (service, backend id): field -> (value, monotonic second since)."""
        self.backend_addresses = BackendAddresses(self.running, reactor, events)
        self.prober = Prober(
            self.on_verdict,
            random=random.random,
            on_local_error=self._on_probe_error,
            locate=self.backend_addresses.of,
            on_reached=self.backend_addresses.reached,
        )
        self.on_judged: Callable[..., None] = lambda *_, **__: None
        """Told of each verdict: service, backend, `changed` (anything, or it has to be known all the same), `passed`."""
        self.clients_elsewhere: Callable[[str, str], int] = lambda *_: 0
        """Tells how many clients a backend (service, id) has in other processes that run what this one does."""
        self.access_log: Callable[..., None] | None = None
        self._idle = asyncio.Event()
        """Set whenever a draining service has lost its last connection."""
        self._stale: set[RunningService] = set()
        self._local_errors: dict[int, tuple[float, int]] = {}

    # -- its services (running_service.Owner) ---------------------------------------------------------

    def make_service(self, spec: ServiceSpec, observer: Observer) -> Service:
        """Make a service without backends."""
        return Service(self.reactor, spec, observer)

    def make_backend(self, spec: BackendSpec, service: ServiceSpec) -> Backend:
        """Make a backend, configured and not yet checked."""
        return Backend(self.reactor, spec, service, self._share)

    def new_service(self, spec: ServiceSpec) -> RunningService:
        """Make a service, or take back one that is leaving."""
        running = self.leaving.pop(spec.name, None)
        if running is None:
            running = RunningService(self, spec)
            running.service.access_log = self.access_log
            return running
        running.service.draining = False
        # Those that have a backend are undrained when it comes back, too (node.change): it may not.
        undrain(flow for flow in running.service.flows if flow.backend is None)
        running.service.configure(spec)
        return running

    def restock(self, running: RunningService) -> None:
        """Rebuild a service's selection before the loop's next round: a burst of changes costs one."""
        if not self._stale:
            asyncio.get_running_loop().call_soon(self.rebuild_stale)
        self._stale.add(running)

    def rebuild_stale(self) -> None:
        """Rebuild what waits for the loop's next round."""
        stale, self._stale = self._stale, set()
        for running in stale:
            running.rebuild()

    def local_error(self, service: str, code: int) -> None:
        """Say at most once a second that this machine ran out of something."""
        now = self.reactor.now
        at, count = self._local_errors.get(code, (0.0, 0))
        count += 1
        if now - at >= LOCAL_ERROR_EVERY_S:
            self.events.emit("local_error", service=service, cause=error_text(code), times=count)
            at, count = now, 0
        self._local_errors[code] = (at, count)

    def drained(self, running: RunningService) -> None:
        """Forget a removed service that has no connection any more."""
        name = running.service.name
        if self.leaving.get(name) is running:
            del self.leaving[name]
            self.events.emit("service_drained", service=name)
        self._idle.set()

    # -- checks ---------------------------------------------------------------------------------------

    def probe_all(self) -> None:
        """Tell the prober what to check from now on."""
        for running in self.running.values():
            running.certificates.keep(running.service.backends.keys())
        self.prober.update(
            Target(
                service.name,
                backend.id,
                backend.spec.address,
                service.spec.active,
                service.spec.proxy.send,
                CheckTls(service.backend_tls, service.backend_tls.server_name_of(backend))
                if service.spec.active.tls and service.backend_tls is not None
                else None,
            )
            for service in (running.service for running in self.running.values())
            if service.spec.active.type is not CheckType.NONE
            for backend in service.backends.values()
            if backend.spec.state is not OperatorState.DISABLED
        )

    def on_verdict(self, target: Target, outcome: Outcome) -> None:
        """Take what one active check has found."""
        found = find(self.running, target.service, target.backend_id)
        if found is None or found[1].spec.address != target.address:
            return
        running, backend = found
        if outcome.certificate_ends:
            ends, due = outcome.certificate_ends, outcome.certificate_due
            running.certificates.seen(backend.id, target.address, ends, due, time.time())
        now = self.reactor.clock()
        change = backend.health.observe(outcome, now)
        if change is not None and change.new.state is HealthState.UP:
            backend.ramp_from = now
        running.judged(backend, change, passed="an active check passed" if outcome.ok else "")
        self.on_judged(target.service, backend, changed=change is not None, passed=outcome.ok)

    def _on_probe_error(self, cause: str) -> None:
        self.events.emit("local_error", service="", cause=f"active check: {cause}", times=1)

    # -- the end --------------------------------------------------------------------------------------

    def connections(self) -> int:
        """Return how many clients there are."""
        return sum(len(one.service.flows) for one in [*self.running.values(), *self.leaving.values()])

    async def drain(self) -> None:
        """Wait until the last connection has ended, by itself or at its drain timeout; nobody accepts any more."""
        for running in [*self.running.values(), *self.leaving.values()]:
            service = running.service
            service.draining = True
            for backend in service.backends.values():
                backend.usable = backend.usable and bool(service.flows)
            drain(service, service.flows, CloseReason.SHUTDOWN)
        while self.connections():
            self._idle.clear()
            await self._idle.wait()
