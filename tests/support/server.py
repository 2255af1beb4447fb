"""A socket server for tests: one thread with one event loop, sockets without transports.

Handlers are coroutines over raw non-blocking sockets, so that a test decides what the kernel is asked for:
when a FIN is sent, when a RST, and what is left unread. Everything public is called from the test's thread.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import fcntl
import socket
import struct
import sys
import termios
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import HeldPort
from tests.support.wait import DEADLINE_S


class Connection:
    """One accepted (or dialled) connection, in its server's event loop."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = 0
        self.sent = 0
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def recv(self, size: int = 65536) -> bytes:
        """Return what has come, at most `size` bytes; nothing after the peer's FIN."""
        data = await self._loop.sock_recv(self.sock, size)
        self.received += len(data)
        return data

    async def recv_exactly(self, size: int) -> bytes:
        """Return `size` bytes, or fewer if the peer ends before."""
        data = bytearray()
        while len(data) < size and (piece := await self.recv(size - len(data))):
            data += piece
        return bytes(data)

    async def recv_to_end(self) -> bytes:
        """Return everything up to the peer's FIN."""
        data = bytearray()
        while piece := await self.recv():
            data += piece
        return bytes(data)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield each line without its newline, and at the end what follows the last newline, if anything."""
        rest = b""
        while piece := await self.recv():
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line
        if rest:
            yield rest

    async def send(self, data: bytes) -> None:
        """Hand all of `data` to the kernel."""
        await self._loop.sock_sendall(self.sock, data)
        self.sent += len(data)

    async def wait_readable(self) -> None:
        """Return when there is something to read, and leave it there."""
        readable = self._loop.create_future()

        def now() -> None:
            if not readable.done():
                readable.set_result(None)

        self._loop.add_reader(self.sock, now)
        try:
            await readable
        finally:
            self._loop.remove_reader(self.sock)

    async def wait_acknowledged(self) -> None:
        """Return when the peer's kernel has everything that was sent: only then does a RST lose nothing."""
        outstanding = bytearray(4)
        while True:
            fcntl.ioctl(self.sock, termios.TIOCOUTQ, outstanding)
            if not any(outstanding):
                return
            await asyncio.sleep(0.001)  # the kernel has no event for it

    def end(self) -> None:
        """Send a FIN, and stay ready to read."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with a RST."""
        self.reset_on_close()
        self.sock.close()

    def reset_on_close(self) -> None:
        """Let the coming `close` send a RST whatever has been read."""
        with contextlib.suppress(OSError):  # closed already
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Close; the kernel sends a RST if something is unread, else a FIN."""
        self.sock.close()


class Server:
    """Accepts connections and runs `serve` for each; a base class.

    The port is held from the constructor until `close`, so a server can come up after its address is known,
    die, and return on the same one.

    Args:
        name: What it calls itself in answers; default: the class's name.
        host: An IPv4 or IPv6 address.
        port: 0 for any.
        unix: Listen on this path instead.
        backlog: Of the listening socket.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        unix: Path | None = None,
        backlog: int = 1024,
    ) -> None:
        self.name = name or type(self).__name__.lower()
        self.unix = unix
        self._held = None if unix else HeldPort(host, port)
        self.host = "" if unix else host
        self.port = self._held.port if self._held else 0
        self._backlog = backlog
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Future[bool] | None = None
        self._listener: socket.socket | None = None
        self._open: dict[asyncio.Task[None], Connection] = {}
        self._accepted = 0
        self._failed = 0
        self._connections_cut = 0
        self._crashes: list[BaseException] = []

    # What a subclass says.

    accepts = True
    """False: connections wait in the kernel's queue for ever."""

    async def serve(self, connection: Connection) -> None:
        """Serve one connection; it is closed on return. An `OSError` ends only this connection."""
        raise NotImplementedError

    # What a test asks.

    @property
    def address(self) -> str:
        """As it is written in lb.yaml: `127.0.0.1:5001`, `[::1]:5001` or `unix:/path`."""
        return f"unix:{self.unix}" if self._held is None else self._held.address

    @property
    def accepted(self) -> int:
        """Connections accepted since the constructor."""
        return self._accepted

    @property
    def active(self) -> int:
        """Connections being served now."""
        return len(self._open)

    @property
    def reset_by_peer(self) -> int:
        """Connections that ended with an error: mostly a RST."""
        return self._failed

    @property
    def connections_cut(self) -> int:
        """Connections that `kill` has reset, those included that waited to be accepted."""
        return self._connections_cut

    def queued(self) -> int:
        """Connections that are complete and not accepted yet."""
        if self._listener is None:
            return 0
        # struct tcp_info: for a listening socket, tcpi_unacked is the length of its accept queue
        info = self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
        return int.from_bytes(info[24:28], sys.byteorder)

    def wait_until(self, holds: Callable[[], object], what: str = "the condition") -> None:
        """Return as soon as `holds()`; it is asked again whenever a connection comes, goes or sends.

        Raises:
            AssertionError: It did not within `DEADLINE_S`.
        """
        with self._changed:
            if not self._changed.wait_for(holds, timeout=DEADLINE_S):
                msg = (
                    f"{self.name}: {what} did not come true (accepted {self.accepted}, active {self.active})"
                )
                raise AssertionError(msg)

    def wait_accepted(self, count: int) -> None:
        """Return once `count` connections have been accepted in all."""
        self.wait_until(lambda: self.accepted >= count, f"{count} accepted")

    def wait_active(self, count: int) -> None:
        """Return once exactly `count` connections are open."""
        self.wait_until(lambda: self.active == count, f"{count} active")

    def start(self) -> Self:
        """Listen; nothing if it does already."""
        if self._thread is not None:
            return self
        listener = self._listen()
        self._loop = asyncio.SelectorEventLoop()
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._loop, listener, ready), name=f"server {self.name}", daemon=True
        )
        self._thread.start()
        ready.wait()
        return self

    def refuse(self) -> None:
        """Stop listening; the connections in place go on."""
        self._do(self._stop_listening)

    def listen_again(self) -> None:
        """Listen again after `refuse`."""
        self._do(lambda: self._start_listening(self._listen()))

    def _do(self, what: Callable[[], None]) -> None:
        """Do something in the server's thread, and wait for its end."""
        if self._loop is not None:
            done: concurrent.futures.Future[None] = concurrent.futures.Future()

            def do() -> None:
                try:
                    what()
                except OSError as error:
                    done.set_exception(error)
                else:
                    done.set_result(None)

            self._loop.call_soon_threadsafe(do)
            done.result(DEADLINE_S)

    def stop(self) -> None:
        """Stop listening and close every connection in the usual way."""
        self._end(reset=False)

    def kill(self) -> None:
        """Stop listening and reset every connection, as a machine does whose process was killed."""
        self._end(reset=True)

    def close(self) -> None:
        """Stop, give the port back, and raise what went wrong inside a handler, if anything did."""
        self._end(reset=True)
        if self._held is not None:
            self._held.release()
        if self._crashes:
            raise self._crashes.pop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # The thread.

    def note(self) -> None:
        """Wake up who waits in `wait_until`; for handlers that count something of their own."""
        with self._changed:
            self._changed.notify_all()

    def _listen(self) -> socket.socket:
        if self.unix is not None:
            self.unix.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            listener.bind(str(self.unix))
        else:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.host, self.port))
        listener.listen(self._backlog)
        listener.setblocking(False)
        return listener

    def _run(self, loop: asyncio.AbstractEventLoop, listener: socket.socket, ready: threading.Event) -> None:
        try:
            loop.run_until_complete(self._main(listener, ready))
        finally:
            loop.close()

    async def _main(self, listener: socket.socket, ready: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        self._ending = loop.create_future()
        self._start_listening(listener)
        ready.set()
        reset = await self._ending
        waiting = 0 if self.unix is not None else self.queued()
        self._stop_listening()
        left = list(self._open.items())
        if reset:
            self._connections_cut += len(left) + waiting
        for task, connection in left:
            if reset:
                connection.reset_on_close()
            task.cancel()
        await asyncio.gather(*(task for task, _ in left), return_exceptions=True)
        for _, connection in left:
            connection.close()  # a task that was cancelled before its first step has closed nothing
        self._open.clear()
        self.note()

    def _start_listening(self, listener: socket.socket) -> None:
        self._stop_listening()
        self._listener = listener
        if self.accepts:
            asyncio.get_running_loop().add_reader(listener, self._accept)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        while self._listener is not None:
            try:
                sock, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                break
            self._accepted += 1
            connection = Connection(sock)
            self._open[asyncio.create_task(self._attend(connection))] = connection
        self.note()

    async def _attend(self, connection: Connection) -> None:
        task = asyncio.current_task()
        try:
            await self.serve(connection)
        except OSError:
            self._failed += 1
        except Exception as error:  # noqa: BLE001 - a bug in a handler is the test's to see: `close` raises it
            self._crashes.append(error)
        finally:
            connection.close()
            if task is not None:
                self._open.pop(task, None)
            self.note()

    def _end(self, *, reset: bool) -> None:
        if self._thread is None or self._loop is None:
            return

        def finish() -> None:
            if self._ending is not None and not self._ending.done():
                self._ending.set_result(reset)

        self._loop.call_soon_threadsafe(finish)
        self._thread.join(DEADLINE_S)
        alive = self._thread.is_alive()
        self._thread = self._loop = self._ending = None
        if alive:
            msg = f"{self.name}: its thread did not end"
            raise AssertionError(msg)
