"""The API's listening sockets: a Unix socket that is nobody's but ours, and TCP by option."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
from typing import TYPE_CHECKING

from aiohttp import web

from dataplane.net.listener import BindError, open_listener
from dataplane.runtime.api import Api, Tcp
from dataplane.runtime.credentials import WRONG, Credentials
from dataplane.runtime.private import listen_privately
from dataplane.runtime.startup import StartError
from schemas.hosts import Hosts
from schemas.serving import ImpatientRunner

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from dataplane.runtime.api import DataPlane
    from dataplane.runtime.options import Options

__all__ = ["InUse", "OwnSocket", "serve", "serve_api"]


class InUse(Exception):  # noqa: N818 - an answer to the user, not a failure
    """Another process has the socket."""

    def __init__(self, path: Path, pid: str) -> None:
        super().__init__(path, pid)
        self.path = path
        self.pid = pid

    def __str__(self) -> str:
        return f"{self.path} is in use by process {self.pid or 'unknown'}; choose another --name, or end that one"


class OwnSocket:
    """A Unix socket under a lock, so that a live one is never taken over and a stale one always is.

    The directory is made with mode 0700 and the socket with 0600: it is bound under umask 0177, because there is
    no moment after bind() at which others could not connect already.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sock: socket.socket | None = None
        self._lock = -1
        self._inode = 0

    def acquire(self) -> None:
        """Take the lock; it holds until this process ends.

        Raises:
            InUse: Somebody has it.
            OSError: The directory cannot be had.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self.path.with_name(self.path.name + ".lock")
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            os.close(handle)
            raise InUse(self.path, pid) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        self._lock = handle

    def listen(self) -> socket.socket:
        """Bind and listen; whatever was at the path is stale, or a predecessor's that is ending: we have the lock."""
        sock = listen_privately(self.path)
        self._inode = self.path.stat().st_ino
        self.sock = sock
        return sock

    def unlock(self) -> None:
        """Let a successor have the lock, and replace the socket."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def close(self) -> None:
        """Remove the socket if it is still ours, and let the lock go."""
        with contextlib.suppress(OSError):
            if self._inode and self.path.stat().st_ino == self._inode:
                self.path.unlink()
        self.unlock()


async def serve(
    app: web.Application, sock: socket.socket, tls: ssl.SSLContext | None = None
) -> web.AppRunner:
    """Serve `app` on a listening socket; end it with the runner's `cleanup`."""
    runner = ImpatientRunner(app)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=tls).start()
    return runner


async def serve_api(
    plane: DataPlane, own: OwnSocket, options: Options, *, reuse_port: bool
) -> list[web.AppRunner]:
    """Serve the API on the data plane's own socket, and it or its metrics on TCP if the options say where.

    Args:
        plane: What is served.
        own: The data plane's own socket.
        options: What the command line says.
        reuse_port: Bind the TCP addresses beside a process that this one takes over from.

    Raises:
        StartError: A TCP address cannot be had, or its credentials cannot be used any more.
    """
    runners = [await serve(Api(plane).application(), own.listen())]
    if options.api is not None:
        try:
            credentials = Credentials(options.credentials, plane.events.emit)
        except WRONG as error:
            raise StartError(f"--api: {error}") from error
        sock = _listen(options.api, reuse_port=reuse_port)
        api = Api(plane, Tcp(Hosts(options.api), credentials))
        runners.append(await serve(api.application(), sock, credentials.tls()))
    if options.metrics is not None:
        sock = _listen(options.metrics, reuse_port=reuse_port)
        runners.append(await serve(Api(plane, Tcp(_readers(options.metrics))).observation(), sock))
    return runners


def _listen(address: str, *, reuse_port: bool) -> socket.socket:
    """Listen where nobody else does, or beside a predecessor; and let a successor listen beside us.

    SO_REUSEPORT counts when others bind. Set after our own bind, an address that somebody else has is still refused.
    """
    try:
        sock = open_listener(address, reuse_port=reuse_port)
    except BindError as error:
        raise StartError(str(error)) from error
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return sock


def _readers(address: str) -> Hosts | None:
    """Return the Host headers that may read what needs no token; None: any.

    On a loopback address only its own names, or a web page could read from this machine's browser by rebinding one.
    Elsewhere any: everybody in reach may read, and calls this machine by names that it does not know.
    """
    host = address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        if not ipaddress.ip_address(host).is_loopback:
            return None
    return Hosts(address)
