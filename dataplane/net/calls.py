"""The system calls of the connection path, on plain descriptors: nothing here decides anything, and nothing waits.

What a call answers is a number, or an errno as a negative one: an exception costs more than the call that it tells of.
Each descriptor that these calls are given was opened, accepted or adopted here, and `close` ends it; the listening
socket alone is an object of its owner's.

There are two forms with the same signatures, and one test suite for both: this module, which keeps a socket object for
each descriptor, and calls.pyx, which needs none. Only here does it matter whether the code is compiled.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import time
from typing import Final, TypeAlias

BUFFER_BYTES: Final = 512 * 1024
"""The one buffer that all reads share. Bulk to a client, in GB/s, on one day, beside HAProxy's 1.1: 1.5 with 128 KiB, 1.5
with 256 KiB and 2.0 with 512 KiB. Only legs whose peers keep up read so much at once."""
SHORT: Final = -1_000_000
"""What `pump` answers when not everything could be sent; `last_short` knows more."""
NOBODY: Final = -1
"""Instead of a descriptor: what is read is discarded."""
NOTHING: Final = -errno.EAGAIN
"""There is nothing to read now, or no room to write."""

IN: Final = select.EPOLLIN
OUT: Final = select.EPOLLOUT
ERR: Final = select.EPOLLERR
RDHUP: Final = select.EPOLLRDHUP
"""The peer has finished; poll() and epoll have the same number for it."""
UNWATCHED: Final = -1
"""Instead of what epoll reports of a descriptor: it is not in there."""

Address: TypeAlias = tuple[str, int] | None
"""A peer's (IP, port); None on a Unix socket."""

monotonic = time.monotonic
"""The time in seconds."""

_DONTWAIT: Final = int(socket.MSG_DONTWAIT)
"""A plain number: `|` of the socket module's flags is a call into Python. Each call says it, so that an accepted socket
needs no ioctl to become non-blocking."""
_STREAM: Final = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_PEEK: Final = _DONTWAIT | int(socket.MSG_PEEK)
_TCP: Final = int(socket.IPPROTO_TCP)
_NODELAY: Final = int(socket.TCP_NODELAY)
_RESET: Final = struct.pack("ii", 1, 0)
_UNIX: Final = int(socket.AF_UNIX)
_INET: Final = int(socket.AF_INET)

_sockets: dict[int, socket.SocketType] = {}
_buffer: Final = memoryview(bytearray(BUFFER_BYTES))
BUFFER: Final = _buffer
"""What `pull` has read is in here, until the next call that reads."""
_short = (0, 0, 0)


def accept(listener: socket.socket, family: int) -> tuple[int, Address]:
    """Accept a client at a listening socket of this family; return its descriptor, or a negative errno, and its address."""
    try:
        # The public accept() builds a Python-level socket and asks for its blocking mode.
        fd, address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
    except OSError as error:
        return -(error.errno or errno.EIO), None
    _sockets[fd] = socket.SocketType(family, socket.SOCK_STREAM, 0, fd)
    return fd, None if family == _UNIX else address if family == _INET else address[:2]


def adopt(fd: int, family: int) -> None:
    """Take over a connected socket's descriptor, which came from elsewhere."""
    _sockets[fd] = socket.SocketType(family, socket.SOCK_STREAM, 0, fd)


def pack(family: int, sockaddr: tuple[str, int] | tuple[str, int, int, int] | str) -> object:
    """Return an address in the form that `dial` and `connect` take; made once for each backend.

    Args:
        family: AF_INET, AF_INET6 or AF_UNIX.
        sockaddr: What connect() takes: literals and numbers, or a path.

    Raises:
        OSError: It is none.
    """
    del family
    return sockaddr


def dial(family: int, packed: object, ceiling: int, check: bool) -> tuple[int, int]:  # noqa: FBT001 - compiled functions have no keyword-only arguments
    """Open a socket that does not block, and begin to connect it.

    Asked a second time, connect() tells whether the handshake is over. On loopback it is, as a rule: that saves the wait
    for epoll.

    Args:
        family: Of the address.
        packed: The address, of `pack`.
        ceiling: A descriptor's number from here on is as good as none: EMFILE.
        check: See whether the socket has met itself.

    Returns:
        The descriptor and 0 if it is connected, EALREADY if that is under way, or what it met; -1 and an errno if no
        socket could be had.
    """
    try:
        sock = socket.SocketType(family, _STREAM, 0)
    except OSError as error:
        return NOBODY, error.errno or errno.ENOBUFS
    fd = sock.fileno()
    if fd >= ceiling:
        sock.close()
        return NOBODY, errno.EMFILE
    _sockets[fd] = sock
    code = connect(fd, packed, check=check)
    if code == errno.EINPROGRESS:
        code = connect(fd, packed, check=check)
    return fd, code


