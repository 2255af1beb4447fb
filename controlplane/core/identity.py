"""Which process answers: by the id that it drew when it began, or for older versions by its pid and its beginning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["Identity"]

_SLACK_S: Final = 5.0
"""An answer may be as late as that, and nobody restarts so fast after such a short life."""


class Identity:
    """Tells one process behind an endpoint from the next."""

    def __init__(self) -> None:
        self._older: tuple[object, float] | None = None
        self._lives = 0

    def of(self, info: Mapping[str, Any], now: float) -> str:
        """Return the id of the process that gave this answer to `GET /v1/info`, or this status; no other process has it."""
        if info.get("instance"):
            return str(info["instance"])
        pid, began = info.get("pid"), now - float(info.get("uptime_s", 0.0))
        if self._older is None or self._older[0] != pid or abs(began - self._older[1]) > _SLACK_S:
            self._lives += 1
        self._older = (pid, began)
        return f"pid {pid}, life {self._lives}"
