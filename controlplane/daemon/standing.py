"""Whether this node is ready, as the daemon knows it: found out for Consul and for the other nodes in one place."""

from __future__ import annotations

from typing import Final

from controlplane.core.drain import Drain
from controlplane.core.readiness import Readiness, Reason
from controlplane.dataplanes.fleet import Fleet
from controlplane.operations.drain_file import DrainFile
from controlplane.operations.options import now_text
from controlplane.operations.readiness import of_fleet

_ANSWER_S: Final = 2.0


class Standing:
    """The last verdict, and since when it is so."""

    def __init__(self, fleet: Fleet, record: DrainFile) -> None:
        self._fleet = fleet
        self._record = record
        self.verdict = Readiness(((Reason.NO_DATA_PLANE, "none was asked yet"),), Drain())
        self.since = now_text()
        """Since when it is ready, or is not: RFC 3339."""

    async def look(self) -> bool:
        """Ask, and read; tell whether anything has changed. It is there after two seconds."""
        before, self.verdict = self.verdict, await of_fleet(self._fleet, self._record, _ANSWER_S)
        if before.ready is not self.verdict.ready:
            self.since = now_text()
        return before != self.verdict
