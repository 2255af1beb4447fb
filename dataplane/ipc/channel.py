"""Messages and descriptors between processes of one data plane, over a stream socket that both inherit or connect.

A frame is a header (payload size, number of descriptors), the descriptors on its first byte, and the payload: one
pickled message. A message with more descriptors than one call may pass (SCM_MAX_FD is 253, unix(7)) is preceded by
frames without payload that bring the others. Both ends are this program, run by one user, through a socket pair or
a socket of mode 0600 whose peer was checked: that is why the payload may be a pickle.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from dataplane.errors import PeerError, PeerGone

FDS_A_FRAME: Final = 250
READ_BYTES: Final = 256 * 1024
CROWDED_S: Final = 0.01
"""Wait after ETOOMANYREFS: too many descriptors of this user are under way (unix(7)); the peer is taking them."""
_HEADER: Final = struct.Struct("!IH")
_INT_BYTES: Final = 4


async def refuse(kind: str, body: Any, sockets: list[int], part: Callable[[Any], None]) -> Any:
    """Answer where nothing is asked."""
    del body, part
    for fd in sockets:
        os.close(fd)
    raise LookupError(kind)


class Channel:
    """One end. `run` reads until the peer is gone.

    Args:
        sock: Connected to the peer.
        answer: Answers a request, of which it is given the kind, the body, descriptors, which are its own to close, and
            what sends a part ahead of the result. An exception is the peer's `PeerError`.
        notice: Takes note of something that wants no answer: its kind, and a body.
    """

    def __init__(
        self,
        sock: socket.socket,
        answer: Callable[[str, Any, list[int], Callable[[Any], None]], Awaitable[Any]] = refuse,
        notice: Callable[[str, Any], None] = lambda _kind, _body: None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.closed = asyncio.Event()
        self._reply, self._notice = answer, notice
        self._loop = asyncio.get_running_loop()
        self._out: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._writing = False
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._in = bytearray()
        self._fds: deque[int] = deque()
        self._incoming: list[int] = []
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[asyncio.Future[Any], list[Any]]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Read messages and answer requests until the peer is gone; then everything that waits gets `PeerGone`."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._loop.add_reader(self.sock, self._read)
                await self.closed.wait()
        finally:
            self.close()

    def close(self) -> None:
        """End it."""
        if self.sock.fileno() >= 0:
            self._loop.remove_reader(self.sock)
            self._loop.remove_writer(self.sock)
            self.sock.close()
        for fd in [*self._fds, *self._incoming]:
            os.close(fd)
        self._fds.clear()
        self._incoming.clear()
        self._out.clear()
        self._flushed.set()
        waiting, self._open = self._open, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(PeerGone())
        self.closed.set()

    # -- sending --------------------------------------------------------------------------------------

    def send(self, kind: str, body: Any = None) -> None:
        """Tell the peer something; nothing happens if it is gone."""
        self._send(("notice", 0, kind, body))

    async def request(self, kind: str, body: Any = None, fds: Sequence[int] = ()) -> tuple[Any, list[Any]]:
        """Ask the peer; return the result and the parts that came ahead of it. `fds` must stay open until the answer.

        Raises:
            PeerGone: The peer is gone.
            PeerError: The peer's answer is an error.
        """
        if self.closed.is_set():
            raise PeerGone
        number = next(self._numbers)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._open[number] = (future, [])
        parts = self._open[number][1]
        try:
            self._send(("request", number, kind, body), fds)
            return await future, parts
        finally:
            self._open.pop(number, None)

    def _send(self, message: tuple[Any, ...], fds: Sequence[int] = ()) -> None:
        if self.closed.is_set():
            return
        payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        cut = (len(fds) - 1) // FDS_A_FRAME * FDS_A_FRAME if fds else 0
        for start in range(0, cut, FDS_A_FRAME):
            some = fds[start : start + FDS_A_FRAME]
            self._out.append((memoryview(_HEADER.pack(0, len(some))), some))
        rest = fds[cut:]
        self._out.append((memoryview(_HEADER.pack(len(payload), len(rest)) + payload), rest))
        self._flushed.clear()
        if not self._writing:
            self._write()

    def _write(self) -> None:
        while self._out and not self.closed.is_set():
            data, fds = self._out[0]
            try:
                sent = socket.send_fds(self.sock, [data], list(fds)) if fds else self.sock.send(data)
            except BlockingIOError:
                self._writing = True
                self._loop.add_writer(self.sock, self._write)
                return
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    self._out.clear()  # the reader sees the end
                    break
                self._writing = True
                self._loop.call_later(CROWDED_S, self._write)
                return
            if sent == len(data):
                self._out.popleft()
            else:
                self._out[0] = (data[sent:], ())
        if self._writing and self.sock.fileno() >= 0:
            self._loop.remove_writer(self.sock)
        self._writing = False
        self._flushed.set()

    # -- receiving ------------------------------------------------------------------------------------

    def _read(self) -> None:
        try:
            data, ancillary, flags, _ = self.sock.recvmsg(
                READ_BYTES, socket.CMSG_SPACE(FDS_A_FRAME * _INT_BYTES), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary, flags = b"", [], 0
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                self._fds.extend(
                    struct.unpack(f"{len(content) // _INT_BYTES}i", content[: len(content) // 4 * 4])
                )
        if not data or flags & socket.MSG_CTRUNC:
            # cut off: this process has no descriptor left for what was sent, and the peer must not think otherwise
            self.close()
            return
        self._in += data
        self._parse()

    def _parse(self) -> None:
        while len(self._in) >= _HEADER.size and not self.closed.is_set():
            size, count = _HEADER.unpack_from(self._in)
            if len(self._in) < _HEADER.size + size:
                return
            payload = bytes(self._in[_HEADER.size : _HEADER.size + size])
            del self._in[: _HEADER.size + size]
            self._incoming.extend(self._fds.popleft() for _ in range(count))
            if size:
                fds, self._incoming = self._incoming, []
                self._take(pickle.loads(payload), fds)  # noqa: S301 - see the module's docstring

    def _take(self, message: tuple[Any, ...], fds: list[int]) -> None:
        word, number, *rest = message
        if word == "notice":
            self._notice(*rest)
        elif word == "request":
            assert self._group is not None  # noqa: S101 - run() made it before it reads
            self._group.create_task(self._answer(number, rest[0], rest[1], fds))
        elif number in self._open:
            future, parts = self._open[number]
            if word == "part":
                parts.append(rest[0])
            elif not future.done():
                if word == "done":
                    future.set_result(rest[0])
                else:
                    future.set_exception(PeerError(rest[0]))

    async def _answer(self, number: int, kind: str, body: Any, fds: list[int]) -> None:
        def part(data: Any) -> None:
            self._send(("part", number, data))

        try:
            result = await self._reply(kind, body, fds, part)
        except Exception as error:  # noqa: BLE001 - across the process border an error is a value
            self._send(("failed", number, f"{type(error).__name__}: {error}"))
        else:
            self._send(("done", number, result))

    async def flush(self, within_s: float) -> None:
        """Wait until what was sent is with the kernel, but no longer than `within_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._flushed.wait()
