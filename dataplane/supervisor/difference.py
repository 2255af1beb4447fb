"""What a change is for a worker: what is other than it runs, or all of it for one that runs something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from dataplane.core.spec import BackendSpec, ServiceSpec
from dataplane.ipc.messages import PackedService, Running, StagedChange, different, pack
from dataplane.node.change import Draft, Prepared
from dataplane.node.running_service import RunningService


class Difference:
    """A prepared change beside what runs now.

    Args:
        draft: The change.
        running: What runs, and what the workers run.
    """

    def __init__(self, draft: Draft, running: Mapping[str, RunningService]) -> None:
        self._running = running
        self._prepared = draft.services
        self.specs = [
            replace(one.spec, backends=tuple(one.effective.values())) for one in draft.services.values()
        ]
        self._before = {name: as_running(one) for name, one in running.items()}
        self._others = {spec.name: different(spec, self._before.get(spec.name)) for spec in self.specs}

    def same_names(self) -> bool:
        """Return whether services and backends have the names that they have already, so that columns can stay."""
        before = self._before
        return before.keys() == self._prepared.keys() and all(
            one.effective.keys() == before[name].backends.keys() for name, one in self._prepared.items()
        )

    def change(
        self, which: tuple[int, str], base: tuple[int, str], columns: list[bytes] | None
    ) -> StagedChange:
        """Return it for those who run `base`; both are a generation and a hash, as are those of the change, `which`."""
        services = [self._packed(spec, self._prepared[spec.name]) for spec in self.specs]
        return StagedChange(*which, services, columns, base)

    def whole(self, which: tuple[int, str], columns: list[bytes]) -> StagedChange:
        """Return it for one who runs anything."""
        return whole(which, self.specs, columns)

    def news(self) -> dict[str, set[str]]:
        """Return the ids of the backends that workers do not know yet, or otherwise, by service."""
        found = {}
        for spec in self.specs:
            before = self._before.get(spec.name)
            others: Iterable[BackendSpec] = self._others[spec.name]
            if before is not None and replace(before.options, backends=()) != replace(spec, backends=()):
                others = spec.backends
            found[spec.name] = {one.id for one in others}
        return found

    def _packed(self, spec: ServiceSpec, prepared: Prepared) -> PackedService:
        running = self._running.get(spec.name)
        known = running.tables if running is not None else {}
        tables = {tier: table for tier, table in prepared.tables.items() if known.get(tier) is not table}
        return pack(spec, self._before.get(spec.name), self._others[spec.name], tables, prepared.loops)


def as_running(running: RunningService) -> Running:
    """Return a service as a worker runs it."""
    return Running(running.service.spec, running.effective)


def whole(which: tuple[int, str], specs: list[ServiceSpec], columns: list[bytes]) -> StagedChange:
    """Return all of what is to run, of a generation and a hash."""
    return StagedChange(*which, [pack(spec) for spec in specs], columns, None)
