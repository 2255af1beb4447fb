"""Workers as processes, forked from one that has loaded what they run (`dataplane.worker.fork_server`).

The first one is there when this process begins (`begin` there), or is started with the first worker. Should it be killed, workers that it has forked serve on, and the next one that is
asked for is forked from a new one; how those of the former one end, nobody can tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from dataplane.errors import PeerGone

START_S: Final = 30.0
"""One that does not answer for so long hangs; it may have to load everything first."""
_MESSAGE_BYTES: Final = 32
_ROOT: Final = str(Path(__file__).resolve().parents[2])
"""Where this program is, so that a worker is the same one whatever the working directory holds."""


class ForkServer:
    """The process, as its supervisor has it: it answers one question at a time.

    `begun`: the pid and the socket of one that was forked from this process.
    """

    def __init__(self, begun: tuple[int, socket.socket] | None = None) -> None:
        self._asking = asyncio.Lock()
        self._orders: socket.socket | None = None
        self._process: asyncio.subprocess.Process | _Child | None = None
        if begun is not None:
            pid, self._orders = begun
            self._process = _Child(pid)
        self._forked = 0
        """Workers whose end has not been asked for."""
        self._is_retired = False

    async def fork(self, channel: socket.socket) -> Forked:
        """Start a worker that has the other end of its channel.

        Raises:
            PeerGone: The server died before it could.
            OSError: There can be no such process.
        """
        async with self._asking:
            try:
                pid = await self._ask(b"fork", [channel.fileno()])
            except PeerGone:
                await self._start()
                pid = await self._ask(b"fork", [channel.fileno()])
            if pid < 0:
                raise OSError(-pid, os.strerror(-pid))
            self._forked += 1
            try:
                return Forked(self, pid, self._orders)
            except OSError:
                os.kill(pid, signal.SIGKILL)
                await self._end_of(pid)
                raise

    async def status(self, pid: int, asked: socket.socket | None) -> int | None:
        """Return how a worker ended that was forked when the socket of the server was this one; None: nobody knows."""
        async with self._asking:
            return await self._end_of(pid) if self._orders is asked else None

    async def _end_of(self, pid: int) -> int | None:
        try:
            return await self._ask(str(pid).encode())
        except (PeerGone, OSError):
            return None
        finally:
            self._forked -= 1
            if self._is_retired and not self._forked:
                self._forget()

    def retire(self) -> None:
        """Have it end with the last of its workers; it is asked for none any more."""
        self._is_retired = True
        if not self._forked:
            self._forget()

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path = os.pathsep.join(filter(None, [_ROOT, os.environ.get("PYTHONPATH")]))
        with theirs:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "dataplane.start",
                    str(theirs.fileno()),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "PYTHONPATH": path},
                )
            except BaseException:
                ours.close()
                raise
        ours.setblocking(False)
        self._orders = ours
        self._forked = 0

    async def _ask(self, order: bytes, fds: list[int] | None = None) -> int:
        """Send one message and return the number that comes back; after an error, there is no server any more."""
        orders = self._orders
        if orders is None:
            raise PeerGone
        try:
            socket.send_fds(orders, [order], fds or [])
            async with asyncio.timeout(START_S):
                await _readable(orders.fileno())
            answer = orders.recv(_MESSAGE_BYTES)
        except ConnectionError as error:
            self._forget()
            raise PeerGone from error
        except BaseException:
            self._forget()
            raise
        if not answer:
            self._forget()
            raise PeerGone
        return int(answer)

    def _forget(self) -> None:
        if self._orders is not None:
            self._orders.close()
            self._orders = None

    async def close(self) -> None:
        """End it; its workers go on."""
        self._forget()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()


class _Child:
    """A process that was forked from this one; it is reaped as soon as it ends."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._fd = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._reap)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)
        os.waitpid(self._pid, 0)
        self._ended.set()

    def kill(self) -> None:
        """End it; ProcessLookupError: it has."""
        if self._ended.is_set():
            raise ProcessLookupError
        os.kill(self._pid, signal.SIGKILL)

    async def wait(self) -> None:
        """Wait for its end."""
        await self._ended.wait()


class Forked:
    """One process of it; its pid is nobody else's until `wait` has returned."""

    def __init__(self, server: ForkServer, pid: int, asked: socket.socket | None) -> None:
        self.pid = pid
        self.returncode: int | None = None
        """How it ended, as subprocess has it, once that is known."""
        self._server = server
        self._asked = asked
        self._fd = os.pidfd_open(pid)

    def kill(self) -> None:
        """End it; ProcessLookupError: it has."""
        if self._fd < 0:
            raise ProcessLookupError
        signal.pidfd_send_signal(self._fd, signal.SIGKILL)

    async def wait(self) -> int | None:
        """Wait for its end and return `returncode`; None: nobody knows, since the process that forked it has been killed."""
        try:
            await _readable(self._fd)
        finally:
            os.close(self._fd)
            self._fd = -1
        self.returncode = await self._server.status(self.pid, self._asked)
        return self.returncode


async def _readable(fd: int) -> None:
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(fd, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(fd)
