"""Makes figures of the connection path's plain counters, in parts between which the loop relays.

What a service has carried is read in one step, its backends' share included: a connection that ends meanwhile would
count twice, or not at all, and a counter would fall.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dataplane.node.sticky_tables import tables_hash
from dataplane.report.explain import explain
from dataplane.report.figures import (
    BackendFigures,
    BackendView,
    Figures,
    ListenerFigures,
    Numbers,
    ProcessFigures,
    ServiceFigures,
    ServiceView,
    Tally,
    total,
)
from dataplane.report.outcomes import Outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dataplane.net.backend import Backend
    from dataplane.net.counters import Histogram
    from dataplane.net.flow import Flow
    from dataplane.node.node import Node
    from dataplane.node.running_service import RunningService
    from schemas.replies import Explanation, Info
    from schemas.status import WorkerStatus

__all__ = ["Reader", "live_bytes"]

SLICE: Final = 50
"""Backends in a part: less than a millisecond."""


class Reader:
    """Reads a node.

    Args:
        node: What counts.
        dropped_lines: Tells how many lines of logs nobody will see.
        spans: Tells how many spans were exported, and how many lost.
    """

    def __init__(
        self,
        node: Node,
        dropped_lines: Callable[[], int] = lambda: 0,
        spans: Callable[[], tuple[int, int]] = lambda: (0, 0),
    ) -> None:
        self.outcomes = Outcomes(node)
        self._node = node
        self._dropped_lines = dropped_lines
        self._spans = spans

    count = 1

    async def tally(self, info: Info, *, draining: bool) -> Tally:
        """Return all figures (dataplane.report.report.Source)."""
        del draining
        figures = await total(self.parts())
        worker: WorkerStatus = {
            "index": 0,
            "pid": info["pid"],
            "generation": info["generation"],
            "hash": info["hash"],
            "active": sum(service.active for service in figures.services.values()),
            "pooled": figures.pooled,
        }
        return Tally(figures, [worker])

    async def explain(self, service: str, client: str) -> Explanation:
        """Say what a client would get."""
        return explain(self._node, service, client)

    def not_ready(self) -> str | None:
        """Return why clients should go elsewhere."""
        paused = [listener.address for listener in self._node.listeners.values() if listener.paused]
        return f"accepting is paused on {', '.join(paused)}: out of descriptors" if paused else None

    def parts(self) -> Iterator[Figures]:
        """Yield all there is, those services that are leaving as well."""
        reactor = self._node.reactor
        process = ProcessFigures(
            reactor.lag_s,
            len(reactor.handlers),
            reactor.accept_ceiling,
            self._dropped_lines(),
            *self._spans(),
        )
        whole = Figures(process)
        for listener in self._node.listeners.values():
            told = ListenerFigures(listener.accepted, "paused" if listener.paused else "accepting")
            whole.add(Figures(listeners={(listener.service.name, listener.address): told}))
        yield whole
        for running in [*self._node.leaving.values(), *self._node.running.values()]:
            yield from self._service(running)

    def _service(self, running: RunningService) -> Iterator[Figures]:
        service, name = running.service, running.service.name
        backends = [*service.backends.values(), *service.leaving]
        live = live_bytes(service.flows)
        carried = [
            (one.totals.bytes_in + sent, one.totals.bytes_out + answered)
            for one, (sent, answered) in ((one, live.get(one, (0, 0))) for one in backends)
        ]
        totals, selection = service.totals, service.selection
        figures = ServiceFigures(
            view=ServiceView(
                mode=service.spec.mode.value,
                table_hash=tables_hash(running.tables),
                tier=selection.tier,
                panic=selection.panic,
                usable=selection.usable,
                serving=len(selection.candidates),
            ),
            recent=self.outcomes.of(service),
            active=service.own,
            queued=len(service.queue),
            connections=totals.connections,
            bytes_in=totals.bytes_in + sum(sent for sent, _ in live.values()),
            bytes_out=totals.bytes_out + sum(answered for _, answered in live.values()),
            retries=totals.retries,
            handed_over=totals.handed_over,
            closed=tuple(totals.closed.values()),
            session=_numbers(totals.session),
            queue=_numbers(totals.queue),
        )
        yield Figures(services={name: figures})
        for start in range(0, len(backends), SLICE):
            some = zip(backends[start : start + SLICE], carried[start : start + SLICE], strict=True)
            yield Figures(backends={(name, one.id): self._backend(running, one, both) for one, both in some})

    def _backend(self, running: RunningService, backend: Backend, carried: tuple[int, int]) -> BackendFigures:
        spec, totals, health = backend.spec, backend.totals, running.health(backend)
        return BackendFigures(
            view=BackendView(
                address=spec.address,
                weight=spec.weight,
                tier=spec.tier,
                state=spec.state.value,
                overridden=self._node.overrides.get((running.service.name, backend.id), {}),
                draining_since=backend.draining_since,
                removed=backend.removed,
                health=health.state.value,
                cause=health.cause,
                since=health.since,
                reachable=backend.reachable,
                usable=backend.usable,
            ),
            active=backend.own,
            pooled=len(backend.pool),
            connections=totals.connections,
            connect_failures=totals.connect_failures,
            bytes_in=carried[0],
            bytes_out=carried[1],
            ejections=totals.ejections,
            hits=totals.hits,
            misses=totals.misses,
            discarded=tuple(totals.discarded.values()),
            connect=_numbers(totals.connect),
            first_byte=_numbers(totals.first_byte),
        )


def _numbers(histogram: Histogram) -> Numbers:
    return (*histogram.counts, histogram.sum)


def live_bytes(flows: Iterable[Flow]) -> dict[Backend | None, tuple[int, int]]:
    """Return what the connections in place have carried so far (in, out), by backend."""
    sums: dict[Backend | None, tuple[int, int]] = {}
    for flow in flows:
        server = flow.server
        if server is not None:
            sent, answered = sums.get(flow.backend, (0, 0))
            sums[flow.backend] = (sent + flow.client.received, answered + server.received)
    return sums
