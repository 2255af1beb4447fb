"""What the API serves, as it is handed to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dataplane.telemetry.events import Events
from schemas.api import BackendPatch, PushedBy, Verdict
from schemas.replies import Applied, Explanation, Info, Planned
from schemas.snapshot import Snapshot
from schemas.status import Status


class Applier(Protocol):
    """Who changes what runs."""

    @property
    def snapshot(self) -> Snapshot:
        """What runs."""

    async def apply(self, data: object, *, if_match: str | None, by: PushedBy | None) -> Applied:
        """Run a snapshot; `by` is whose it is, if that is said."""

    async def plan(self, data: object, *, if_match: str | None) -> Planned:
        """Say what running a snapshot would change."""

    async def patch(self, service: str, backend: str, patch: BackendPatch, /) -> dict[str, Any]:
        """Override a backend."""

    async def patch_all(self, service: str, data: object, /) -> dict[str, Any]:
        """Override backends of a service: all of them, or none."""

    async def drain_all(self, *, draining: bool) -> None:
        """Give every connection in place its last deadline, or take that back."""

    def decide_all(self, verdicts: Mapping[str, Mapping[str, Verdict]]) -> list[str]:
        """Take verdicts by service and backend id; return the `service/backend` of those that do not exist here."""


class Report(Protocol):
    """Who tells how all is."""

    def info(self) -> Info:
        """Say who answers, and what it runs."""

    async def status(self) -> Status:
        """Describe everything."""

    async def explain(self, service: str, client: str) -> Explanation:
        """Say what a client would get."""

    async def explain_by_name(self, service: str, client: str, sni: str, alpn: Sequence[str]) -> Explanation:
        """Say where a client is routed that asks for a name and protocols, and what it would get there."""

    async def metrics(self) -> bytes:
        """Return Prometheus text."""

    def not_ready(self) -> str | None:
        """Return why this node should get no traffic; None if it may."""


class Workers(Protocol):
    """Who has workers, or says that there are none."""

    async def restart(self) -> dict[str, Any]:
        """Replace every worker, one at a time, and return when all of them are new."""

    async def resize(self, count: int) -> dict[str, Any]:
        """Have `count` workers from now on."""


@dataclass(frozen=True, slots=True)
class DataPlane:
    """What the API serves: one process, or a supervisor with all of its workers."""

    applier: Applier
    report: Report
    workers: Workers
    events: Events
