"""This node as one of a cluster: it tells of itself, and sees the others, while lb.yaml says that it belongs to one.

Consul is where nodes meet, and nothing depends on it: while it is away, the last picture holds, and everything else goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.cluster.publishing import Publisher
from controlplane.cluster.watching import NodesWatch
from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import Picture
from controlplane.discovery.consul.pulse import Pulse, is_silence
from controlplane.discovery.consul.settings import ConsulError, ConsulSettings
from controlplane.discovery.consul.watch import Pace, Runtime

SOURCE = "consul-cluster"
"""What its row among the sources is called."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which cluster a node belongs to, what it is called there, and by which agent they meet."""

    cluster: str
    node: str
    address: str | None
    """Where this node's API is for others."""
    agent: ConsulSettings


class Membership:
    """Publishes this node's record and watches all of them.

    Args:
        tell: Returns what there is to tell of the node at a place.
        wanted: Returns the SHA-256 of what is in a key, by key, as far as that is known here.
        pace: How patient it is.
        runtime: Time and chance.
    """

    def __init__(
        self,
        tell: Callable[[Place], Awaitable[NodeRecord]],
        wanted: Callable[[], Mapping[str, str]] = dict,
        *,
        pace: Pace | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.place: Place | None = None
        """None: this node belongs to no cluster."""
        self.on_change: Sequence[Callable[[], None]] = ()
        """Called when the picture, or how it fares, may have changed."""
        self._tell = tell
        self._wanted = wanted
        self._pace = pace or Pace()
        self._runtime = runtime or Runtime()
        self._moved = asyncio.Event()
        self._publisher: Publisher | None = None
        self._watch: NodesWatch | None = None
        self._pulse: Pulse | None = None

    def follow(self, place: Place | None) -> None:
        """Be there from now on, and nowhere else; None: nowhere."""
        if place != self.place:
            self.place = place
            self._moved.set()

    def look(self) -> None:
        """Find out what there is to tell: something may have changed."""
        if self._publisher is not None:
            self._publisher.news.set()

    def picture(self) -> Picture | None:
        """Return the last picture; None: there is no cluster, or Consul has not answered yet."""
        return None if self._watch is None else self._watch.picture

    def live_nodes(self) -> int | None:
        """Return how many nodes were alive when Consul answered last, this one included; None: it has never answered."""
        picture, place = self.picture(), self.place
        if picture is None or place is None:
            return None
        return len({each.name for each in picture.live()} | {place.node})

    def trouble(self) -> tuple[ConsulError, float] | None:
        """Return why others do not see this node, or it does not see them, and since when in monotonic seconds; None: all is well."""
        pulse = self._pulse
        if pulse is not None and pulse.error is not None and pulse.since is not None:
            return pulse.error, pulse.since
        for part in (self._publisher, self._watch):
            if part is not None and part.error is not None:
                return part.error, part.since
        return None

    def report(self) -> dict[str, Any] | None:
        """Return what `GET /v1/nodes` answers; None: there is no cluster."""
        place, picture = self.place, self.picture()
        if place is None:
            return None
        trouble = self.trouble()
        shown = picture or Picture(place.cluster, (), self._runtime.clock())
        return {
            **shown.report(self._runtime.clock()),
            "known": picture is not None,
            "node": place.node,
            "error": None if trouble is None else str(trouble[0]),
            "error_since": None if trouble is None else self._runtime.rfc3339(trouble[1]),
        }

    def status(self) -> list[dict[str, Any]]:
        """Return its row among the sources, if this node belongs to a cluster."""
        place, picture, trouble = self.place, self.picture(), self.trouble()
        if place is None or self._watch is None:
            return []
        state, since = "ok" if picture is not None else "stale", self._watch.since
        if trouble is not None:
            error, since = trouble
            is_away = is_silence(error) and picture is not None
            state = "denied" if error.kind == "denied" else "stale" if is_away else "error"
        return [
            {
                "name": SOURCE,
                "state": state,
                "since": self._runtime.rfc3339(since),
                "last_error": None if trouble is None else str(trouble[0]),
                "cluster": place.cluster,
                "node": place.node,
                "troubled": [] if picture is None else picture.troubled(),
                "age_s": None if picture is None else round(self._runtime.clock() - picture.at, 3),
            }
        ]

    def _changed(self) -> None:
        for each in self.on_change:
            each()

    async def run(self) -> None:
        """Keep it so until cancelled, then leave.

        Raises:
            ConsulError: The client library cannot be used (in an exception group).
        """
        while True:
            self._moved.clear()
            place = self.place
            async with asyncio.TaskGroup() as group:
                belonging = None if place is None else group.create_task(self._belong(place))
                await self._moved.wait()
                if belonging is not None:
                    belonging.cancel()

    async def _belong(self, place: Place) -> None:
        """Be at one place until cancelled."""
        from controlplane.discovery.consul.client import connected  # noqa: PLC0415 - py-consul, only where it is needed

        pace, runtime = self._pace, self._runtime
        publisher = Publisher(
            place.cluster,
            place.node,
            lambda: self._tell(place),
            lambda: self.live_nodes() or 1,
            pace=pace,
            runtime=runtime,
        )
        watch = NodesWatch(place.cluster, self._wanted, self._changed, pace=pace, runtime=runtime)

        def pulsed() -> None:
            publisher.news.set()
            watch.returned.set()
            self._changed()

        pulse = Pulse(pulsed, pace=pace, runtime=runtime)
        self._publisher, self._watch, self._pulse = publisher, watch, pulse
        try:
            async with connected(place.agent) as client, asyncio.TaskGroup() as group:
                group.create_task(publisher.run(client), name=f"record of {place.node}")
                group.create_task(watch.run(client), name=f"nodes of {place.cluster}")
                group.create_task(pulse.run(client), name=f"pulse for {place.cluster}")
        finally:
            self._publisher = self._watch = self._pulse = None
            self._changed()
