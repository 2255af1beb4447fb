"""The balancer as a citizen of Consul: each service that it serves is registered, with a check that tells readiness."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from controlplane.core.backoff import Backoff
from controlplane.core.watchindex import jittered
from controlplane.discovery.consul.client import ConsulClient, ConsulError, connected
from controlplane.discovery.consul.status import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from controlplane.discovery.consul.settings import ConsulSettings
    from controlplane.discovery.consul.watch import Runtime

__all__ = ["Registration", "Served"]

TTL_S = 10.0
CALL_TIMEOUT_S = 5.0
# An agent forgets a balancer that died without a word; Consul's own least value is a minute.
FORGET_AFTER = "10m"


@dataclass(frozen=True, slots=True)
class Served:
    """One listener of one service, as others can reach it."""

    service: str
    address: str
    """An IP address; empty: the agent's, for a listener on all addresses."""
    port: int

    def key(self, node: str) -> str:
        """Return the id that it is registered with: unique among the balancers of one agent."""
        return "-".join(
            part
            for part in ("lb", node, self.service, self.address.replace(":", "."), str(self.port))
            if part
        )


class Registration:
    """Keeps what is served registered, with a check that tells whether this balancer, `node`, is `ready` for traffic."""

    def __init__(
        self, settings: ConsulSettings, *, node: str, ready: Callable[[], bool], runtime: Runtime
    ) -> None:
        self._settings = settings
        self._node = re.sub(r"[^A-Za-z0-9._-]", "-", node)[:255]
        self._ready = ready
        self._runtime = runtime
        self._wanted: dict[str, Served] = {}
        self._known: dict[str, Served] = {}
        self._tried: set[str] = set()
        """What the agent may know, though its answer has never arrived."""
        self._changed = asyncio.Event()
        self._error: ConsulError | None = None
        self._since = runtime.clock()

    def update(self, served: Iterable[Served]) -> None:
        """Set everything that is to be registered."""
        self._wanted = {item.key(self._node): item for item in served}
        self._changed.set()

    async def run(self) -> None:
        """Keep everything registered until cancelled, then deregister it.

        Raises:
            ConsulError: The client library cannot be used.
        """
        backoff = Backoff(cap_s=TTL_S)
        async with connected(self._settings) as client:
            try:
                while True:
                    self._changed.clear()
                    try:
                        await self._beat(client)
                    except ConsulError as error:
                        self._note(error)
                        pause_s = backoff.fail(self._runtime.random)
                    else:
                        self._note(None)
                        backoff.succeed()
                        pause_s = jittered(TTL_S / 3, self._runtime.random)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause_s):
                            await self._changed.wait()
            finally:
                await self._leave(client)

    def status(self) -> dict[str, Any]:
        """Return how it is doing, in the words of every source."""
        state = "ok"
        if self._error is not None:
            state = "denied" if self._error.kind == "denied" else "error"
        return {
            "name": "consul-registration",
            "state": state,
            "since": rfc3339(self._since, self._runtime),
            "last_error": None if self._error is None else str(self._error),
            "registered": sorted(self._known),
        }

    async def _beat(self, client: ConsulClient) -> None:
        """Register what is new, deregister what is gone, and renew every check."""
        for name in sorted(self._known.keys() - self._wanted.keys()):
            await self._call(client, f"/v1/agent/service/deregister/{name}")
            del self._known[name]
            self._tried.discard(name)
        for name, item in sorted(self._wanted.items()):
            if name not in self._known:
                self._tried.add(name)
                await self._call(client, "/v1/agent/service/register", self._definition(name, item))
                self._known[name] = item
            try:
                await self._call(client, f"/v1/agent/check/update/service:{name}", self._verdict())
            except ConsulError as error:
                # an agent that lost its memory no longer knows the check: begin again
                if error.kind in ("failed", "protocol"):
                    del self._known[name]
                raise

    async def _leave(self, client: ConsulClient) -> None:
        """Deregister everything, as far as the agent answers."""
        for name in sorted(self._tried):
            try:
                await self._call(client, f"/v1/agent/service/deregister/{name}")
            except ConsulError as error:
                if error.kind in ("timeout", "unreachable"):  # then its checks run out by themselves
                    break
        self._known.clear()

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
        if self._ready():
            return {"Status": "passing", "Output": "ready"}
        return {"Status": "critical", "Output": "not ready"}

    def _note(self, error: ConsulError | None) -> None:
        if (error is None) is not (self._error is None):
            self._since = self._runtime.clock()
        self._error = error

    async def _call(self, client: ConsulClient, path: str, body: dict[str, Any] | None = None) -> None:
        raw = b"" if body is None else json.dumps(body).encode()
        reply = await client.put(path, (), raw, timeout_s=CALL_TIMEOUT_S)
        if reply.status == 404:  # noqa: PLR2004 - HTTP's "not found"
            raise ConsulError("protocol", f"{path}: status 404")
