"""One active check: connect, exchange a few bytes, judge, leave cleanly.

A probe knocks every two seconds, so it must not fill the backend's log with resets: what is there is read before
the connection is closed, else the kernel would turn the close into a reset (RFC 1122, 4.2.2.13). For `tcp` and
`expect` a FIN goes first. For `http` the answer is read first, as a server may take an early FIN for a client that
has gone, and cancel the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from dataplane.core.health import Outcome
from dataplane.core.http_status import http_status
from dataplane.core.proxy_protocol.v1 import encode_v1
from dataplane.core.proxy_protocol.v2 import encode_v2
from dataplane.core.spec import CheckType, ProxySend
from dataplane.errors import LocalError, NowhereError
from dataplane.net.dialer import BUSY, share_s
from dataplane.net.probe_connection import Connection
from dataplane.net.sockopts import LOCAL_ERRNOS, error_text, to_sockaddr
from dataplane.net.tls_failure import NAMELESS, certificate_times, failure_words

if TYPE_CHECKING:
    from dataplane.core.spec import ActiveCheckSpec
    from dataplane.net.backend_tls import BackendTls
    from dataplane.net.sockopts import SocketAddress

EXPECT_BYTES: Final = 64 * 1024
"""How much of an answer `expect` looks at."""
HEAD_BYTES: Final = 16 * 1024
"""Where the final HTTP status line must have come by; servers and proxies cap whole heads at 8 to 32 KiB."""
SHOWN_CHARACTERS: Final = 64
OBJECTION_S: Final = 0.5
"""How long a `tls` check waits for a backend that objects to our certificate, or to none: with TLS 1.3 it does so only
after our side's handshake is over (RFC 8446, 4.4.2.4)."""
KNOCK_S: Final = 0.01
"""How often a check that finds the accept queue of a Unix socket full tries again."""

_INTERFACE: Final = re.compile(r"%[^]]*\]")
_SAFE: Final = "/?&=:@!$'()*+,;[]%"
"""Beside letters, digits and `-._~`: what stands as it is in a request target or Host. The rest, above all spaces
and line ends, is escaped."""
_RESETS: Final = frozenset({errno.EPIPE, errno.ENOTCONN})
"""What a call gets on a connection that was reset before it, while another got ECONNRESET."""


@dataclass(frozen=True, slots=True)
class CheckTls:
    """How TLS to one backend begins."""

    source: BackendTls
    """Has the context of the moment."""
    server_name: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """One backend and how it is checked."""

    service: str
    backend_id: str
    address: str
    """`host:port`, `[v6]:port` or `unix:/path`."""
    check: ActiveCheckSpec
    proxy: ProxySend
    tls: CheckTls | None = None
    """None: the check is not over TLS."""


Locate = Callable[[Target], Awaitable[Sequence["SocketAddress"]]]
"""Tells where a backend is (see `Probe`)."""


class _FailedError(Exception):
    """The check failed for a reason that no OSError tells; its text is the cause."""


async def _literal(target: Target) -> tuple[SocketAddress, ...]:
    address = to_sockaddr(target.address)
    return () if address is None else (address,)


