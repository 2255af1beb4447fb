"""A worker whose supervisor has died: it accepts on, so that nobody is lost until a new supervisor has its sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dataplane.ipc.takeover import Giver, Offer
from dataplane.telemetry.events import Events, rfc3339
from dataplane.telemetry.line_writer import LineSink
from dataplane.worker.listeners import LentListeners
from dataplane.worker.node import WorkerNode

__all__ = ["Orphan", "event_writer"]

ORPHAN_S: Final = 5.0
"""How long a worker without a supervisor accepts, if no new supervisor asks for its sockets."""


class Orphan:
    """Offers the listening sockets of a worker (dataplane.ipc.takeover.Holder)."""

    def __init__(self, node: WorkerNode, listeners: LentListeners, events: Events) -> None:
        self._node = node
        self._listeners = listeners
        self._events = events

    async def serve(self, path: Path) -> None:
        """Accept until somebody has taken over at `path`, but no longer than ORPHAN_S."""
        self._node.siblings.part()
        self._events.emit("orphaned", pid=os.getpid(), seconds=ORPHAN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ORPHAN_S):
                await Giver(path, self, self._events).run()

    async def offer(self) -> Offer:
        """Offer every socket that is accepted from."""
        return {}, [(one.address, one.sock) for one in self._node.listeners.values()]

    def keep(self, cause: str) -> None:
        """Go on."""
        self._events.emit("takeover_failed", cause=cause)

    async def release(self) -> None:
        """Stop accepting."""
        self._listeners.leave_all()


def event_writer(log: LineSink, form: str) -> Callable[..., None]:
    """Return what writes an event to `log`: its supervisor did that, and a worker has no formatter.

    To load one takes a tenth of a second, in which nobody is served, and descriptors, of which there may be none: that
    is only for people who asked for text.
    """
    if form == "text":
        with contextlib.suppress(OSError, ImportError):
            from dataplane.telemetry.log import configure_log, log_event  # noqa: PLC0415 - see above

            configure_log(log, form="text", fd=2)
            return log_event

    def write(kind: str, **fields: Any) -> None:
        event = {"event": kind, "level": "warning", "at": rfc3339(time.time()), **fields}
        log.write(json.dumps(event).encode() + b"\n")

    return write
