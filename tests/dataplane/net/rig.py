"""One service in the test's own thread: a real listener and real sockets, but the test turns the crank.

Nothing happens between two calls of `step`, and no time passes but what `pass_time` says.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from dataplane.core.outlier import Evidence
from dataplane.core.reasons import CloseReason
from dataplane.core.selection import Selection, Standing
from dataplane.core.spec import OperatorState, ServiceSpec
from dataplane.net.backend import Backend
from dataplane.net.calls import close
from dataplane.net.listener import Listener, open_listener
from dataplane.net.reactor import Reactor
from dataplane.net.service import Service
from dataplane.node.specs import service_spec
from schemas.snapshot import parse_snapshot
from tests.support.clock import FakeClock

DEADLINE_S = 40.0
TICK_S = 0.05


def spec(**options: Any) -> ServiceSpec:
    """Return the spec of a service called `s`, with options as in a snapshot; by default without a pool."""
    options = {"listen": "127.0.0.1:1", "pool": {"mode": "off"}, **options}
    snapshot = parse_snapshot({"version": 1, "generation": 1, "services": {"s": options}})
    return service_spec("s", snapshot.services["s"])


def count(counted: Any, change: int) -> None:
    """Let a service or a backend have one connection more or less, as the connection path does."""
    counted.own = counted.cells[counted.row] = counted.own + change


class BackendEnd:
    """The far side of a backend: a listening socket, and the connections that the test accepts from it."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.connections: list[socket.socket] = []
        self.listener: socket.socket | None = None
        self.port = 0
        self.listen()

    def listen(self, *, backlog: int = 64) -> None:
        """Listen, again after `refuse`.

        Args:
            backlog: How many connections complete without being accepted, minus one.
        """
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=backlog)
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]

    def refuse(self) -> None:
        """Refuse new connections."""
        if self.listener is not None:
            self.listener.close()

    def accept(self) -> socket.socket:
        """Return the next connection, cranking until there is one."""
        got: list[socket.socket] = []

        def try_it() -> bool:
            assert self.listener is not None
            with contextlib.suppress(BlockingIOError):
                got.append(self.listener.accept()[0])
            return bool(got)

        self._rig.until(try_it, "a connection at the backend")
        got[0].setblocking(False)
        self.connections.append(got[0])
        return got[0]

    def nobody(self) -> bool:
        """Return whether no connection waits to be accepted."""
        assert self.listener is not None
        return not select.select([self.listener], [], [], 0)[0]

    def close(self) -> None:
        """Close everything."""
        self.refuse()
        for sock in self.connections:
            sock.close()


class _Loop:
    """Stands for the event loop where a failed handler is reported: here it fails the test."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Raise what a handler raised."""
        raise context["exception"]


