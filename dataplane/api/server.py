"""The API's listening sockets: a Unix socket that is nobody's but ours, and TCP by option."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from typing import TYPE_CHECKING, Final

from aiohttp import web

from dataplane.api.credentials import WRONG, Credentials
from dataplane.api.routes import Api, Tcp
from dataplane.ipc.unix_socket import listen_privately
from dataplane.net.listener import BindError, open_listener
from dataplane.node.initial import StartError
from schemas.http.hosts import Hosts
from schemas.http.server import ImpatientRunner
from schemas.system.locks import TOUCH_S, LockedError, lock, lock_of, touch
from schemas.system.ownership import make_directory, open_or_make

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

    from dataplane.api.routes import DataPlane
    from dataplane.options import Options

__all__ = ["Endpoints", "InUse", "OwnSocket", "api_path", "draining_path", "serve"]


BACKLOG: Final = 128


def api_path(directory: Path, name: str) -> Path:
    """Return where the data plane of a name serves its API."""
    return directory / f"dataplane-{name}.sock"


def draining_path(directory: Path, name: str, pid: int) -> Path:
    """Return where a process of that name does that has given the name away, and drains."""
    return directory / f"draining-{name}.{pid}.sock"


class InUse(Exception):  # noqa: N818 - an answer to the user, not a failure
    """Another process has the socket."""

    def __init__(self, path: Path, pid: int | None) -> None:
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
        if self._lock >= 0:
            return
        make_directory(self.path.parent)
        handle = open_or_make(lock_of(self.path), os.O_RDWR | os.O_NOFOLLOW)
        try:
            lock(handle)
        except LockedError as error:
            os.close(handle)
            raise InUse(self.path, error.pid) from None
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

    def remove(self) -> None:
        """Remove the lock as well: nobody else will ever want this name."""
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                lock_of(self.path).unlink()
        self.close()

    async def live(self) -> None:
        """Say from time to time that this process lives, to whoever finds its socket after its death."""
        while True:
            await asyncio.sleep(TOUCH_S)
            if self._lock >= 0:
                touch(self._lock)


async def serve(
    app: web.Application, sock: socket.socket, tls: ssl.SSLContext | None = None
) -> web.AppRunner:
    """Serve `app` on a listening socket; end it with the runner's `cleanup`."""
    runner = ImpatientRunner(app)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=tls).start()
    return runner


class Endpoints:
    """Where the API and the metrics are served: all that can fail when it is made, and serving when all else runs.

    Args:
        options: What the command line says.
        emit: Takes the events of renewed credentials.
        beside: Bind the TCP addresses beside the process that this one takes over from.

    Raises:
        StartError: A TCP address cannot be had, or its credentials cannot be used any more.
    """

    def __init__(self, options: Options, emit: Callable[..., None], *, beside: bool) -> None:
        self._options = options
        self._credentials: Credentials | None = None
        self._bound: dict[str, socket.socket] = {}
        self._runners: list[web.AppRunner] = []
        self._away: OwnSocket | None = None
        try:
            if options.api is not None:
                self._credentials = Credentials(options.credentials, emit)
                self._bind("--api", options.api, beside=beside)
            if options.metrics is not None:
                self._bind("--metrics", options.metrics, beside=beside)
        except WRONG as error:
            self.close()
            raise StartError(str(error)) from error
        except BaseException:
            self.close()
            raise

    def _bind(self, option: str, address: str, *, beside: bool) -> None:
        """Have an address that nobody else has, or only a predecessor; and let a successor have it beside us.

        SO_REUSEPORT counts when others bind. Set after our own bind, an address that somebody else has is still
        refused. Nobody is in the queue before `listen`: whoever calls meanwhile is answered by the predecessor.
        """
        try:
            sock = open_listener(address, reuse_port=beside, listen=False)
        except BindError as error:
            raise StartError(f"{option}: {error}") from error
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._bound[option] = sock

    def listen(self) -> None:
        """Let callers in; `serve` answers them.

        Raises:
            StartError: Somebody else has come to listen at an address since it was bound.
        """
        for option, sock in self._bound.items():
            try:
                sock.listen(BACKLOG)
            except OSError as error:
                raise StartError(f"{option}: {error.strerror}") from error

    async def serve(self, plane: DataPlane, own: OwnSocket) -> None:
        """Serve the API on the data plane's own socket, and what the options say on TCP.

        Raises:
            OSError: The path of the own socket cannot be bound.
        """
        self._runners.append(await serve(Api(plane).application(), own.listen()))
        api, metrics = self._options.api, self._options.metrics
        if api is not None and self._credentials is not None:
            app = Api(plane, Tcp(Hosts(api, option="--api"), self._credentials)).application()
            self._runners.append(await serve(app, self._bound["--api"], self._credentials.tls()))
        if metrics is not None:
            app = Api(plane, Tcp(_readers(metrics))).observation()
            self._runners.append(await serve(app, self._bound["--metrics"]))

    async def move(self, plane: DataPlane, own: OwnSocket, away: OwnSocket) -> None:
        """Serve the API at `away`, and give the own socket, its lock and the addresses on TCP to whoever comes next.

        Raises:
            OSError: Nothing can be served at `away`; everything else is given away all the same.
            InUse: The same.
        """
        former, self._runners, self._away = self._runners, [], away
        try:
            away.acquire()
            self._runners.append(await serve(Api(plane).application(), away.listen()))
        finally:
            for site in [site for runner in former for site in runner.sites]:
                await site.stop()
            self.close()
            own.close()
            for runner in former:  # last: whoever follows events holds it up for a second
                await runner.cleanup()

    async def cleanup(self) -> None:
        """Serve nothing any more."""
        while self._runners:
            await self._runners.pop().cleanup()
        self.abandon()

    def abandon(self) -> None:
        """Leave no file behind: this process ends now."""
        if self._away is not None:
            self._away.remove()
        self.close()

    def close(self) -> None:
        """Give the TCP addresses back."""
        for sock in self._bound.values():
            sock.close()


def _readers(address: str) -> Hosts | None:
    """Return the Host headers that may read what needs no token; None: any.

    On a loopback address only its own names, or a web page could read from this machine's browser by rebinding one.
    Elsewhere any: everybody in reach may read, and calls this machine by names that it does not know.
    """
    host = address.rpartition(":")[0].strip("[]")
    with contextlib.suppress(ValueError):
        if not ipaddress.ip_address(host).is_loopback:
            return None
    return Hosts(address, option="--metrics")