class Probe:
    """The check of one target: prepared once, run again and again, but not twice at the same time.

    Args:
        target: What to check; its type is not `none`.
        locate: Tells where the backend is: the addresses that clients are connected to, in their order. It waits
            until that is known; none: there is nothing to check.
        on_reached: Told the address that has accepted, where one before it did not.
    """

    __slots__ = (
        "_certificate",
        "_connection",
        "_elsewhere",
        "_exchange",
        "_locate",
        "_on_reached",
        "_request",
        "_stage",
        "target",
    )

    def __init__(
        self,
        target: Target,
        *,
        locate: Locate | None = None,
        on_reached: Callable[[Target, SocketAddress], None] | None = None,
    ) -> None:
        self.target = target
        check = target.check
        address = target.address
        if check.port is not None and not address.startswith("unix:"):
            address = f"{address.rpartition(':')[0]}:{check.port}"
        self._elsewhere = address != target.address
        """Whether the check asks another port than clients do."""
        self._locate = locate or _literal
        self._on_reached = on_reached or (lambda _target, _address: None)
        self._request = _http_request(check, address) if check.type is CheckType.HTTP else check.expect_send
        self._exchange = {
            CheckType.HTTP: self._http,
            CheckType.EXPECT: self._expect,
            CheckType.TLS: self._wait_objection,
        }.get(check.type)
        self._connection: Connection | None = None
        self._certificate = 0.0, 0.0
        """When the backend's ends, and from when on that is worth a word."""
        self._stage = "connect"

    async def run(self) -> tuple[Outcome, Connection | None]:
        """Probe once, within the check's timeout.

        Returns:
            What was found, and the connection (None if there was none), which the caller leaves or closes.

        Raises:
            LocalError: This machine could not probe; nothing is open.
            NowhereError: It is not known where the backend is, or it must not be called; nothing is open.
        """
        self._connection = None
        self._stage = "connect"
        try:
            outcome = await self._judge()
            if not outcome.ok and self._elsewhere:
                outcome = replace(outcome, reachable=await self._is_reachable())
        except BaseException:  # cancellation too must leave nothing open
            if self._connection is not None:
                self._connection.close()
            raise
        return outcome, self._connection

    async def _is_reachable(self) -> bool:
        """Tell whether clients can connect, where the check has asked another port: that tells nothing of theirs."""
        check = replace(self.target.check, type=CheckType.TCP, port=None)
        outcome, connection = await Probe(
            replace(self.target, check=check, tls=None), locate=self._locate
        ).run()
        if connection is not None:
            connection.leave_nowait()
        return outcome.ok

    async def _judge(self) -> Outcome:
        try:
            async with asyncio.timeout(self.target.check.timeout_s) as limit:
                self._stage = "name"
                addresses = await self._locate(self.target)
                self._stage = "connect"
                connection = self._connection = await self._connect(addresses, limit.when() or 0.0)
                await self._greet(connection)
                if self.target.tls is not None:
                    self._stage = "tls"
                    await self._begin_tls(connection, self.target.tls)
                if self._exchange is not None:
                    self._stage = self.target.check.type.value
                    await self._exchange(connection)
        except _FailedError as failed:
            return self._failed(str(failed))
        except TimeoutError as error:  # ETIMEDOUT is one as well, and means the same
            if self._stage == "name":
                raise NowhereError from error
            return self._failed(self._late())
        except ssl.SSLError as error:
            return self._failed(f"tls: {failure_words(error)}")
        except OSError as error:
            code = error.errno or 0
            if code in LOCAL_ERRNOS:
                raise LocalError(error_text(code)) from error
            return self._failed(error_text(errno.ECONNRESET if code in _RESETS else code))
        ends, due = self._certificate
        return Outcome(ok=True, cause="ok", certificate_ends=ends, certificate_due=due)

    def _failed(self, cause: str) -> Outcome:
        reached = self._connection is not None or self._stage == "busy"  # who is busy is there
        return Outcome(ok=False, cause=cause, reachable=reached)

    def _late(self) -> str:
        """Say what the time ran out on; a backend that did not answer is no longer waited for."""
        connection = self._connection
        if connection is not None:
            connection.finish_first = True
            if connection.received:
                return f"{self._stage}: got '{excerpt(connection.received)}'"
        return error_text(BUSY) if self._stage == "busy" else f"{self._stage} timeout"

    async def _connect(self, addresses: Sequence[SocketAddress], deadline: float) -> Connection:
        """Connect to the first address that accepts, as a client's connection does (net.dialer).

        Args:
            addresses: Where clients are connected to.
            deadline: When the probe's time is over, by the loop's clock.

        Raises:
            OSError: None of them does.
        """
        failure: OSError | None = None
        for position, address in enumerate(addresses):
            others = len(addresses) - position - 1
            try:
                sock = await self._connected(address, deadline, others)
            except OSError as error:
                if failure is None or failure.errno in LOCAL_ERRNOS:
                    failure = error
                continue
            if position and not self._elsewhere:
                self._on_reached(self.target, address)
            return Connection(sock, finish_first=self.target.check.type is not CheckType.HTTP)
        raise failure or NowhereError

    async def _connected(self, address: SocketAddress, deadline: float, others: int) -> socket.socket:
        if self.target.check.port is not None:
            address = address.at_port(self.target.check.port)
        sock = socket.socket(address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        left_s = deadline - asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(share_s(left_s, others) if others else None):
                await self._connect_socket(sock, address.family, address.sockaddr)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _connect_socket(self, sock: socket.socket, family: int, sockaddr: Any) -> None:
        """Connect a non-blocking socket; raises OSError."""
        if family != socket.AF_UNIX:
            if len(sockaddr) > 2:  # noqa: PLR2004 - a scope id, which uvloop forgets unless it stands in the host
                sockaddr = (f"{sockaddr[0]}%{sockaddr[3]}", sockaddr[1])
            await asyncio.get_running_loop().sock_connect(sock, sockaddr)
            if sock.getsockname() == sock.getpeername():
                # A simultaneous open (RFC 9293, 3.5): with no listener, a local port of the ephemeral range can be
                # connected to itself.
                raise ConnectionRefusedError(errno.ECONNREFUSED, "connected to itself")
            return
        # loop.sock_connect would take EAGAIN for EINPROGRESS, and then for success. It means a full accept queue, and
        # nothing tells when there is room again (net.dialer, rule 2).
        while (code := sock.connect_ex(sockaddr)) == BUSY:
            self._stage = "busy"
            await asyncio.sleep(KNOCK_S)
        self._stage = "connect"
        if code:
            raise OSError(code, error_text(code))

    async def _greet(self, connection: Connection) -> None:
        """Send the PROXY header that the backend expects."""
        if self.target.proxy is ProxySend.V2:
            await connection.send(encode_v2(None, None))
        elif self.target.proxy is ProxySend.V1:
            await connection.send(encode_v1(*connection.endpoints()))

    async def _begin_tls(self, connection: Connection, tls: CheckTls) -> None:
        """Do the handshake, and note when the backend's certificate ends."""
        context = tls.source.context
        if context.check_hostname and not tls.server_name:
            raise _FailedError(f"tls: {NAMELESS}")
        await connection.begin_tls(context, tls.server_name)
        if connection.tls is not None:
            self._certificate = certificate_times(connection.tls)

    async def _wait_objection(self, connection: Connection) -> None:
        """End a connection of TLS 1.3, and see whether the backend refuses it (OBJECTION_S)."""
        if connection.tls is None or connection.tls.version() != "TLSv1.3":
            return
        connection.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OBJECTION_S):
                while len(connection.received) < EXPECT_BYTES and await connection.receive():
                    pass

    async def _http(self, connection: Connection) -> None:
        await connection.send(self._request)
        while (status := http_status(connection.received)) is None:
            if len(connection.received) >= HEAD_BYTES or not await connection.receive():
                break
        if not status:
            connection.finish_first = True  # no request is under way that a FIN could cancel
            raise _FailedError(_unanswered("http", connection.received))
        if not any(first <= status <= last for first, last in self.target.check.http_status):
            raise _FailedError(f"http status {status}")

    async def _expect(self, connection: Connection) -> None:
        if self._request:
            await connection.send(self._request)
        wanted, received = self.target.check.expect_expect, connection.received
        seen = 0
        # What was looked at is not looked at again, but for an answer that began in its last bytes.
        while received.find(wanted, max(0, seen - len(wanted)), EXPECT_BYTES) < 0:
            seen = len(received)
            if seen >= EXPECT_BYTES or not await connection.receive():
                raise _FailedError(_unanswered("expect", received))
        with contextlib.suppress(OSError):  # it has answered: how it takes a goodbye is its own affair
            await connection.send(self.target.check.expect_quit)


def excerpt(data: bytes | bytearray) -> str:
    """Show what a backend sent: at most 64 characters, all printable, whatever it was."""
    text = bytes(data[: 4 * SHOWN_CHARACTERS]).decode("utf-8", "backslashreplace")
    shown = (char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)
    return "".join(shown)[:SHOWN_CHARACTERS]


def _unanswered(stage: str, received: bytearray) -> str:
    return f"{stage}: got '{excerpt(received)}'" if received else f"{stage}: connection closed"


def _http_request(check: ActiveCheckSpec, address: str) -> bytes:
    # A network interface means something on this machine only (RFC 9844, section 6).
    host = check.http_host or ("localhost" if address.startswith("unix:") else _INTERFACE.sub("]", address))
    return (
        f"GET {quote(check.http_path, safe=_SAFE)} HTTP/1.1\r\nHost: {quote(host, safe=_SAFE)}\r\n"
        "User-Agent: livelb\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    ).encode("ascii")
