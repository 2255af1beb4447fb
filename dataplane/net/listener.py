"""Listening sockets: opened, accepted from in batches, paused when descriptors run short, closed empty."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dataplane.errors import BindError
from dataplane.net.socket_files import PLAIN, dress, find_ids
from dataplane.net.sockopts import LOCAL_ERRNOS, to_sockaddr, tune_listener

if TYPE_CHECKING:
    from dataplane.core.spec import ListenSpec
    from dataplane.net.reactor import Reactor
    from dataplane.net.service import Service

__all__ = ["Listener", "open_listener"]

BACKLOG: Final = 4096
"""The kernel cuts it to net.core.somaxconn, which is 4096 since Linux 5.4."""
BATCH: Final = 64
"""Clients taken for one event, so that a burst of them does not starve those who are being served."""
PAUSE_S: Final = 0.1
FREEBIND: Final[dict[int, tuple[int, int]]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 15),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),
}
"""Level and number of IP_FREEBIND (ip(7)) and IPV6_FREEBIND (include/uapi/linux/in6.h)."""
INET: Final = int(socket.AF_INET)
UNIX: Final = int(socket.AF_UNIX)
Entrance = Callable[[socket.SocketType, tuple[str, int] | None], None]
"""Takes a client and its address, None on a Unix socket."""
_RETRY: Final = frozenset({errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EPERM})


def open_listener(
    address: str, *, reuse_port: bool, listen: bool = True, spec: ListenSpec = PLAIN
) -> socket.socket:
    """Bind and listen.

    `[::]` takes IPv6 only, whatever the system's default is: listen on `0.0.0.0` as well for both.

    Args:
        address: `host:port`, `[v6]:port` or `unix:/path`; a host name is resolved.
        reuse_port: Share the address with other processes of ours (SO_REUSEPORT).
        listen: False only tries whether the address could be had.
        spec: How.

    Raises:
        BindError: It cannot be had; nothing is left open.
    """
    try:
        family, where = _resolve(address)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise BindError(address, error) from error
    try:
        if family == socket.AF_UNIX:
            _clear(str(where), remove=listen)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if spec.freebind:
                sock.setsockopt(*FREEBIND[family], 1)
        if family == socket.AF_UNIX and not listen:
            find_ids(spec)
            return sock
        sock.bind(where)
        if family == socket.AF_UNIX and spec != PLAIN:
            _dress(str(where), spec)  # before anybody can connect
        if listen:
            sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise BindError(address, error) from error
    return sock


def _dress(path: str, spec: ListenSpec) -> None:
    try:
        dress(path, spec)
    except OSError:
        Path(path).unlink(missing_ok=True)
        raise


def _resolve(address: str) -> tuple[int, Any]:
    target = to_sockaddr(address)
    if target is not None:
        return target.family, target.sockaddr
    host, _, port = address.rpartition(":")
    if host.startswith("["):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    family, _, _, _, where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    return family, where


def _clear(path: str, *, remove: bool) -> None:
    """Remove a socket file that nobody listens on, or (`remove` is False) only see that nothing is in the way.

    Raises:
        OSError: Somebody listens there, the file is none of a socket, or its folder does not take one.
    """
    try:
        is_socket = stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116 - the file may be anything
    except FileNotFoundError:
        folder = Path(path).parent
        if not folder.is_dir():
            raise
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES)) from None
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        if not is_socket:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if probe.connect_ex(path) != errno.ECONNREFUSED:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if remove:
        Path(path).unlink(missing_ok=True)


class Listener:
    """One listening socket of one process, and the service that its clients are for."""

    __slots__ = (
        "_family",
        "_inode",
        "accepted",
        "address",
        "entrance",
        "fd",
        "paused",
        "reactor",
        "service",
        "sock",
        "tick",
    )

    def __init__(
        self,
        reactor: Reactor,
        address: str,
        sock: socket.socket,
        service: Service,
        entrance: Entrance | None = None,
    ) -> None:
        self.reactor = reactor
        self.address = address
        self.sock = sock
        self.fd = sock.fileno()
        self._family = int(sock.family)
        """A plain number: the socket makes an enum of it for each who asks."""
        self.accepted = 0
        self.paused = False
        self.tick = 0
        self._inode = self._file_inode()
        self.serve(service, entrance)

    def start(self) -> None:
        """Begin to accept."""
        self.reactor.watch(self.fd, self, select.EPOLLIN)

    def serve(self, service: Service, entrance: Entrance | None = None) -> None:
        """Send clients to `service` from now on, or take note of its new configuration."""
        self.service = service
        self.entrance: Entrance = entrance or service.accepted
        """What is called with each client."""
        tune_listener(self.sock, service.spec.timeouts.idle_s)

    def on_event(self, events: int) -> int:
        """Take a batch of clients; return how many there were."""
        del events
        sock, service, entrance = self.sock, self.service, self.entrance
        family, ceiling = self._family, self.reactor.accept_ceiling
        taken = 0
        while taken < BATCH:
            try:
                # The public accept() builds a Python-level socket and asks for its blocking mode.
                fd, address = sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in _RETRY:
                    continue
                if error.errno in LOCAL_ERRNOS:
                    service.observer.local_error(error.errno or 0)
                    self._pause()
                    break
                raise
            taken += 1
            entrance(
                socket.SocketType(family, socket.SOCK_STREAM, 0, fd),
                None if family == UNIX else address if family == INET else address[:2],
            )
            if fd >= ceiling:
                service.observer.local_error(errno.EMFILE)
                self._pause()
                break
        self.accepted += taken
        return taken

    def on_failure(self) -> None:
        """Try again soon: a bug of ours was met, and nobody else accepts here."""
        self.reactor.watch(self.fd, self, 0)
        self._pause()

    def on_timer(self, now: float) -> None:
        """Go on after a pause, unless the next client would have to be turned away."""
        if self.reactor.is_short():
            self.service.observer.local_error(errno.EMFILE)
            self.reactor.wheel.at(self, now + PAUSE_S)
            return
        self.paused = False
        self.reactor.epoll.modify(self.fd, select.EPOLLIN)

    def _pause(self) -> None:
        """Leave further clients in the kernel's queue, where they lose nothing but time."""
        if not self.paused:
            self.paused = True
            self.reactor.epoll.modify(self.fd, 0)
            self.reactor.wheel.at(self, self.reactor.now + PAUSE_S)

    def close(self) -> None:
        """Take who is in the queue already, then close; a Unix socket's file goes if it is still ours."""
        with contextlib.suppress(OSError):
            while not self.paused and self.on_event(0):
                pass
        self.detach()
        if self._inode and self._inode == self._file_inode():
            Path(self.address[5:]).unlink(missing_ok=True)
        self.sock.close()

    def detach(self) -> None:
        """Stop accepting, and leave the socket and its queue to whoever else holds it."""
        self.reactor.wheel.cancel(self)
        self.reactor.unwatch(self.fd)

    def _file_inode(self) -> int:
        if not self.address.startswith("unix:"):
            return 0
        try:
            return os.stat(self.address[5:]).st_ino  # noqa: PTH116 - one call, no object
        except OSError:
            return 0
