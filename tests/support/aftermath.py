"""What clients met when something happened to a node: who failed, how, and who was served by whom afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from tests.support.cluster import Bed
from tests.support.load import Load, Visit

HEADS: Final = [
    "what happened",
    "until the router knew (s)",
    "flows of the node lost",
    "flows of others lost",
    "clients that failed before the router knew",
    "clients that failed afterwards",
    "slowest that was served (s)",
]


def unexcused(visits: Iterable[Visit], changes: Sequence[tuple[float, float]]) -> list[Visit]:
    """Return those that failed, though they were not under way when the router changed its mind.

    Args:
        visits: All.
        changes: From when to when that may have been, each time.
    """
    return [
        visit
        for visit in visits
        if visit.failure
        and not any(visit.begun < end and (visit.ended or end) >= begin for begin, end in changes)
    ]


@dataclass(frozen=True)
class Aftermath:
    """The clients of one event, of which the router knew `over - begun` later.

    A client that began before `over` may have been sent to a node that was gone. Of those that began afterwards no one may fail.
    """

    begun: float
    over: float
    visits: tuple[Visit, ...]
    served: dict[str, str]
    """Node by what answers, as far as somebody was answered."""

    @classmethod
    def of(cls, bed: Bed, load: Load, begun: float, over: float) -> Self:
        """Judge a load that has ended."""
        visits = tuple(load.report.visits)
        answers = {visit.answered_by for visit in visits if visit.answered_by}
        return cls(begun, over, visits, {answer: bed.node_of(answer).name for answer in answers})

    def _nodes(self, visits: Iterable[Visit]) -> Counter[str]:
        return Counter(self.served.get(visit.answered_by, "nobody") for visit in visits)

    @property
    def flows(self) -> Counter[str]:
        """Long flows, by their node."""
        return self._nodes(visit for visit in self.visits if visit.is_flow)

    @property
    def lost_flows(self) -> Counter[str]:
        """Long flows that failed, by their node."""
        return self._nodes(visit for visit in self.visits if visit.is_flow and visit.failure)

    @property
    def failed_before(self) -> Counter[str]:
        """Short clients that began before the router knew and failed, by kind."""
        return Counter(
            visit.failure for visit in self._clients() if visit.begun < self.over and visit.failure
        )

    @property
    def failed_after(self) -> list[Visit]:
        """Clients that began when the router knew already, and failed."""
        return [visit for visit in self._clients() if visit.begun >= self.over and visit.failure]

    @property
    def failed_ahead(self) -> list[Visit]:
        """Clients that were over when it happened, and had failed."""
        return [
            visit
            for visit in self.visits
            if visit.failure and visit.ended is not None and visit.ended < self.begun
        ]

    @property
    def served_after(self) -> Counter[str]:
        """Short clients that began when the router knew already, by the node that served them."""
        return self._nodes(visit for visit in self._clients() if visit.begun >= self.over)

    def _clients(self) -> Iterable[Visit]:
        return (visit for visit in self.visits if not visit.is_flow)

    def row(self, what: str, node: str) -> list[str]:
        """Return a line for `HEADS`."""
        served = [visit for visit in self._clients() if not visit.failure and visit.ended is not None]
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.failed_before.items())) or "0"
        mine = self.lost_flows[node]
        return [
            what,
            f"{self.over - self.begun:.1f}",
            f"{mine} of {self.flows[node]}",
            f"{self.lost_flows.total() - mine} of {self.flows.total() - self.flows[node]}",
            f"{kinds} of {sum(self.begun <= visit.begun < self.over for visit in self._clients())}",
            f"{len(self.failed_after)} of {sum(visit.begun >= self.over for visit in self._clients())}",
            f"{max((visit.ended or 0) - visit.begun for visit in served):.1f}" if served else "",
        ]
