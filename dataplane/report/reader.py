"""Makes figures of the connection path's plain counters, in parts between which the loop relays.

What a service has carried is read in one step, its backends' share included: a connection that ends meanwhile would
count twice, or not at all, and a counter would fall.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from dataplane.core.reasons import DiscardCause
from dataplane.net.backend import Backend
from dataplane.net.counters import Histogram
from dataplane.net.flow import Flow
from dataplane.node.node import Node
from dataplane.node.routers import accepted
from dataplane.node.running_service import RunningService
from dataplane.node.sticky_tables import tables_hash
from dataplane.node.tls import certificates_of
from dataplane.report.explain import explain
from dataplane.report.figures import (
    BackendFigures,
    Figures,
    ListenerFigures,
    Numbers,
    ProcessFigures,
    ServiceFigures,
    Tally,
    total,
)
from dataplane.report.outcomes import Outcomes
from dataplane.report.tls_row import tls_numbers, tls_sum
from dataplane.report.views import BackendView, ServiceView, Sight, Sights

if TYPE_CHECKING:  # a worker does without
    from schemas.replies import Explanation, Info
    from schemas.status import WorkerStatus

Live = dict[Backend | None, tuple[int, int]]
MAX_BACKENDS: Final = 200
"""Backends of a service that have series of their own; a larger service is a crowd, whose backends are one in metrics."""
MAX_IN_ALL: Final = 1_000
"""Backends of a node that have series of their own, 70 each; the services that come after those are crowds, too."""
SLICE: Final = 100
"""Backends in a part: less than a millisecond."""
CROWD_SLICE: Final = 500
"""Backends of a crowd that are read between two turns of the loop: a millisecond."""

_SIGHT: Final = attrgetter("spec.weight", "usable", "reachable", "draining_since", "health.state")
_COUNTS: Final = attrgetter("connections", "connect_failures", "ejections", "hits", "misses")


class Reader:
    """Reads a node; one that does not relay, a supervisor's, knows only what is configured and what checks find.

    `dropped_lines` tells how many lines of logs nobody will see, `spans` how many were exported, and how many lost.
    """

    def __init__(
        self,
        node: Node,
        dropped_lines: Callable[[], int] = lambda: 0,
        spans: Callable[[], tuple[int, int]] = lambda: (0, 0),
        *,
        relays: bool = True,
    ) -> None:
        self._relays = relays
        self.outcomes = Outcomes(node)
        self._node = node
        self._dropped_lines = dropped_lines
        self._spans = spans

    count = 1

    async def tally(self, info: Info, *, each: bool, draining: bool) -> Tally:
        """Return all figures (dataplane.report.report.Source)."""
        del draining
        figures = await total(self.parts(each=each))
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

    def parts(self, *, each: bool) -> Iterator[Figures]:
        """Yield all there is, services that leave as well; with `each`, for status, each backend of a crowd.

        Else, for metrics, the crowd as one, which takes a fifth of the time.
        """
        reactor = self._node.reactor
        process = ProcessFigures(
            reactor.lag_s,
            len(reactor.handlers),
            reactor.accept_ceiling,
            self._dropped_lines(),
            *self._spans(),
        )
        whole = Figures(process)
        for name, address, count, state in accepted(self._node):
            whole.add(Figures(listeners={(name, address): ListenerFigures(count, state)}))
        yield whole
        crowds = _crowds(self._node)
        for running in [*self._node.leaving.values(), *self._node.running.values()]:
            live = live_bytes(running.service.flows)
            crowd = running.service.name in crowds
            if crowd and not each:
                yield from self._crowd(running, live)
            else:
                yield from self._each(running, live, histograms=not crowd)

    def _service(self, running: RunningService, live: Live) -> Figures:
        service = running.service
        totals, selection = service.totals, service.selection
        one = ServiceFigures(
            view=ServiceView(
                mode=service.spec.mode.value,
                table_hash=tables_hash(running.tables),
                tier=selection.tier,
                panic=selection.panic,
                usable=selection.usable,
                serving=len(selection.candidates),
                certificates=certificates_of(service),
                match=service.spec.match,
                backend_tls=service.spec.backend_tls,
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
            tls=tls_numbers(totals),
        )
        return Figures(services={service.name: one})

    def _each(self, running: RunningService, live: Live, *, histograms: bool) -> Iterator[Figures]:
        name, backends = running.service.name, _backends(running)
        carried = [(one.totals.bytes_in, one.totals.bytes_out, *live.get(one, (0, 0))) for one in backends]
        yield self._service(running, live)
        for start in range(0, len(backends), SLICE):
            some = zip(backends[start : start + SLICE], carried[start : start + SLICE], strict=True)
            yield Figures(
                backends={
                    (name, one.id): self._backend(running, one, bytes_, histograms=histograms)
                    for one, bytes_ in some
                }
            )

    def _crowd(self, running: RunningService, live: Live) -> Iterator[Figures]:
        """Sum column by column."""
        backends = _backends(running)
        counting = backends if self._relays else []
        totals = [one.totals for one in counting]
        bytes_in = sum(one.bytes_in for one in totals) + sum(sent for sent, _ in live.values())
        bytes_out = sum(one.bytes_out for one in totals) + sum(answered for _, answered in live.values())
        yield self._service(running, live)
        seen, known = Sights(), dict[tuple[Any, ...], Sight]()
        active, pooled, tls = 0, 0, tls_sum(totals)
        counts, discarded = [0] * 5, [0] * len(DiscardCause)
        for start in range(0, len(backends), CROWD_SLICE):
            some, theirs = backends[start : start + CROWD_SLICE], totals[start : start + CROWD_SLICE]
            for backend, row in zip(some, map(_SIGHT, some), strict=True):
                seen[backend.id] = known.get(row) or known.setdefault(row, Sight(*row))
            active += sum(one.own for one in counting[start : start + CROWD_SLICE])
            pooled += sum(len(one.pool) for one in counting[start : start + CROWD_SLICE])
            counts = list(map(sum, zip(counts, *map(_COUNTS, theirs), strict=True)))
            by_cause = (one.discarded.values() for one in theirs)
            discarded = list(map(sum, zip(discarded, *by_cause, strict=True)))
            yield Figures()
        # What a backend's own checks do not know: that it is not resolved, or ejected.
        ejected = {one.backend_id for one in running.outliers.ejected()}
        for backend in backends:
            if backend.absence is not None or backend.id in ejected:
                state = running.health(backend).state
                seen[backend.id] = seen[backend.id]._replace(health=state)
        connections, failures, ejections, hits, misses = counts
        crowd = BackendFigures(
            seen,
            active,
            pooled,
            connections,
            failures,
            bytes_in,
            bytes_out,
            ejections,
            hits,
            misses,
            tuple(discarded),
            (),
            (),
            tls,
        )
        yield Figures(crowds={running.service.name: crowd})

    def _backend(
        self,
        running: RunningService,
        backend: Backend,
        carried: tuple[int, int, int, int],
        *,
        histograms: bool,
    ) -> BackendFigures[BackendView]:
        spec, totals, health = backend.spec, backend.totals, running.health(backend)
        bytes_in, bytes_out, sent, answered = carried
        # In the order of the fields: by name, it takes half as long again.
        view = BackendView(
            spec.address,
            spec.weight,
            spec.tier,
            spec.state.value,
            self._node.overrides.get((running.service.name, backend.id), {}),
            backend.draining_since,
            backend.removed,
            health.state.value,
            health.cause,
            health.since,
            backend.reachable,
            backend.usable,
        )
        return BackendFigures(
            view,
            backend.own,
            len(backend.pool),
            totals.connections,
            totals.connect_failures,
            bytes_in + sent,
            bytes_out + answered,
            totals.ejections,
            totals.hits,
            totals.misses,
            tuple(totals.discarded.values()),
            _numbers(totals.connect) if histograms else (),
            _numbers(totals.first_byte),
            tls_numbers(totals),
        )


def _backends(running: RunningService) -> list[Backend]:
    return [*running.service.backends.values(), *running.service.leaving]


def _crowds(node: Node) -> set[str]:
    """Return the services that are crowds: those of which all processes know first, so that they find the same."""
    left, crowds = MAX_IN_ALL, set()
    for running in [*node.running.values(), *node.leaving.values()]:
        size = len(running.service.backends)
        if size > min(MAX_BACKENDS, left):
            crowds.add(running.service.name)
        else:
            left -= size
    return crowds


def _numbers(histogram: Histogram) -> Numbers:
    return (*histogram.counts, histogram.sum)


def live_bytes(flows: Iterable[Flow]) -> Live:
    """Return what the connections in place have carried so far (in, out), by backend."""
    sums: Live = {}
    for flow in flows:
        server = flow.server
        if server is not None:
            sent, answered = sums.get(flow.backend, (0, 0))
            sums[flow.backend] = (sent + flow.client.received, answered + server.received)
    return sums
