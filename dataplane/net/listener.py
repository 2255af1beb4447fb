"""Listening sockets: opened, accepted from in batches, paused when descriptors run short, closed empty."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dataplane.errors import BindError
from dataplane.net.calls import IN, NOTHING, Address, accept
from dataplane.net.reactor import Handler
from dataplane.net.socket_files import PLAIN, dress, find_ids
from dataplane.net.sockopts import LOCAL_ERRNOS, to_sockaddr, tune_listener

if TYPE_CHECKING:
    from dataplane.core.spec import ListenSpec
    from dataplane.net.reactor import Reactor
    from dataplane.net.service import Service

BACKLOG: Final = 4096
"""The kernel cuts it to net.core.somaxconn, which is 4096 since Linux 5.4."""
BATCH: Final = 16
"""Clients taken for one event, so that a burst of them does not starve those who are being served. With a queue of 512 a
connection costs a tenth less than with 64: what one touches is still in the caches when it is served."""
PAUSE_S: Final = 0.1
FREEBIND: Final[dict[int, tuple[int, int]]] = {
    socket.AF_INET: (socket.IPPROTO_IP, 15),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 78),
}
"""Level and number of IP_FREEBIND (ip(7)) and IPV6_FREEBIND (include/uapi/linux/in6.h)."""
Entrance = Callable[[int, Address], None]
"""Takes a client's descriptor and its address."""
_RETRY: Final = frozenset({errno.ECONNABORTED, errno.EINTR, errno.EPROTO, errno.EPERM})
"""They are about the one client that was next; there may be more."""


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


class Listener(Handler):
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
        self.is_backend = False
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
        self.reactor.watch(self.fd, self, IN)

    def serve(self, service: Service, entrance: Entrance | None = None) -> None:
        """Send clients to `service` from now on, or take note of its new configuration."""
        self.service = service
        self.entrance: Entrance = entrance or service.accepted
        """What is called with each client."""
        tune_listener(self.sock, service.spec.timeouts.idle_s)

    def on_event(self, events: int) -> int:  # noqa: ARG002 - a hint; the call tells
        """Take a batch of clients; return how many there were.

        Each is served before the next is accepted, so that nobody is accepted for whom there is no second descriptor.
        """
        listener, family, entrance = self.sock, self._family, self.entrance
        ceiling = self.reactor.accept_ceiling
        taken = 0
        while taken < BATCH:
            fd, address = accept(listener, family)
            if fd < 0:
                if -fd in _RETRY:
                    continue
                if fd != NOTHING:
                    self._failed(-fd)
                break
            taken += 1
            entrance(fd, address)
            if fd >= ceiling:
                self._failed(errno.EMFILE)
                break
        self.accepted += taken
        return taken

    def _failed(self, code: int) -> None:
        """Wait for what this machine lacks."""
        if code not in LOCAL_ERRNOS:
            raise OSError(code, os.strerror(code))
        self.service.observer.local_error(code)
        self._pause()

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
        self.reactor.epoll.modify(self.fd, IN)

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