def connect(fd: int, packed: object, check: bool) -> int:  # noqa: FBT001 - compiled functions have no keyword-only arguments
    """Begin to connect, or ask how it went; return 0 or the errno.

    A dial to a port of this machine on which nobody listens can choose that very port as its own and then meet itself
    (simultaneous open, RFC 9293 section 3.5): with `check` that is ECONNREFUSED.
    """
    sock = _sockets[fd]
    code = sock.connect_ex(packed)  # type: ignore[arg-type]
    if code == errno.EISCONN:  # it was over when it was begun
        code = 0
    if check and not code:
        own = sock.getsockname()
        if own[1] == packed[1] and own == sock.getpeername():  # type: ignore[index]
            return errno.ECONNREFUSED
    return code


def pump(source: int, target: int, limit: int, nodelay: bool = False) -> int:  # noqa: FBT001, FBT002 - compiled functions have no keyword-only arguments
    """Read up to `limit` bytes from `source` and write them to `target`, unless that is NOBODY.

    With `nodelay`, and if anything was read, TCP_NODELAY is set for `target` before.

    Returns:
        How many bytes were read and written; 0 at the end; a negative errno of reading; or SHORT: not all was written.
    """
    global _short  # noqa: PLW0603 - the answer that is asked for one time in a thousand
    try:
        size = _sockets[source].recv_into(_buffer, limit, _DONTWAIT)
    except OSError as error:
        return -(error.errno or errno.EIO)
    if not size or target < 0:
        return size
    if nodelay:
        set_option(target, _TCP, _NODELAY, 1)
    code = 0
    try:
        sent = _sockets[target].send(_buffer[:size], _DONTWAIT)
    except BlockingIOError:
        sent = 0
    except OSError as error:
        sent, code = 0, error.errno or errno.EIO
    if sent == size:
        return size
    _short = size, sent, code
    return SHORT


def pull(source: int, limit: int) -> int:
    """Read up to `limit` bytes from `source` into BUFFER; return how many, 0 at the end, or a negative errno."""
    try:
        return _sockets[source].recv_into(_buffer, limit, _DONTWAIT)
    except OSError as error:
        return -(error.errno or errno.EIO)


def last_short() -> tuple[int, int, int]:
    """Return what the last `pump` that was SHORT has read and written, and the errno of writing, 0 if `target` was full."""
    return _short


def unsent() -> bytes:
    """Return what the last `pump` could not write; before the next one."""
    size, sent, _ = _short
    return bytes(_buffer[sent:size])


def send(fd: int, data: bytes | memoryview) -> int:
    """Write; return how many bytes that were, or a negative errno."""
    try:
        return _sockets[fd].send(data, _DONTWAIT)
    except OSError as error:
        return -(error.errno or errno.EIO)


def receive(fd: int, size: int, leave: bool = False) -> tuple[bytes, int]:  # noqa: FBT001, FBT002 - compiled functions have no keyword-only arguments
    """Read up to `size` bytes, and `leave` them where they are or not; return them (none: the end) and 0, or an errno."""
    try:
        return _sockets[fd].recv(size, _PEEK if leave else _DONTWAIT), 0
    except OSError as error:
        return b"", error.errno or errno.EIO


def peek(fd: int) -> int:
    """Return 1 if there is something to read, 0 at the end, or a negative errno: EAGAIN if there is nothing."""
    try:
        return len(_sockets[fd].recv(1, _PEEK))
    except OSError as error:
        return -(error.errno or errno.EIO)


def finish(fd: int) -> None:
    """Half-close; if it was reset meanwhile, reading tells."""
    try:  # noqa: SIM105 - suppress() is three calls, for each connection
        _sockets[fd].shutdown(socket.SHUT_WR)
    except OSError:
        pass


def close(fd: int, reset: bool = False) -> None:  # noqa: FBT001, FBT002 - compiled functions have no keyword-only arguments
    """Close, with a reset instead of a FIN if that is asked for."""
    sock = _sockets.pop(fd)
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    sock.close()


def set_option(fd: int, level: int, name: int, value: int) -> int:
    """Set a socket option that is a number; return 0 or the errno."""
    try:
        _sockets[fd].setsockopt(level, name, value)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def option(fd: int, level: int, name: int) -> int:
    """Return the first byte of a socket option, or a negative errno."""
    try:
        return _sockets[fd].getsockopt(level, name, 1)[0]
    except OSError as error:
        return -(error.errno or errno.EIO)


def own_name(fd: int) -> Address:
    """Return the address of this side: (IP, port), or None on a Unix socket."""
    name = _sockets[fd].getsockname()
    return (name[0], name[1]) if isinstance(name, tuple) else None


class Epoll:
    """An epoll that keeps the events that it has told of, until it is asked for others."""

    __slots__ = ("_batch", "_epoll", "close", "fileno", "modify", "register", "unregister")

    def __init__(self) -> None:
        self._epoll = epoll = select.epoll()
        self._batch: list[tuple[int, int]] = []
        self.close, self.fileno = epoll.close, epoll.fileno
        self.register, self.modify, self.unregister = epoll.register, epoll.modify, epoll.unregister

    def wait(self, most: int) -> int:
        """Take the events that there are, without waiting; return how many, at most `most`."""
        self._batch = self._epoll.poll(0, most)
        return len(self._batch)

    def fd(self, index: int) -> int:
        """Return the descriptor of an event."""
        return self._batch[index][0]

    def events(self, index: int) -> int:
        """Return what has happened there: IN and its kin."""
        return self._batch[index][1]
