"""Tells the controller by how many nodes limits of the cluster are divided, whenever that changes (`core.share`)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from controlplane.core.share import Share
from controlplane.operations.controller import Controller


class Sharing:
    """Follows how many nodes there are.

    Args:
        controller: Divides.
        live: Returns how many nodes are alive for certain; None: that is not known.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        controller: Controller,
        live: Callable[[], int | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._controller = controller
        self._live = live
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
            share.note(self._live(), self._clock())
            if share.nodes is not None and share.nodes != self._controller.accepted.state.share:
                self._controller.news.shared(share.nodes)
            due = share.due()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                    await self._news.wait()
