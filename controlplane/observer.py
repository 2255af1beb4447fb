"""What the data planes look like: asked when somebody wants to know, and remembered for when they cannot answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane import calls
from controlplane.controller import Controller
from controlplane.core.report import Seen, node_status
from controlplane.errors import DataPlaneError
from controlplane.places import Endpoint
from controlplane.push import Pusher

__all__ = ["Observer"]

_ASK_S: Final = 2.0
_HEALTH_S: Final = 2.0
"""Discovery keeps vanished backends that pass our checks; checks come every two seconds by default."""


class Observer:
    """Makes the node's status."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._known: dict[Endpoint, tuple[float, Mapping[str, Any]]] = {}

    async def status(
        self, sources: Sequence[Mapping[str, Any]], config_error: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        """Ask everybody, and put the answers together; who does not answer is shown with what was known, and its age."""
        await self.look()
        state = self._controller.state
        return node_status(
            [self._seen(each) for each in self._controller.fleet.pushers.values()],
            state.overrides,
            wanted=(state.generation, state.hash) if state.document is not None else None,
            sources=sources,
            config_error=config_error,
            configured=state.services,
        )

    async def look(self) -> None:
        """Ask everybody who is reachable."""
        answers = await self._controller.fleet.ask(calls.get("/v1/status"), _ASK_S)
        now = time.monotonic()
        for pusher, answer in answers:
            if not isinstance(answer, DataPlaneError):
                self._known[pusher.endpoint] = (now, answer)
        there = self._controller.fleet.pushers
        self._known = {endpoint: known for endpoint, known in self._known.items() if endpoint in there}
        self._controller.healthy = frozenset(
            (service, backend["id"])
            for _, status in self._known.values()
            for service, each in status["services"].items()
            for backend in each["backends"]
            if backend["health"]["state"] == "up"
        )

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
            age_s=0.0 if at is None else time.monotonic() - at,
            status=status,
        )
