"""What the data planes look like: asked when somebody wants to know, and remembered for when they cannot answer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from controlplane.core.report import Seen, node_status
from controlplane.core.share import share_report
from controlplane.dataplanes import requests
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.dataplanes.pusher import Asks, Pusher
from controlplane.dataplanes.requests import here, said_by
from controlplane.errors import DataPlaneError, GoneError, PlaceError
from controlplane.operations.controller import Controller

_ASK_S: Final = 2.0
_HEALTH_S: Final = 2.0
"""Discovery keeps vanished backends that pass our checks; checks come every two seconds by default."""


class Observer:
    """Makes the node's status."""

    def __init__(
        self,
        controller: Controller,
        find_draining: Callable[[], Sequence[Endpoint]],
        connect: Callable[[Endpoint], AbstractAsyncContextManager[Asks]],
    ) -> None:
        self._controller = controller
        self._find_draining = find_draining
        self._connect = connect
        self._known: dict[Endpoint, tuple[float, Mapping[str, Any]]] = {}

    async def status(
        self, sources: Sequence[Mapping[str, Any]], config_error: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Ask everybody, and put the answers together; who does not answer is shown with what was known, and its age."""
        await self.look()
        state = self._controller.accepted.state
        contested = self._controller.contest.status(time.monotonic())
        if contested is not None:
            by = contested["by"]
            contested |= {"said_by": said_by(by), "here": by is not None and by["host"] == here()}
        report = node_status(
            [
                *(self._seen(each) for each in self._controller.fleet.pushers.values()),
                *await self._draining(),
            ],
            state.overrides,
            wanted=(state.generation, state.hash) if state.document is not None else None,
            sources=sources,
            config_error=config_error,
            configured=state.services,
        )
        share = share_report(state.share, state.scoped, state.services)
        return {**report, "contested": contested, "unserved": self._controller.unserved(), "share": share}

    async def _draining(self) -> list[Seen]:
        """Ask those who drain; whoever does not answer has ended, or is about to."""
        found: Sequence[Endpoint] = ()
        with contextlib.suppress(PlaceError):
            found = await asyncio.to_thread(self._find_draining)
        seen: list[Seen] = []

        async def ask(endpoint: Endpoint) -> None:
            with contextlib.suppress(DataPlaneError):
                async with self._connect(endpoint) as client:
                    status = await client.ask(requests.get("/v1/status"), timeout_s=_ASK_S)
                    seen.append(Seen(endpoint.name, endpoint.location, True, status=status, draining=True))

        async with asyncio.TaskGroup() as group:
            for each in found:
                group.create_task(ask(each))
        return sorted(seen, key=lambda each: each.socket)

    async def look(self) -> None:
        """Ask everybody who is reachable."""
        answers = await self._controller.fleet.ask(requests.get("/v1/status"), _ASK_S)
        now = time.monotonic()
        for endpoint, answer in answers.items():
            if not isinstance(answer, DataPlaneError):
                self._known[endpoint] = (now, answer)
        there = self._controller.fleet.pushers
        self._known = {endpoint: known for endpoint, known in self._known.items() if endpoint in there}
        self._controller.discovering.healthy = frozenset(
            (service, backend["id"])
            for _, status in self._known.values()
            for service, each in status["services"].items()
            for backend in each["backends"]
            if backend["health"]["state"] == "up"
        )

    async def statuses(self, max_age_s: float) -> list[Mapping[str, Any]]:
        """Return the newest status of each data plane; they are asked if what is known is older than that, in seconds."""
        oldest = min((at for at, _ in self._known.values()), default=0.0)
        if time.monotonic() - oldest >= max_age_s or len(self._known) < len(self._controller.fleet.pushers):
            await self.look()
        return [status for _, status in self._known.values()]

    async def run(self) -> None:
        """Keep discovery informed about health, while there is discovery."""
        while True:
            await asyncio.sleep(_HEALTH_S)
            if self._controller.discovering.active:
                await self.look()

    def _seen(self, pusher: Pusher) -> Seen:
        at, status = self._known.get(pusher.endpoint, (None, {}))
        fresh = at is not None and time.monotonic() - at < _ASK_S
        error = None if pusher.error is None else str(pusher.error)
        if error is None and not fresh:
            error = "does not answer"
        return Seen(
            name=pusher.endpoint.name,
            socket=pusher.endpoint.location,
            reachable=pusher.reachable and fresh,
            error=error,
            gone_since=pusher.error.since if isinstance(pusher.error, GoneError) else None,
            age_s=0.0 if at is None else time.monotonic() - at,
            status=status,
        )