class Rig:
    """A reactor, one service with one listener, and its backends.

    `failures` has (backend id, cause) for each report to passive health, `evidence` what each was, `local_errors`
    the errnos.
    """

    def __init__(
        self,
        clock: FakeClock,
        *,
        backends: int = 1,
        descriptors: int = 4096,
        reactor: type[Reactor] = Reactor,
        **options: Any,
    ) -> None:
        self.clock = clock
        self.reactor = reactor(_Loop(), descriptors, clock)  # type: ignore[arg-type]
        self.failures: list[tuple[str, str]] = []
        self.evidence: list[Evidence] = []
        self.local_errors: list[int] = []
        self.spoke: list[str] = []
        self.ended: list[tuple[CloseReason, Any]] = []
        self.ends = [BackendEnd(self) for _ in range(backends)]
        self._clients: list[socket.socket] = []
        self.service = Service(self.reactor, self.spec(**options), self)
        self.service.access_log = lambda flow, reason, server: self.ended.append((reason, flow))
        for one in self.service.spec.backends:
            self.service.backends[one.id] = Backend(self.reactor, one, self.service.spec)
        self.configure(**options)
        sock = open_listener("127.0.0.1:0", reuse_port=False)
        self.address = "{}:{}".format(*sock.getsockname())
        self.listener = Listener(self.reactor, self.address, sock, self.service)
        self.listener.start()

    # -- configuration

    def spec(self, **options: Any) -> ServiceSpec:
        """Return a spec with these options; backend `i` is called `b<i>`, unless `backends_` says otherwise."""
        backends = [
            {"address": f"127.0.0.1:{end.port}", "id": f"b{index}"} for index, end in enumerate(self.ends)
        ]
        return spec(backends=options.pop("backends_", backends), **options)

    def configure(self, **options: Any) -> None:
        """Take new options, as an update does."""
        wanted = self.spec(**options)
        self.service.configure(wanted)
        for one in wanted.backends:
            self.service.backends[one.id].configure(one, wanted, self.reactor.now)
        self.select()

    def select(self, *, down: tuple[str, ...] = ()) -> None:
        """Build the selection: everybody that is enabled, but for those that are `down`."""
        standings = []
        for backend in self.service.backends.values():
            one, healthy = backend.spec, backend.id not in down
            enabled = one.state is OperatorState.ENABLED
            backend.usable = enabled and healthy and one.weight > 0
            standings.append(Standing(backend, one.weight, one.tier, enabled, healthy, healthy, 1.0))
        self.service.selection = Selection.build(
            standings,
            mode=self.service.spec.mode,
            panic=0.0,
            random=Random(1).random,
            tables={},
            previous=None,
        )
        for backend in self.service.backends.values():
            if backend.usable:
                backend.pool.refiller.restock()
        self.service.serve_queue()

    def backend(self, index: int = 0) -> Backend:
        """Return a backend as the service sees it."""
        return self.service.backends[f"b{index}"]

    # -- the crank

    def step(self) -> None:
        """Handle the events that there are, once."""
        self.reactor._ready()

    def settle(self) -> None:
        """Handle events until there are none left."""
        while select.select([self.reactor.epoll], [], [], 0)[0]:
            self.step()

    def until(self, holds: Callable[[], object], what: str = "the condition") -> None:
        """Handle events until `holds()`."""
        end = time.monotonic() + DEADLINE_S
        while not holds():
            assert time.monotonic() < end, f"{what} did not come true"
            select.select([self.reactor.epoll], [], [], 0.001)
            self.step()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, tick by tick, and events be handled in between."""
        left = seconds
        while left > 1e-9:
            self.clock.advance(min(TICK_S, left))
            left -= TICK_S
            self.reactor.wheel.advance(self.reactor.clock())
            self.settle()

    # -- clients

    def keep(self, sock: socket.socket) -> socket.socket:
        """Close `sock` in the end; return it."""
        self._clients.append(sock)
        return sock

    def client(self, *, receive_buffer: int = 0) -> socket.socket:
        """Connect a client, and wait until the service has taken it."""
        accepted = self.service.totals.connections
        sock = self.keep(socket.socket())
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(DEADLINE_S)
        host, _, port = self.address.rpartition(":")
        sock.connect((host, int(port)))
        sock.setblocking(False)  # whoever waits has to turn the crank meanwhile
        self.until(lambda: self.service.totals.connections > accepted, "the client to be accepted")
        return sock

    def receive(self, sock: socket.socket, size: int) -> bytes:
        """Return `size` bytes from one of the test's sockets, cranking meanwhile; fewer if it ends before."""
        data = bytearray()
        ended = False

        def read() -> bool:
            nonlocal ended
            while len(data) < size and not ended:
                try:
                    piece = sock.recv(size - len(data))
                except BlockingIOError:
                    return False
                ended = not piece
                data.extend(piece)
            return True

        self.until(read, f"{size} bytes")
        return bytes(data)

    def receive_end(self, sock: socket.socket) -> bytes:
        """Return everything up to the FIN."""
        return self.receive(sock, 1 << 30)

    def fill(self, sock: socket.socket, data: bytes) -> int:
        """Send until nothing more fits anywhere on the way, and return how much that was."""
        sent = 0
        while True:
            try:
                sent += sock.send(data[sent : sent + 65536])
            except BlockingIOError:
                self.settle()
                # what is under way on loopback arrives within microseconds; nothing does when all is full
                if not select.select([self.reactor.epoll], [sock], [], 0.05)[1]:
                    self.settle()
                    assert sent < len(data), "more would have fitted"
                    return sent
            self.settle()

    def silent(self, sock: socket.socket) -> bool:
        """Return whether, after all events, there is nothing to read: no byte, no FIN, no reset."""
        self.settle()
        try:
            sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        return False

    @property
    def reasons(self) -> list[str]:
        """How flows have ended so far."""
        return [reason.value for reason, _ in self.ended]

    # -- net.connect.Observer

    def backend_failed(self, backend: Backend, evidence: Evidence, cause: str) -> None:
        """Note it."""
        backend.failures += 1
        self.failures.append((backend.id, cause))
        self.evidence.append(evidence)

    def backend_spoke(self, backend: Backend) -> None:
        """Note it."""
        backend.failures = 0
        self.spoke.append(backend.id)

    def local_error(self, code: int) -> None:
        """Note it."""
        self.local_errors.append(code)

    def drained(self) -> None:
        """Nothing."""

    # -- the end

    def check_accounts(self) -> None:
        """Assert that nothing is left of flows that have all ended."""
        service = self.service
        assert not service.flows
        assert service.active == 0
        assert not service.queue
        assert all(not backend.active for backend in service.backends.values())
        assert sum(service.totals.closed.values()) == service.totals.connections
        pooled = sum(backend.pool.held for backend in service.backends.values())
        assert len(self.reactor.handlers) == 1 + pooled, (
            self.reactor.handlers.all()
        )  # the listener and the pools

    def close(self) -> None:
        """Close everything."""
        for flow in list(self.service.flows):
            if flow.waiting is not None:
                flow.waiting.cancel(flow)
            close(flow.client.fd, reset=True)
            if flow.server is not None:
                close(flow.server.fd)
        for backend in self.service.backends.values():
            backend.usable = False
            backend.pool.clear(next(iter(backend.totals.discarded)))
        self.listener.sock.close()
        for end in self.ends:
            end.close()
        for sock in self._clients:
            sock.close()
        self.reactor.epoll.close()


@contextlib.contextmanager
def rigged(**options: Any) -> Iterator[Rig]:
    """Run a rig on a clock of its own."""
    clock = FakeClock()
    rig = Rig(clock, **options)
    try:
        yield rig
    finally:
        rig.close()
