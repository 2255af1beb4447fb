"""How what a supervisor's checks find reaches the workers.

Its node is the same as in a single process, so that a snapshot, an override and a check mean the same. But its pools
stay empty, it has no listeners, and so no connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.node.takeover_state import found

if TYPE_CHECKING:
    from collections.abc import Callable

    from dataplane.ipc.messages import Verdict
    from dataplane.net.backend import Backend

__all__ = ["CheckRelay"]


class CheckRelay:
    """Passes on what workers have to know of verdicts.

    Args:
        tell: Called with them.
    """

    def __init__(self, tell: Callable[[list[Verdict]], None]) -> None:
        self._tell = tell
        self.ejected: set[tuple[int, str, str]] = set()
        """Which worker's process has ejected which backend of which service."""

    def judged(self, service: str, backend: Backend, *, changed: bool, passed: bool) -> None:
        """Take note of a verdict: a worker wants to know it if it has changed something, or ends an ejection there."""
        ejected = any(one[1:] == (service, backend.id) for one in self.ejected)
        if changed or (passed and ejected):
            self._tell([found(service, backend, passed=passed)])
