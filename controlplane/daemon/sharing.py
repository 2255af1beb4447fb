"""Tells the controller by how many nodes limits of the cluster are divided, whenever that changes (`core.share`)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

from controlplane.core.share import Share
from controlplane.operations.controller import Controller


class Nodes(Protocol):
    """Knows who is there."""

    def live_nodes(self) -> int | None:
        """Return how many nodes were alive when Consul answered last; None: it never has."""

    def trouble(self) -> object | None:
        """Return why that may be out of date; None: it is not."""


class Sharing:
    """Follows how many nodes there are.

    Args:
        controller: Divides.
        nodes: Knows them.
        clock: Monotonic seconds.
    """

    def __init__(
        self, controller: Controller, nodes: Nodes, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._controller = controller
        self._nodes = nodes
        self._clock = clock
        self._news = asyncio.Event()

    def look(self) -> None:
        """Count again: somebody came or went, or it is no longer known who is there."""
        self._news.set()

    async def run(self) -> None:
        """Keep counting until cancelled; the number of before holds until Consul has told one."""
        share = Share(self._controller.accepted.state.share)
        while True:
            self._news.clear()
            live = None if self._nodes.trouble() is not None else self._nodes.live_nodes()
            share.note(live, self._clock())
            if share.nodes is not None and share.nodes != self._controller.accepted.state.share:
                self._controller.news.shared(share.nodes)
            due = share.due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                    await self._news.wait()
