"""What a data plane says of itself: of one process, and of a supervisor with its workers."""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from typing import Final, Protocol

from dataplane.core.fair_share import skew
from dataplane.core.phase import Life
from dataplane.node.apply import Applier
from dataplane.report.exposition import exposition
from dataplane.report.figures import Tally
from dataplane.report.metrics import Runs, families
from dataplane.report.status import describe
from dataplane.telemetry.events import rfc3339
from schemas.replies import Explanation, Info
from schemas.status import Status

__all__ = ["Report", "Source"]

VERSION: Final = version("livelb")


class Source(Protocol):
    """Whose figures they are: this process's, or all workers'."""

    @property
    def count(self) -> int:
        """How many processes relay."""

    async def tally(self, info: Info, *, each: bool, draining: bool) -> Tally:
        """Return all figures.

        Args:
            info: What this process says of itself.
            each: Of each backend of a crowd, too (figures.BackendFigures), for status; else of all as one, for metrics.
            draining: Whether it ends.
        """

    async def explain(self, service: str, client: str) -> Explanation:
        """Say what a client would get."""

    def not_ready(self) -> str | None:
        """Return why clients should go elsewhere, though this process runs something; None if they need not."""


class Report:
    """Answers what the API is asked (dataplane.api.routes.Report).

    Args:
        name: Of the data plane.
        life: Where this process is in its life.
        applier: Knows what runs.
        source: Knows the figures.
    """

    def __init__(self, name: str, life: Life, applier: Applier, source: Source) -> None:
        self.explain = source.explain
        self._name = name
        self._life = life
        self._applier = applier
        self._source = source
        self._started_at = time.monotonic()

    def info(self) -> Info:
        """Say who answers, and what it runs."""
        applier = self._applier
        return {
            "name": self._name,
            "pid": os.getpid(),
            "instance": applier.node.events.instance,
            "version": VERSION,
            "workers": self._source.count,
            "uptime_s": round(time.monotonic() - self._started_at, 3),
            "generation": applier.snapshot.generation,
            "hash": applier.snapshot.hash,
            "pushed_by": applier.pushed_by,
        }

    async def _tally(self, *, each: bool) -> tuple[Info, Tally]:
        info = self.info()
        return info, await self._source.tally(info, each=each, draining=self._life.leaving_since is not None)

    async def status(self) -> Status:
        """Describe everything."""
        info, tally = await self._tally(each=True)
        since = self._life.leaving_since
        return {
            "name": info["name"],
            "pid": info["pid"],
            "instance": info["instance"],
            "version": info["version"],
            "generation": info["generation"],
            "hash": info["hash"],
            "uptime_s": info["uptime_s"],
            "saved": self._applier.saving.saved,
            "phase": self._life.phase.value,
            "draining_since": None if since is None else rfc3339(since),
            "skew": round(skew([worker["active"] for worker in tally.workers]), 2),
            "workers": tally.workers,
            "services": await describe(tally.figures, time.time() - time.monotonic()),
        }

    async def metrics(self) -> bytes:
        """Return Prometheus text."""
        info, tally = await self._tally(each=False)
        runs = Runs(info["generation"], info["hash"], self._applier.saving.saved, info["uptime_s"])
        return await exposition([*families(tally.figures, runs), *tally.families])

    def not_ready(self) -> str | None:
        """Return why this node should get no traffic."""
        if self._life.leaving_since is not None:
            return "the process is ending"
        if not self._applier.snapshot.generation:
            return "generation 0: waiting for a snapshot"
        return self._source.not_ready()
