"""The rig with TLS: clients that speak it, backends that speak it, or both; the far ends are the standard library's.

A backend's handshake is made here and not by the connector, so that what is tested is the relay alone.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from dataplane.net.calls import UNWATCHED
from dataplane.net.flow import Flow
from dataplane.net.tls import Channel, harden
from tests.dataplane.net.descriptors import adopted
from tests.dataplane.net.rig import Rig
from tests.support.clock import FakeClock
from tests.support.tls import CertificateAuthority

MODES = ("client", "backend", "both")
"""Where there is TLS."""
NAME = "server.test"


class TruncatedError(Exception):
    """A FIN came without a close_notify."""


class TlsPeer:
    """A socket that does not block, with TLS on it; what it is asked for is what a socket is asked for.

    `send` says how much was sealed. What the kernel has not taken of that is sent whenever the rig takes a step.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> None:
        self.sock = sock
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._in, self._out, server_side=server_side, server_hostname=None if server_side else NAME
        )
        self._plain = b""
        self._unsent = b""
        self._fin = self._told = self._raw_end = self._closed = False
        self._reset: ConnectionResetError | None = None
        self.slice = 1 << 30
        """How much is written to the kernel at once."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def handshake(self) -> bool:
        """Go on; return whether it is over, and all of it is sent."""
        self.flush()
        while self._take():
            pass
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
            return False
        self.flush()
        return not self._unsent

    def hello(self) -> bytes:
        """Return a client's first flight."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._out.read()

    # -- sending

    def flush(self) -> None:
        """Give the kernel what it takes."""
        self._unsent += self._out.read()
        try:
            while self._unsent:
                self._unsent = self._unsent[self.sock.send(self._unsent[: self.slice]) :]
            if self._fin and not self._told:
                self._told = True
                self.sock.shutdown(socket.SHUT_WR)
        except ConnectionResetError as error:  # it is told once
            self._reset = error
        except OSError:
            pass

    def send(self, data: bytes) -> int:
        """Seal a record's worth, unless the one before is still here."""
        self.flush()
        if self._unsent:
            raise BlockingIOError
        size = self.tls.write(data[:16_384])
        self._unsent += self._out.read()
        self._unsent = self._unsent[self.sock.send(self._unsent[: self.slice]) :]
        return size

    @property
    def unsent(self) -> bytes:
        """What the kernel has not taken yet."""
        return self._unsent

    @property
    def was_told(self) -> bool:
        """A write was told of a reset."""
        return self._reset is not None

    @property
    def has_finished(self) -> bool:
        """The close_notify and the FIN are with the kernel."""
        return self._told

    def put(self, record: bytes) -> None:
        """Send what was sealed, or as soon as the kernel takes it."""
        self._unsent += record
        self.flush()

    def sendall(self, data: bytes) -> None:
        """Seal all of it."""
        while data:
            data = data[self.tls.write(data) :]
        self.flush()

    def sealed(self, data: bytes) -> bytes:
        """Return what sending it would put on the wire."""
        while data:
            data = data[self.tls.write(data) :]
        return self._out.read()

    def close_notify(self) -> bytes:
        """Return one."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self._out.read()

    def shutdown(self, how: int) -> None:
        """Send a close_notify and a FIN."""
        assert how == socket.SHUT_WR
        self._unsent += self._out.read() + self.close_notify()
        self._fin = True
        self.flush()

    def close(self) -> None:
        """Close, with a close_notify before."""
        if self.sock.fileno() >= 0:
            if not self._fin and not self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)[0]:
                self.shutdown(socket.SHUT_WR)
            self.sock.close()

    def truncate(self) -> None:
        """Send a FIN and nothing before, neither a close_notify nor what the kernel has not taken."""
        self._unsent, self._fin = b"", False
        with contextlib.suppress(OSError):  # the other side has reset it
            self.sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Reset, with nothing before."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # -- receiving

    def _take(self) -> bool:
        """Take what has come, up to a record's worth; return whether there was anything.

        A write that was told of a reset says nothing of what had come before that.
        """
        if self._raw_end:
            return False
        try:
            piece = self.sock.recv(16_384)
        except BlockingIOError:
            return False
        except ConnectionResetError as error:
            self._reset, self._raw_end = error, True
            return False
        self._raw_end = not piece
        self._in.write(piece)
        return bool(piece)

    def _decrypt(self) -> bool:
        """Have a record decrypted; return whether there was one."""
        try:
            piece = self.tls.read(65536)
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLZeroReturnError:
            piece = b""
        self._closed = not piece
        self._plain += piece
        return bool(piece)

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what was in the session; no more is taken from the kernel than that needs.

        Raises:
            TruncatedError: A FIN without a close_notify.
            ConnectionResetError: A reset; what came before it was returned before.
        """
        self.flush()
        while len(self._plain) < size and not self._closed and (self._decrypt() or self._take()):
            pass
        self.flush()
        if self._plain or self._closed:
            data = self._plain[:size]
            if not flags & socket.MSG_PEEK:
                self._plain = self._plain[size:]
            return data
        if self._raw_end:
            raise TruncatedError if self._reset is None else self._reset
        raise BlockingIOError


