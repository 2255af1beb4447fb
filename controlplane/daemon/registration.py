"""The balancer as a citizen of Consul: what this node serves is registered there, while `consul.register` says so.

Theory of operation:

1. A listener is registered once every data plane runs the snapshot that has it, and no longer than it is wanted. Its check
   tells whether this node is ready for traffic.
2. Whether the node is ready is asked once a second, and when a data plane came, went or changed (`standing`); it is
   what `lb-control ready` says. The check's output has the reason why not.
3. A listener that no other machine can reach is left out, and that is said: every node would take 127.0.0.1 for
   itself.
4. When the daemon ends in good order, everything is deregistered: on a node that goes down it ends before its data
   planes, so nobody is sent to a listener that closes. A daemon that is killed leaves the checks to run out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import re
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from controlplane.core.backoff import Backoff, jittered
from controlplane.daemon.standing import Standing
from controlplane.dataplanes.fleet import Fleet
from controlplane.discovery.consul.settings import ConsulError, ConsulSettings, settings_of
from controlplane.discovery.consul.watch import Runtime
from controlplane.errors import ControlError
from schemas.addresses import UnixPath, listened_on, split_address
from schemas.discovery import Consul

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient

TTL_S: Final = 10.0
CALL_TIMEOUT_S: Final = 5.0
FORGET_AFTER: Final = "10m"
"""An agent forgets a balancer that died without a word; Consul's own least value is a minute."""
_LOOK_S: Final = 1.0
_MAX_OUTPUT: Final = 1000
"""Characters: whoever looks at a check wants the reason, and not all of it of a hundred data planes."""


class Served(NamedTuple):
    """One listener of one service, as others can reach it."""

    service: str
    address: str
    """An IP address; empty: the agent's, for a listener on all addresses."""
    port: int

    def key(self, node: str) -> str:
        """Return the id that it is registered with: unique among the balancers of one agent."""
        parts = ("lb", node, self.service, self.address.replace(":", "."), str(self.port))
        return "-".join(filter(None, parts))


class LeftOut(NamedTuple):
    """A listener that is not registered."""

    service: str
    address: str
    why: str


def sorted_out(services: Mapping[str, Any]) -> tuple[frozenset[Served], tuple[LeftOut, ...]]:
    """Return the listeners of a snapshot's services that other machines can reach, and the others, sorted."""
    served, left_out = set(), []
    every = ((name, each) for name, service in services.items() for each in service["listen"])
    for name, listener in ((name, address) for name, each in every for address in listened_on(each)):
        address = split_address(listener)
        if isinstance(address, UnixPath):
            left_out.append(LeftOut(name, listener, "a Unix socket is on this machine only"))
        elif why := _why_not(address.host):
            left_out.append(LeftOut(name, listener, why))
        else:
            everywhere = _ip(address.host).is_unspecified
            served.add(Served(name, "" if everywhere else address.host, address.port))
    return frozenset(served), tuple(sorted(left_out))


def _why_not(host: str) -> str:
    """Say why other machines cannot reach an address; empty if they can."""
    address = _ip(host)
    if address.is_loopback:
        return "each machine takes a loopback address for itself"
    if address.is_link_local or "%" in host:
        return "a link-local address means something on one network link only"
    return ""


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


