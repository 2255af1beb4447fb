"""Several services on one listener, in the test's own thread (see `rig`)."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dataplane.net.backend import Backend
from dataplane.net.router import Router
from dataplane.net.service import Service
from tests.dataplane.net.rig import DEADLINE_S, Rig
from tests.support.clock import FakeClock


class RoutedRig(Rig):
    """A rig whose listener has a router: service `s`, which is the rig's own, and `others` by name.

    Each has a backend of its own, in `ends`: that of `s` is the first.
    """

    def __init__(self, clock: FakeClock, others: Mapping[str, Mapping[str, Any]], **options: Any) -> None:
        super().__init__(clock, backends=1 + len(others), **options)
        self.options = {"s": options, **others}
        self.services = {"s": self.service}
        for index, name in enumerate(["s", *others]):
            self._add(name, index)
        self.router = Router(self.address, [self.services[name] for name in sorted(self.services)])
        self.listener.serve(self.router.first, self.router.accepted)

    def _add(self, name: str, index: int) -> None:
        backends = [{"address": f"127.0.0.1:{self.ends[index].port}", "id": f"b{index}"}]
        spec = replace(self.spec(backends_=backends, **self.options[name]), name=name)
        service = self.service if name == "s" else Service(self.reactor, spec, self)
        service.configure(spec)
        service.access_log = self.service.access_log
        service.backends = {one.id: Backend(self.reactor, one, spec) for one in spec.backends}
        self.services[name] = service
        own, self.service = self.service, service
        self.select()
        self.service = own

    def client(self, *, receive_buffer: int = 0) -> socket.socket:
        """Connect a client, and wait until the listener has taken it."""
        del receive_buffer
        accepted = self.listener.accepted
        sock = self.keep(socket.socket())
        sock.settimeout(DEADLINE_S)
        host, _, port = self.address.rpartition(":")
        sock.connect((host, int(port)))
        sock.setblocking(False)
        self.until(lambda: self.listener.accepted > accepted, "the client to be accepted")
        return sock

    def check_routed_accounts(self) -> None:
        """Assert that nothing is left of flows that have all ended, and that each was counted once."""
        assert not self.router.unrouted
        counted = 0
        for service in self.services.values():
            assert not service.flows
            assert service.active == 0
            assert sum(service.totals.closed.values()) == service.totals.connections
            assert all(not backend.active for backend in service.backends.values())
            counted += service.totals.connections
        assert counted == self.listener.accepted == self.router.accepted_for.total()
        assert len(self.reactor.handlers) == 1, self.reactor.handlers.all()

    def close(self) -> None:
        """Close everything."""
        for service in self.services.values():
            if service is not self.service:
                self.service.flows |= service.flows
        super().close()


@contextlib.contextmanager
def routed(others: Mapping[str, Mapping[str, Any]], **options: Any) -> Iterator[RoutedRig]:
    """Run a rig on a clock of its own."""
    rig = RoutedRig(FakeClock(), others, **options)
    try:
        yield rig
    finally:
        rig.close()
