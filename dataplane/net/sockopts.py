"""Socket options, address forms and error classes: what the kernel is asked for, in one place."""

from __future__ import annotations

import errno
import fcntl
import resource
import select
import socket
import struct
import termios
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from dataplane.net.calls import option, pack, set_option

_TCP: Final = int(socket.IPPROTO_TCP)
_NODELAY: Final = int(socket.TCP_NODELAY)
"""Plain numbers: the socket module's are enums, which cost a call each."""

IpSockAddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""(IP literal, port), and for a link-local IPv6 address flow information (0) and scope id."""
SockAddr: TypeAlias = IpSockAddr | str
"""What connect() takes: an IP address with its port, or the path of a Unix socket."""

LOCAL_ERRNOS: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EPERM}
)
"""Errors that say something of this machine and nothing of the backend.

EADDRNOTAVAIL is the end of the ephemeral ports, EPERM a local packet filter.
"""

_KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4))
_CLOSED: Final = 7
"""TCP_CLOSE of the kernel's include/net/tcp_states.h, the first byte of struct tcp_info."""


class SocketAddress(NamedTuple):
    """Where to connect: the family, and what connect() takes."""

    family: int
    sockaddr: SockAddr
    ephemeral: bool
    """The port is one that the kernel also gives to outgoing connections."""
    packed: object
    """What `net.calls` takes."""

    def at_port(self, port: int) -> SocketAddress:
        """Return the same host's address with another port; a Unix socket stays what it is."""
        if isinstance(self.sockaddr, str):
            return self
        if len(self.sockaddr) == 2:  # noqa: PLR2004 - no scope
            return _ip_address(self.family, (self.sockaddr[0], port))
        return _ip_address(self.family, (self.sockaddr[0], port, *self.sockaddr[2:]))


def to_sockaddr(address: str) -> SocketAddress | None:
    """Turn `127.0.0.1:80`, `[::1]:80`, `[fe80::1%eth0]:80` or `unix:/path` into what connect() and bind() take.

    None if the host is a name, which only a resolver can turn into an address, or at an interface that is not there.
    """
    if address.startswith("unix:"):
        path = address[5:]
        return SocketAddress(socket.AF_UNIX, path, ephemeral=False, packed=pack(socket.AF_UNIX, path))
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    host, _, interface = host.strip("[]").partition("%")
    try:
        socket.inet_pton(family, host)
        if interface:
            return _ip_address(family, (host, int(port), 0, socket.if_nametoindex(interface)))
    except OSError:
        return None
    return _ip_address(family, (host, int(port)))


def _ip_address(family: int, sockaddr: IpSockAddr) -> SocketAddress:
    low, high = _ephemeral_ports()
    return SocketAddress(family, sockaddr, low <= sockaddr[1] <= high, pack(family, sockaddr))


@cache
def _ephemeral_ports() -> tuple[int, int]:
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    return int(low), int(high)


def tune_listener(sock: socket.socket, idle_s: float) -> None:
    """Set what accepted sockets inherit: no Nagle delay, keepalive, a bound on unacknowledged data.

    On Linux a socket from accept() has its listener's options, so a connection pays no call for them.
    TCP_USER_TIMEOUT also ends a connection whose reader pauses for that long (a window of zero counts),
    so it is never shorter than the service's idle timeout.
    """
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        sock.setsockopt(socket.IPPROTO_TCP, name, value)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms(idle_s))


def user_timeout_ms(idle_s: float) -> int:
    """Return TCP_USER_TIMEOUT for an idle timeout: the same, at least 30 s; 0 (the kernel's) for none."""
    return max(30_000, int(idle_s * 1000)) if idle_s else 0


def tune_backend(fd: int, family: int, user_timeout: int) -> None:
    """Give a backend connection that lasts keepalive and a bound on unacknowledged data (milliseconds).

    These are five calls, so the dial leaves them to whoever knows that the connection is not a short one.
    """
    if family == socket.AF_UNIX:
        return
    set_option(fd, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        set_option(fd, socket.IPPROTO_TCP, name, value)
    if user_timeout:
        set_option(fd, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout)


def set_nodelay(fd: int) -> None:
    """Have small writes sent at once; a Unix socket does so anyway."""
    set_option(fd, _TCP, _NODELAY, 1)


def unsent_bytes(fd: int) -> int:
    """Return how many bytes the peer has not acknowledged yet (SIOCOUTQ, tcp(7)), but may still.

    After a reset Linux goes on counting what will never be acknowledged: that is 0 here.
    """
    answer = fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0")
    unsent = int(struct.unpack("i", answer)[0])
    if (
        unsent and option(fd, socket.IPPROTO_TCP, socket.TCP_INFO) == _CLOSED
    ):  # a Unix socket has no such state
        return 0
    return unsent


def limit_unsent(fd: int, size: int) -> None:
    """Have the kernel take no more for `fd` than what it may send now and `size` bytes besides (tcp(7)).

    A Unix socket has a small buffer anyway.
    """
    set_option(fd, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, size)


def events_now(fd: int, asked: int) -> int:
    """Return what poll() reports of a descriptor now: of what is asked for, and errors and hang-ups in any case."""
    now = select.poll()
    now.register(fd, asked)
    found = now.poll(0)
    return found[0][1] if found else 0


def descriptor_limit() -> int:
    """Return how many descriptors this process may have, after raising the soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def current_descriptor_limit() -> int:
    """Return how many descriptors this process may have now: others may change it (prlimit(1))."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


_TEXTS: Final = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.ETIMEDOUT: "connect timeout",
    errno.EHOSTUNREACH: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ENOENT: "no such socket file",
    errno.EAGAIN: "its accept queue is full",
}


def error_text(code: int) -> str:
    """Say in a few stable words what an errno of a connection attempt means."""
    return _TEXTS.get(code) or errno.errorcode.get(code, str(code))
