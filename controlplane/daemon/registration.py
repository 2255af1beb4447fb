"""The daemon's side of `consul.register`: what this node serves is in Consul, with its readiness.

Theory of operation:

1. A listener is registered once every data plane runs the snapshot that has it, and no longer than it is wanted.
2. The node is ready while every data plane says so, as `lb-control ready` does: asked once a second, and when one
   of them came, went or changed.
3. A listener that no other machine can reach is left out, and that is said: every node would take 127.0.0.1 for
   itself.
4. When the daemon ends in good order, everything is deregistered: on a node that goes down it ends before its data
   planes, so nobody is sent to a listener that closes. A daemon that is killed leaves the checks to run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controlplane.dataplanes import requests
from controlplane.errors import ControlError, DataPlaneError
from schemas.addresses import UnixPath, listened_on, split_address

if TYPE_CHECKING:
    from controlplane.dataplanes.fleet import Fleet
    from controlplane.discovery.consul.registration import Registration, Served
    from controlplane.discovery.consul.settings import ConsulSettings
    from schemas.discovery import Consul

__all__ = ["LeftOut", "Registering", "sorted_out"]

_LOOK_S: Final = 1.0
_ANSWER_S: Final = 2.0


class LeftOut(NamedTuple):
    """A listener that is not registered."""

    service: str
    address: str
    why: str


def sorted_out(services: Mapping[str, Any]) -> tuple[frozenset[Served], tuple[LeftOut, ...]]:
    """Return the listeners of a snapshot's services that other machines can reach, and the others, sorted."""
    from controlplane.discovery.consul.registration import Served  # noqa: PLC0415 - nothing needs Consul otherwise

    served, left_out = set(), []
    every = ((name, each) for name, service in services.items() for each in service["listen"])
    for name, listener in ((name, address) for name, each in every for address in listened_on(each)):
        address, why = split_address(listener), _why_not(listener)
        if why or isinstance(address, UnixPath):
            left_out.append(LeftOut(name, listener, why))
        else:
            everywhere = _ip(address.host).is_unspecified
            served.add(Served(name, "" if everywhere else address.host, address.port))
    return frozenset(served), tuple(sorted(left_out))


def _why_not(listener: str) -> str:
    """Say why other machines cannot reach a listener; empty if they can."""
    address = split_address(listener)
    if isinstance(address, UnixPath):
        return "a Unix socket is on this machine only"
    host = _ip(address.host)
    if host.is_loopback:
        return "each machine takes a loopback address for itself"
    if host.is_link_local or "%" in address.host:
        return "a link-local address means something on one network link only"
    return ""


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class Registering:
    """Registers this node's services while `consul.register` says so."""

    def __init__(self, fleet: Fleet, log: Callable[[str], None], *, node: str = "") -> None:
        self._fleet = fleet
        self._log = log
        self._node = node or socket.gethostname()
        self._settings: ConsulSettings | None = None
        self._wanted: frozenset[Served] = frozenset()
        self._served: frozenset[Served] = frozenset()
        self._left_out: tuple[LeftOut, ...] = ()
        self._ready = False
        self._registration: Registration | None = None
        self._news = asyncio.Event()

    def follow(self, consul: Consul | None, services: Mapping[str, Any]) -> None:
        """Register these services, if `consul` says so, and no others.

        Args:
            consul: Of lb.yaml; None: nothing is known of it, so nothing changes.
            services: The snapshot's.
        """
        if consul is None:
            return
        self._settings, self._wanted = None, frozenset()
        left_out: tuple[LeftOut, ...] = ()
        if consul.register_services:
            from controlplane.discovery.consul.settings import settings_of  # noqa: PLC0415 - nothing needs it otherwise

            try:
                self._settings = settings_of(consul)
            except ControlError as error:
                self._log(f"nothing is registered: {error}")
            else:
                self._wanted, left_out = sorted_out(services)
        for each in left_out:
            if each not in self._left_out:
                self._log(f"{each.service}: {each.address} is not registered in Consul: {each.why}")
        self._left_out = left_out
        self.look()

    def look(self) -> None:
        """Find out what is served and whether it is ready: something may have changed."""
        self._news.set()

    def status(self) -> list[dict[str, Any]]:
        """Return its row among the sources, if anything is to be registered."""
        if self._registration is None:
            return []
        return [{**self._registration.status(), "left_out": [each._asdict() for each in self._left_out]}]

    async def run(self) -> None:
        """Keep it so until cancelled, then deregister.

        Raises:
            ConsulError: The client library cannot be used (in an exception group).
        """
        while True:
            settings = self._settings
            if settings is None:
                await self._news.wait()
                self._news.clear()
            else:
                await self._register(settings)

    async def _register(self, settings: ConsulSettings) -> None:
        """Register until the settings change."""
        from controlplane.discovery.consul.registration import Registration  # noqa: PLC0415 - nothing needs Consul otherwise
        from controlplane.discovery.consul.watch import Runtime  # noqa: PLC0415 - the same

        registration = Registration(settings, node=self._node, ready=lambda: self._ready, runtime=Runtime())
        self._registration, self._served = registration, frozenset()
        await self._look(registration)
        try:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(registration.run(), name="consul registration")
                while self._settings == settings:
                    self._news.clear()
                    await self._look(registration)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_S):
                            await self._news.wait()
                task.cancel()
        finally:
            self._registration = None

    async def _look(self, registration: Registration) -> None:
        answers = await self._fleet.ask(requests.get("/readyz"), _ANSWER_S)
        wish, pushers = self._fleet.wish, tuple(self._fleet.pushers.values())
        good = sum(not isinstance(answer, DataPlaneError) for answer in answers.values())
        ready = 0 < len(pushers) == good
        same = wish is not None and bool(pushers) and all(each.runs(wish) for each in pushers)
        # What nobody serves yet is not announced; what is no longer wanted is not kept.
        served = self._wanted if same else self._wanted & self._served
        if (ready, served) != (self._ready, self._served):
            self._ready, self._served = ready, served
            registration.update(served)
