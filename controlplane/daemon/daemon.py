"""The daemon: watches lb.yaml and Consul, keeps every data plane at what was taken last, serves operators."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

from controlplane.cluster.membership import Membership
from controlplane.cluster.naming import node_name
from controlplane.daemon.api import Api
from controlplane.daemon.desired_watch import WatchedFile
from controlplane.daemon.events import Events, follow
from controlplane.daemon.followed_key import FollowedKey
from controlplane.daemon.http import Tcp, bound
from controlplane.daemon.http import listener as http_listener
from controlplane.daemon.log import (
    Fault,
    Log,
    Noticing,
    kept,
    plane_faults,
    source_faults,
    tell_bug,
    tell_bugs,
)
from controlplane.daemon.metrics import scrape
from controlplane.daemon.node_facts import NodeFacts, place_of
from controlplane.daemon.node_news import NodeNews
from controlplane.daemon.registration import Registering
from controlplane.daemon.sharing import Sharing
from controlplane.daemon.standing import Standing
from controlplane.daemon.status import Observer
from controlplane.dataplanes.client import DataPlaneClient
from controlplane.dataplanes.endpoint import Endpoint, control_socket
from controlplane.dataplanes.fleet import Fleet
from controlplane.dataplanes.requests import Caller, pushed_by
from controlplane.dataplanes.tls import Tls
from controlplane.desired.document import Reader
from controlplane.desired.identity import Identity
from controlplane.desired.location import Home
from controlplane.discovery.consul.key import KeySource
from controlplane.errors import ControlError, StoreError, UnknownError
from controlplane.operations.accepted import Keeping
from controlplane.operations.controller import Controller
from controlplane.operations.drain_file import DrainFile
from controlplane.operations.options import now_text
from controlplane.store import Store
from schemas.http.reloaded import Renewed
from schemas.http.server import serve
from schemas.system.ownership import user_name

_NOTICE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class DaemonSettings:
    """What the daemon is told at its start."""

    home: Home | KeySource | None
    """Where the lb.yaml to watch is; None: only what is applied."""
    runtime_dir: Path
    state_dir: Path
    find: Callable[[], Sequence[Endpoint]]
    """Lists the data planes."""
    find_draining: Callable[[], Sequence[Endpoint]]
    """Lists the processes that have been some, and drain."""
    token: Renewed[str] | None
    """For data planes behind a URL."""
    tls: Tls
    """For those behind `https://`."""
    http: str | None = None
    """`host:port` of the dashboard and the TCP API; None: there is none."""
    http_token: Renewed[str] | None = None
    """Allows changes over TCP."""
    http_hosts: tuple[str, ...] = ()
    """Names by which a proxy leads to the page, as `host_name` returns them."""


def _broken(name: str, trouble: object) -> dict[str, Any]:
    """Return the row of a source that only shows while it is out of order."""
    return {"name": name, "state": "error", "since": None, "last_error": str(trouble)}


class Daemon:
    """All parts, wired. Make it inside a running loop."""

    def __init__(self, settings: DaemonSettings, store: Store, log: Log) -> None:
        self.settings = settings
        self.log = log
        base = Path() if settings.home is None else settings.home.folder
        self.identity = Identity(os.environ, store, writes=True)
        self.events = Events()
        home = settings.home
        by = pushed_by("lb-control run", user_name(os.getuid()), None if home is None else home.place)
        self._caller = Caller(by, settings.token, settings.tls)
        instance = os.urandom(8).hex()
        self._ids = (f"{instance}-{number}" for number in count(1))
        self.controller = Controller(
            Keeping(store, log),
            lambda on_ahead, on_change: Fleet(
                settings.find,
                connect=self._followed,
                on_ahead=on_ahead,
                on_change=on_change,
            ),
            reader=Reader(base, self.identity),
            on_event=self._happened,
            log=log,
        )
        self.planes = Noticing(log, comings=True)
        self.observer = Observer(self.controller, settings.find_draining, self._connect)
        if isinstance(home, KeySource):
            home = FollowedKey(home, self._node_name, store, on_event=self._happened, log=log)
        self.file = None if home is None else WatchedFile(home, self.controller, log)
        self.record = DrainFile(settings.state_dir)
        self.standing = Standing(self.controller.fleet, self.record)
        self.registering = Registering(self.controller.fleet, self.standing, log)
        facts = NodeFacts(self.controller, self.observer, self.standing, self.file, self.identity.everything)
        self.membership = Membership(facts.tell, facts.wanted)
        self.sharing = Sharing(self.controller, self.membership)
        news = NodeNews(self.membership.picture, self._happened, log)
        self.membership.on_change = [news.look, self.sharing.look]

    def _connect(self, endpoint: Endpoint) -> DataPlaneClient:
        return DataPlaneClient(endpoint, self._caller)

    @contextlib.asynccontextmanager
    async def _followed(self, endpoint: Endpoint) -> AsyncIterator[DataPlaneClient]:
        """Yield a client of a data plane, and follow its events until it is let go."""
        async with self._connect(endpoint) as client, asyncio.TaskGroup() as group:
            work = partial(follow, client, self.events.publish)
            following = group.create_task(kept("following events", work, self.log))
            yield client
            following.cancel()

    def _happened(self, event: dict[str, Any]) -> None:
        dataplanes = event["type"] == "dataplanes"  # says only that there is something to look at
        self.events.publish({"at": now_text(), "id": next(self._ids), **event}, remember=not dataplanes)
        if dataplanes:
            self.planes.take(plane_faults(self.controller.fleet.pushers.values()))
            self.registering.look()
            self.membership.look()
        elif event["type"] == "generation":
            self._register()
            self.membership.look()
        elif event["type"] == "canary":
            self.membership.look()

    def nodes(self) -> dict[str, Any]:
        """Return the picture of the cluster; UnknownError if this node belongs to none."""
        report = self.membership.report()
        if report is None:
            raise UnknownError("this node belongs to no cluster: its lb.yaml has no section `cluster`")
        return report

    def _register(self) -> None:
        """Have Consul know what is served here, and which node this is."""
        desired = self.controller.desired
        try:
            self.membership.follow(place_of(desired))
        except ControlError as error:
            self.log(f"this node does not join its cluster: {error}")
            self.membership.follow(None)
        self.registering.follow(
            None if desired is None else desired.consul, self.controller.accepted.state.services
        )

    def _node_name(self) -> str | None:
        desired = self.controller.desired
        return None if desired is None or desired.cluster is None else node_name(desired.cluster)

    async def status(self) -> dict[str, Any]:
        """Return the status of the node."""
        file, accepted = self.file, self.controller.accepted
        sources = [] if file is None else [file.source()]
        sources += self._sources()
        troubles = {"history": accepted.keeping.error, "overrides": accepted.lost}
        sources += [_broken(name, trouble) for name, trouble in troubles.items() if trouble is not None]
        report = await self.observer.status(sources, None if file is None else file.config_error)
        return report | {"drain": await asyncio.to_thread(self.record.report)}

    def _sources(self) -> list[dict[str, Any]]:
        """Return how everything fares that desired state and credentials come from, besides the watched file."""
        token, http_token = self.settings.token, self.settings.http_token
        troubles = {
            "log": self.log.trouble,
            "certificates": self.settings.tls.trouble,
            "token": token and token.trouble,
            "http token": http_token and http_token.trouble,
        }
        broken = [_broken(name, trouble) for name, trouble in troubles.items() if trouble is not None]
        registering, membership = self.registering.status(), self.membership.status()
        return [*self.controller.discovering.status(), *registering, *membership, *broken]

    async def _notice(self) -> None:
        """Log what happens to the sources until cancelled; the watched file tells of itself."""
        noticing = Noticing(self.log)
        while True:
            await asyncio.sleep(_NOTICE_S)
            # Credentials have a row only while they are out of order.
            well: dict[str, Fault | None] = dict.fromkeys(("log", "certificates", "token", "http token"))
            noticing.take(well | source_faults(self._sources()))

    async def metrics(self) -> bytes:
        """Return the status as Prometheus text."""
        status = await self.status()
        pushes = {each.endpoint.location: each.pushes for each in self.controller.fleet.pushers.values()}
        return await asyncio.to_thread(scrape, status, pushes, self.membership.report())

    async def run(self, listener: socket.socket) -> None:
        """Do all of it until SIGTERM or SIGINT."""
        tell_bugs(self.log)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with asyncio.TaskGroup() as group, _cancelled_at_end(group) as spawn:
            spawn(self.controller.fleet.run())
            await self.controller.start()
            self._register()
            spawn(self.controller.run())
            spawn(self.controller.accepted.keeping.run())
            spawn(self.controller.discovering.run())
            spawn(kept("looking at health", self.observer.run, self.log))
            spawn(kept("telling what breaks", self._notice, self.log))
            spawn(self.registering.run())
            spawn(kept("telling the other nodes", self.membership.run, self.log))
            spawn(self.sharing.run())
            async with self._served(listener):
                if self.file is not None:
                    loop.add_signal_handler(signal.SIGHUP, self.file.force)
                    spawn(self.file.run())
                else:
                    loop.add_signal_handler(signal.SIGHUP, lambda: None)
                self.log("ready")
                await stop.wait()
                self.events.end()

    @contextlib.asynccontextmanager
    async def _served(self, listener: socket.socket) -> AsyncIterator[None]:
        settings = self.settings
        async with contextlib.AsyncExitStack() as stack:
            local = Api(self)
            stack.push_async_callback((await serve(local.application(), listener)).cleanup)
            if settings.http is not None:
                sock, address = http_listener(settings.http, token=settings.http_token is not None)
                tcp = Api(self, Tcp(address, settings.http_token, settings.http_hosts))
                stack.push_async_callback((await serve(tcp.application(), sock)).cleanup)
                self.log(f"dashboard at http://{address}/")
            yield


@contextlib.asynccontextmanager
async def _cancelled_at_end(group: asyncio.TaskGroup) -> AsyncIterator[Callable[[Any], None]]:
    tasks: list[asyncio.Task[None]] = []
    try:
        yield lambda job: tasks.append(group.create_task(job))
    finally:
        for task in tasks:
            task.cancel()


def run(settings: DaemonSettings) -> None:
    """Be the daemon until a signal ends it."""
    store, log = Store(settings.state_dir), Log()
    with (
        contextlib.closing(log),
        bound(control_socket(settings.runtime_dir)) as listener,
        contextlib.ExitStack() as stack,
    ):
        unwritable: str | None = None
        try:
            stack.enter_context(store.writer())
        except StoreError as error:
            unwritable = f"nothing will be written down: {error}"
            log(unwritable)

        async def main() -> None:
            daemon = Daemon(settings, store, log)
            daemon.controller.accepted.keeping.error = unwritable
            await daemon.run(listener)

        reason: BaseException
        try:
            asyncio.run(main())
        except* ControlError as errors:
            failure: BaseException = errors
            while isinstance(failure, BaseExceptionGroup):
                failure = failure.exceptions[0]
            reason = failure
        except* Exception as bugs:  # noqa: BLE001 - a bug of ours: said as everything else is that is logged
            tell_bug(log, "a bug of ours: the daemon ends; data planes go on", bugs)
            reason = SystemExit(1)
        else:
            return
        raise reason
