"""What stands between a listener and several services: its clients are nobody's in particular until they are routed.

Theory of operation:

1. A listener with one service that takes everybody has no router, and its clients cost nothing of all this.
2. Until a client is routed, its flow stands among those of the listener's first service (by name), where it is seen, drained
   and, if it ends, counted. But what it calls its service is the router, which passes on what is for the first one, and
   which alone admits it: after its PROXY header, if there is one, it waits for its ClientHello (`net.client_hello`).
3. When it is routed it becomes its service's, and is counted there, once: a counter never falls. Access rules and limits are
   those of that service, and begin here.
4. A change gives the router other services, or only one. Who waits is routed by what holds when its ClientHello is
   complete; who has been routed is not touched. A router that its listener has given up serves those who wait still.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dataplane.core.reasons import CloseReason
from dataplane.core.routing import Routes
from dataplane.net.client_hello import HelloReader
from dataplane.net.flow import Flow, FlowOwner
from dataplane.net.leg import Leg
from dataplane.net.proxy_header import HeaderReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dataplane.core.client_hello import ClientHello
    from dataplane.net.calls import Address
    from dataplane.net.service import Service


class Router(FlowOwner):
    """The services of one address, and the clients that are not yet theirs; it is their service meanwhile (net.flow).

    Args:
        address: What is listened on.
        services: Whose it is, at least one, in order.
    """

    def __init__(self, address: str, services: Sequence[Service]) -> None:
        self.address = address
        self.unrouted: set[Flow] = set()
        self.accepted_for: Counter[str] = Counter()
        """Clients that were accepted, by the name of the service that they are counted at."""
        self.first = services[0]
        self.drain_reason = CloseReason.DRAIN_TIMEOUT
        self.configure(services)

    def configure(self, services: Sequence[Service]) -> None:
        """Route to these services from now on, or take note of their new configurations."""
        before, first = self.first, services[0]
        self.services = tuple(services)
        self.first = first
        self.reactor, self.name, self.spec = first.reactor, first.name, first.spec
        self.connector, self.deadlines = first.connector, first.deadlines
        self.leaving_events, self.reuses = first.leaving_events, first.reuses
        self.proxy_required, self.trusted = first.proxy_required, first.trusted
        self.proxy_header = first.proxy_header
        self._routes = Routes((service.spec.match, service) for service in services)
        for flow in list(self.unrouted):
            if first is not before:
                first.flows.add(flow)
                before.part_with(flow)
            waiting = flow.waiting
            if isinstance(waiting, HelloReader) and not self._routes.needs_hello:
                waiting.stop()
                self.route(flow, None)

    def accepted(self, fd: int, address: Address) -> None:
        """Take a client's new connection (`net.listener.Entrance`)."""
        flow = self._begin(fd, address)
        try:
            if self.proxy_required:
                HeaderReader(flow).start()
            else:
                self.admit(flow)
        except Exception:  # a full epoll (fs.epoll.max_user_watches), or a bug of ours
            flow.on_failure()
            raise

    def receive(self, fd: int, address: Address) -> None:
        """Take a client that another process has accepted and routed to a service of this address: it stays here."""
        flow = self._begin(fd, address)
        try:
            HelloReader(flow, self.settle).start()
        except Exception:
            flow.on_failure()
            raise

    def _begin(self, fd: int, address: Address) -> Flow:
        flow = Flow(self, address, self.reactor.now)
        flow.client = Leg(flow, fd, False)
        self.first.flows.add(flow)
        self.unrouted.add(flow)
        return flow

    def admit(self, flow: Flow) -> None:
        """Find out what a client asks for, as far as that matters."""
        if self._routes.needs_hello:
            HelloReader(flow, self.route).start()
        else:
            self.route(flow, None)

    def route(self, flow: Flow, hello: ClientHello | None) -> None:
        """Give a client to its service, here or in another process, or end it; None: it has said nothing, or not in TLS."""
        self._route(flow, hello, self.address)

    def settle(self, flow: Flow, hello: ClientHello | None) -> None:
        """Give a client to its service here, or end it."""
        self._route(flow, hello, "")

    def _route(self, flow: Flow, hello: ClientHello | None, listener: str) -> None:
        target = self._routes.find(hello, flow.address[0] if flow.address else "")
        if target is None:
            reason = (
                CloseReason.NOT_TLS if hello is None and self._routes.needs_hello else CloseReason.NO_ROUTE
            )
            if reason is CloseReason.NO_ROUTE:
                flow.detail = self._nobody(hello)
            flow.end(reason)
            return
        flow.hello = hello
        self.unrouted.discard(flow)
        if listener:  # else the process that has accepted it has counted it
            self.accepted_for[target.name] += 1
        if target is not self.first:
            target.flows.add(flow)
            self.first.part_with(flow)
        flow.service = target
        if flow.deadline:  # of a drain of everything
            self.reactor.wheel.move(flow, flow.deadline)
        target.routed(flow, listener)

    def on_end(self, flow: Flow, reason: CloseReason, server: Leg | None, pooled: bool = False) -> None:  # noqa: FBT001, FBT002 - as in Service
        """Settle the accounts of a flow that ends before it is routed, at the first service."""
        self.unrouted.discard(flow)
        self.accepted_for[self.name] += 1
        self.first.totals.connections += 1
        self.first.on_end(flow, reason, server, pooled)

    def _nobody(self, hello: ClientHello | None) -> str:
        """Say of what no service is."""
        if hello is None:
            return f"no service on {self.address} takes this address"
        name = f"the name {hello.sni}" if hello.sni else "a client that sends no name"
        offered = f", offering {', '.join(hello.alpn[:4])}" if hello.alpn else ""
        return f"no service on {self.address} takes {name}{offered}"