class Registering:
    """Registers this node's services while `consul.register` says so."""

    def __init__(
        self,
        fleet: Fleet,
        standing: Standing,
        log: Callable[[str], None],
        *,
        node: str = "",
        runtime: Runtime | None = None,
    ) -> None:
        self._fleet = fleet
        self._standing = standing
        self._log = log
        self._node = re.sub(r"[^A-Za-z0-9._-]", "-", node or socket.gethostname())[:255]
        self._runtime = runtime or Runtime()
        self._settings: ConsulSettings | None = None
        self._wanted: frozenset[Served] = frozenset()
        self._left_out: tuple[LeftOut, ...] = ()
        self._served: frozenset[Served] = frozenset()
        """What every data plane serves of it."""
        self._known: set[str] = set()
        """The ids that the agent has taken."""
        self._tried: set[str] = set()
        """Those that it may know, though its answer has never arrived."""
        self._error: ConsulError | None = None
        self._since: float | None = None
        """Since when it fares as it does, in monotonic seconds; None: nothing is registered."""
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
        if self._since is None:
            return []
        state = "ok"
        if self._error is not None:
            state = "denied" if self._error.kind == "denied" else "error"
        row = {
            "name": "consul-registration",
            "state": state,
            "since": self._runtime.rfc3339(self._since),
            "last_error": None if self._error is None else str(self._error),
            "registered": sorted(self._known),
            "left_out": [each._asdict() for each in self._left_out],
        }
        return [row]

    async def run(self) -> None:
        """Keep it so until cancelled, then deregister.

        Raises:
            ConsulError: The client library cannot be used.
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
        from controlplane.discovery.consul.client import connected  # noqa: PLC0415 - py-consul, only where it is needed

        backoff = Backoff(cap_s=TTL_S)
        self._served, self._error, self._since = frozenset(), None, self._runtime.clock()
        due = self._since
        async with connected(settings) as client:
            try:
                while self._settings == settings:
                    self._news.clear()
                    if await self._look() or self._runtime.clock() >= due:
                        pause_s = await self._renewed(client, backoff)
                        due = self._runtime.clock() + pause_s
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(min(_LOOK_S, max(0.0, due - self._runtime.clock()))):
                            await self._news.wait()
            finally:
                await self._leave(client)
                self._since = None

    async def _look(self) -> bool:
        """Find out what is served and whether it is ready; True if that has changed."""
        changed, before = await self._standing.look(), self._served
        wish, pushers = self._fleet.wish, tuple(self._fleet.pushers.values())
        same = wish is not None and bool(pushers) and all(each.runs(wish) for each in pushers)
        # What nobody serves yet is not announced; what is no longer wanted is not kept.
        self._served = self._wanted if same else self._wanted & self._served
        return changed or before != self._served

    async def _renewed(self, client: ConsulClient, backoff: Backoff) -> float:
        """Register and renew what there is; return how long to wait before the next time, in seconds."""
        error = None
        try:
            await self._beat(client)
        except ConsulError as failure:
            error = failure
        if (error is None) is not (self._error is None):
            self._since = self._runtime.clock()
        self._error = error
        if error is not None:
            return backoff.fail(self._runtime.random)
        backoff.succeed()
        return jittered(TTL_S / 3, self._runtime.random)

    async def _beat(self, client: ConsulClient) -> None:
        """Register what is new, deregister what is gone, and renew every check."""
        wanted = {item.key(self._node): item for item in self._served}
        for name in sorted(self._known - wanted.keys()):
            await _call(client, f"/v1/agent/service/deregister/{name}")
            self._known.discard(name)
            self._tried.discard(name)
        for name, item in sorted(wanted.items()):
            if name not in self._known:
                self._tried.add(name)
                await _call(client, "/v1/agent/service/register", self._definition(name, item))
                self._known.add(name)
            try:
                await _call(client, f"/v1/agent/check/update/service:{name}", self._verdict())
            except ConsulError as error:
                # an agent that lost its memory no longer knows the check: begin again
                if error.kind in ("failed", "protocol"):
                    self._known.discard(name)
                raise

    async def _leave(self, client: ConsulClient) -> None:
        """Deregister everything, as far as the agent answers."""
        for name in sorted(self._tried):
            try:
                await _call(client, f"/v1/agent/service/deregister/{name}")
            except ConsulError as error:
                if error.kind in ("timeout", "unreachable"):  # then its checks run out by themselves
                    break
        self._known.clear()
        self._tried.clear()

    def _definition(self, name: str, item: Served) -> dict[str, Any]:
        return {
            "ID": name,
            # never the service's own name: a balancer must not discover itself
            "Name": f"lb-{item.service}",
            "Address": item.address,
            "Port": item.port,
            "Tags": ["lb"],
            "Check": {
                "TTL": f"{TTL_S:g}s",
                "DeregisterCriticalServiceAfter": FORGET_AFTER,
                "Status": self._verdict()["Status"],
            },
        }

    def _verdict(self) -> dict[str, str]:
        verdict = self._standing.verdict
        if verdict.ready:
            return {"Status": "passing", "Output": "ready"}
        return {"Status": "critical", "Output": f"not ready: {verdict.reason}"[:_MAX_OUTPUT]}


async def _call(client: ConsulClient, path: str, body: dict[str, Any] | None = None) -> None:
    raw = b"" if body is None else json.dumps(body).encode()
    reply = await client.put(path, (), raw, timeout_s=CALL_TIMEOUT_S)
    if reply.status == 404:  # noqa: PLR2004 - HTTP's "not found"
        raise ConsulError("protocol", f"{path}: status 404")