class TlsRig(Rig):
    """A rig whose flows have TLS.

    Args:
        clock: As Rig.
        authority: Signs what both ends have.
        mode: Of MODES.
        version: `TLSv1_2` or `TLSv1_3`.
    """

    def __init__(
        self,
        clock: FakeClock,
        authority: CertificateAuthority,
        mode: str,
        version: str = "TLSv1_3",
        **options: Any,
    ) -> None:
        self.peers: list[TlsPeer] = []
        self.channel_class = Channel
        """Of what `pair` begins to backends."""
        if mode != "client":  # so that who has shaken hands waits in the queue, for `pair` to take it out
            options["limits"] = {"per_backend": 1, "queue": 10_000, "queue_timeout": "1h"}
        self.mode = mode
        super().__init__(clock, **options)
        pair = authority.issue(NAME)
        self.theirs, self.ours = authority.client_context(), authority.server_context(pair)
        for context in (self.theirs, self.ours):
            harden(context)
            context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        if mode != "backend":
            self.service.tls = SimpleNamespace(context=self.ours)
        if mode != "client":
            backend = self.backend()
            backend.own = backend.cells[backend.row] = 1

    def step(self) -> None:
        """Have the far ends send what they have to, then handle events."""
        for peer in self.peers:
            if peer.sock.fileno() >= 0:
                peer.flush()
        super().step()

    def settle(self) -> None:
        """The same until there is nothing left."""
        for peer in self.peers:
            if peer.sock.fileno() >= 0:
                peer.flush()
        super().settle()

    def secure(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool) -> TlsPeer:
        """Put TLS on a socket of the test's."""
        peer = TlsPeer(sock, context, server_side=server_side)
        self.peers.append(peer)
        return peer

    def speaking(self, **options: Any) -> TlsPeer:
        """Connect a client that has not said anything yet."""
        return self.secure(self.client(**options), self.theirs, server_side=False)

    def pair(self, **options: Any) -> tuple[Any, Any]:
        """Return a client and its backend's connection, relaying."""
        client: Any = self.client(**options)
        if self.mode != "backend":
            client = self.secure(client, self.theirs, server_side=False)
            self.until(client.handshake, "the client's handshake")
        if self.mode == "client":
            return client, self.ends[0].accept()
        self.until(self.service.queue.peek, "the client to wait for a backend")
        return client, self._join(self.service.queue.pop())

    def _join(self, flow: Flow) -> TlsPeer:
        """Do what a connector does for a flow: dial, shake hands, relay."""
        flow.waiting = None
        self.reactor.wheel.cancel(flow)
        sock = socket.create_connection(("127.0.0.1", self.ends[0].port), 10)
        server = self.secure(self.ends[0].accept(), self.ours, server_side=True)
        sock.setblocking(False)
        channel = self.channel_class(self.theirs, False, NAME)
        channel.handshake(b"")
        done = False
        while not done or not channel.is_open:
            with contextlib.suppress(BlockingIOError):
                sock.sendall(channel.outgoing())
                done = server.handshake()
                data = sock.recv(65536)
                if channel.is_open:
                    channel.early += bytes(channel.receive(data))
                else:
                    channel.handshake(data)
        backend = self.backend()
        flow.backend, flow.place = backend, backend.spec.address
        if not flow.admitted:
            self.service.own = self.service.cells[self.service.row] = self.service.own + 1
            flow.admitted = True
        backend.own = backend.cells[backend.row] = backend.own + 1
        flow.relay(backend, adopted(sock), UNWATCHED, False, channel)
        return server

    def check_accounts(self) -> None:
        """As Rig, but for the place that is taken so that clients wait."""
        if self.mode != "client":
            backend = self.backend()
            backend.own = backend.cells[backend.row] = backend.own - 1
        super().check_accounts()


@contextlib.contextmanager
def tls_rigged(
    authority: CertificateAuthority, mode: str, version: str = "TLSv1_3", **options: Any
) -> Iterator[TlsRig]:
    """Run a rig with TLS on a clock of its own."""
    rig = TlsRig(FakeClock(), authority, mode, version, **options)
    try:
        yield rig
    finally:
        rig.close()
