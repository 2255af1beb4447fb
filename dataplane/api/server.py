"""The API's listening sockets: a Unix socket that is nobody's but ours, and TCP by option."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dataplane.api import aiohttp_server
from dataplane.api.credentials import WRONG, CredentialFiles, Credentials
from dataplane.api.plane import DataPlane
from dataplane.background import load
from dataplane.errors import BindError, StartError
from dataplane.net.listener import open_listener
from schemas.http.hosts import Hosts
from schemas.system.unix_socket import InUse, OwnSocket

if TYPE_CHECKING:
    from aiohttp import web

BACKLOG: Final = 128
_TODO: Final = "it drains and ends by itself; until then status does not show it: ps -fp "


def api_path(directory: Path, name: str) -> Path:
    """Return where the data plane of a name serves its API."""
    return directory / f"dataplane-{name}.sock"


def draining_path(directory: Path, name: str, pid: int) -> Path:
    """Return where a process of that name does that has given the name away, and drains."""
    return directory / f"draining-{name}.{pid}.sock"


def sweep(directory: Path, name: str) -> None:
    """Remove what processes of this name have left that were killed while they drained."""
    for path in directory.glob("draining-*.sock"):
        former, _, pid = path.stem.removeprefix("draining-").rpartition(".")
        if former == name and pid.isdecimal():
            left = OwnSocket(path)
            with contextlib.suppress(OSError, InUse):
                left.acquire()
                path.unlink(missing_ok=True)
                left.remove()


class Endpoints:
    """Where the API and the metrics are served: all that can fail when it is made, and serving when all else runs.

    The API of `plane` is on the `own` socket, and on TCP at `api`, if given, where callers are asked for what is in
    `files`; `metrics` is such an address, too. With `beside`, these are bound beside the process that this one takes over
    from.

    Raises:
        StartError: A TCP address cannot be had, or its credentials cannot be used any more.
    """

    def __init__(
        self,
        plane: DataPlane,
        own: OwnSocket,
        api: str | None,
        metrics: str | None,
        files: CredentialFiles,
        *,
        beside: bool,
    ) -> None:
        self._plane = plane
        self._own = own
        self._api = api
        self._metrics = metrics
        self.emit = plane.events.emit
        self._credentials: Credentials | None = None
        self._bound: dict[str, socket.socket] = {}
        self._runners: list[web.AppRunner] = []
        self._away: OwnSocket | None = None
        try:
            if api is not None:
                self._credentials = Credentials(files, self.emit)
                self._bind("--api", api, beside=beside)
            if metrics is not None:
                self._bind("--metrics", metrics, beside=beside)
        except BaseException as error:
            self.close()
            if isinstance(error, WRONG):
                raise StartError(str(error)) from error
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

    async def listen(self, *, relays: bool) -> None:
        """Let callers in, whom `serve` answers; StartError if somebody else has come to listen since the bind.

        What answers them is loaded only now: clients of the services are relayed meanwhile. In a thread, if this process
        `relays`; if others do, it may wait: what a thread loads lies in memory of its own, and takes a third of a MiB more.
        """
        if relays:
            await load(_modules)
        else:
            _modules()
        for option, sock in self._bound.items():
            try:
                sock.listen(BACKLOG)
            except OSError as error:
                raise StartError(f"{option}: {error.strerror}") from error

    async def serve(self) -> None:
        """Serve the API on the own socket (OSError: its path cannot be bound), and what the options say on TCP."""
        from dataplane.api.routes import Api, Observation, Tcp  # noqa: PLC0415 - see `listen`
        from schemas.http.server import serve  # noqa: PLC0415 - the same

        self._runners.append(await serve(Api(self._plane).application(), self._own.listen()))
        api, metrics = self._api, self._metrics
        if api is not None and self._credentials is not None:
            app = Api(self._plane, Tcp(Hosts(api, option="--api"), self._credentials)).application()
            self._runners.append(await serve(app, self._bound["--api"], self._credentials.tls()))
        if metrics is not None:
            app = Observation(self._plane.report, Tcp(_readers(metrics))).application()
            self._runners.append(await serve(app, self._bound["--metrics"]))

    async def move(self, away: OwnSocket) -> None:
        """Serve the API at `away`, and give the own socket, its lock and the addresses on TCP to whoever comes next.

        That nothing can be served at `away` is told; everything else is given away all the same.
        """
        from dataplane.api.routes import Api  # noqa: PLC0415 - see `listen`
        from schemas.http.server import serve  # noqa: PLC0415 - the same

        former, self._runners, self._away = self._runners, [], away
        pid = os.getpid()
        try:
            away.acquire()
            self._runners.append(await serve(Api(self._plane).application(), away.listen()))
        except (OSError, InUse) as error:
            self.emit("api_not_served", cause=str(error), todo=f"{_TODO}{pid}")
        else:
            self.emit("draining", socket=str(away.path), pid=pid)
        finally:
            for site in [site for runner in former for site in runner.sites]:
                await site.stop()
            self.close()
            self._own.close()
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


def _modules() -> None:
    """Import what serves HTTP."""
    aiohttp_server.load()
    import dataplane.api.routes  # noqa: F401, PLC0415 - what this is for
    import schemas.http.server  # noqa: F401, PLC0415 - the same


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
