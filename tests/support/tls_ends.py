"""Contexts of servers and clients, and TLS without a socket: for tests that turn the crank themselves."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataplane.core.spec import BackendTlsSpec
from tests.support.tls import CertificateAuthority


class Certificates:
    """Servers' and clients' contexts with certificates of one authority.

    Args:
        folder: For the files.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = CertificateAuthority(folder / "ca")
        self.stranger = CertificateAuthority(folder / "stranger", "stranger")
        """Whom clients do not trust."""

    def server(
        self, *names: str, expired: bool = False, stranger: bool = False, asks: bool = False
    ) -> ssl.SSLContext:
        """Return a server's context with a certificate for `names`; `asks` for one of the client."""
        authority = self.stranger if stranger else self.authority
        names = names or ("127.0.0.1", "localhost")
        pair = authority.expired(*names) if expired else authority.issue(*names)
        return authority.server_context(pair, client_ca=authority.ca if asks else None)

    def client(self) -> ssl.SSLContext:
        """Return a client's context that verifies."""
        return self.authority.client_context()


@dataclass(eq=False)
class PlainBackendTls:
    """How TLS to backends begins, without files that are renewed (`net.backend_tls.BackendTls`)."""

    context: ssl.SSLContext
    server_name: str | None = "127.0.0.1"
    spec: BackendTlsSpec = field(default_factory=BackendTlsSpec)
    sessions: dict[str, Any] = field(default_factory=dict)

    def server_name_of(self, backend: Any) -> str | None:
        """Return the name of all backends."""
        del backend
        return self.server_name

    def session(self, backend: Any) -> Any:
        """Return the last session with it."""
        return self.sessions.get(backend.id)

    def remember(self, backend: Any, channel: Any) -> None:
        """Keep the session."""
        self.sessions[backend.id] = channel.session


class TlsEnd:
    """A server's (or a client's) TLS session without a socket: `take` says what to send.

    Args:
        context: Whose.
        server_name: Of a client; servers have none.
    """

    def __init__(self, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        is_server = context.protocol == ssl.PROTOCOL_TLS_SERVER
        self.tls = context.wrap_bio(self._in, self._out, server_side=is_server, server_hostname=server_name)
        self.received = bytearray()
        """What was inside."""
        self.established = False
        self.ended = False
        """The other side's close_notify has come."""
        self.failure: ssl.SSLError | None = None

    def take(self, data: bytes) -> bytes:
        """Take what has come from the wire, and return what has to go there."""
        self._in.write(data)
        try:
            if not self.established:
                self.tls.do_handshake()
                self.established = True
            while piece := self.tls.read(65536):
                self.received += piece
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self.failure = error
        return self._out.read()

    def say(self, data: bytes) -> bytes:
        """Return what has to go to the wire to say something."""
        self.tls.write(data)
        return self._out.read()

    def finish(self) -> bytes:
        """Return a close_notify."""
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        return self._out.read()


class TlsSocket:
    """A TLS session over a socket that does not block, in a test that turns a crank.

    Args:
        crank: Handles what the other side has to do.
        sock: Connected.
        end: The session.
    """

    def __init__(
        self, crank: Callable[[Callable[[], object], str], None], sock: socket.socket, end: TlsEnd
    ) -> None:
        self._crank = crank
        self.sock = sock
        self.end = end
        if (
            sock.family != socket.AF_UNIX
        ):  # else what is said last waits for an acknowledgement of what was said before
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.fin = False
        """The other side's FIN has come."""
        if end.tls.server_side is False:
            sock.sendall(end.take(b""))

    def step(self) -> TlsEnd:
        """Take what is there."""
        try:
            while data := self.sock.recv(1 << 20):
                answer = self.end.take(data)
                if answer:
                    self.sock.sendall(answer)
            self.fin = True
        except BlockingIOError:
            pass
        return self.end

    def wait(self) -> bytes:
        """Return what comes next on the wire, cranking meanwhile."""
        got: list[bytes] = []

        def try_it() -> bool:
            with contextlib.suppress(BlockingIOError):
                got.append(self.sock.recv(1 << 20))
            return bool(got)

        self._crank(try_it, "something on the wire")
        return got[0]

    def until(self, holds: Callable[[TlsEnd], object], what: str) -> None:
        """Crank until `holds` of the session."""
        self._crank(lambda: holds(self.step()), what)

    def shake(self) -> TlsSocket:
        """Do the handshake; return itself."""
        self.until(lambda end: end.established or end.failure, "the handshake")
        return self

    def send(self, data: bytes) -> None:
        """Say something."""
        self.sock.sendall(self.end.say(data))

    def receive(self, size: int) -> bytes:
        """Return what was said, cranking meanwhile."""
        self.until(lambda end: len(end.received) >= size or end.ended, f"{size} bytes")
        taken = bytes(self.end.received[:size])
        del self.end.received[:size]
        return taken

    def finish(self) -> None:
        """Send a close_notify."""
        self.sock.sendall(self.end.finish())
