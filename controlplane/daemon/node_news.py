"""Tells what becomes of the nodes of the cluster, when it happens: in the log, and to whoever follows events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controlplane.core.nodes import Picture, news


class NodeNews:
    """Compares each picture with the one before.

    Args:
        picture: Returns the newest one.
        on_event: Told what has happened.
        log: Told the same in words.
    """

    def __init__(
        self,
        picture: Callable[[], Picture | None],
        on_event: Callable[[dict[str, Any]], None],
        log: Callable[[str], None],
    ) -> None:
        self._picture = picture
        self._on_event = on_event
        self._log = log
        self._before: Picture | None = None

    def look(self) -> None:
        """Tell what is new since the last look; of another cluster, everything."""
        picture = self._picture()
        if picture is None:
            return
        before, self._before = self._before, picture
        if before is not None and before.cluster != picture.cluster:
            before = None
        for node, what in news(before, picture):
            self._log(f"node {node} of {picture.cluster}: {what}")
            self._on_event({"type": "node", "node": node, "cause": what})
