"""What the clients of each service met in the last minute."""

from __future__ import annotations

from dataplane.core.reasons import CloseReason, Harm
from dataplane.core.recent import STEP_S, Recent
from dataplane.net.service import Service
from dataplane.node.node import Node
from dataplane.report.figures import RecentFigures

_REFUSED, _CUT = (
    tuple((place, reason.value) for place, reason in enumerate(CloseReason) if reason.harm is harm)
    for harm in (Harm.REFUSED, Harm.CUT)
)
"""Where their counts stand among those of all close reasons."""


class Outcomes:
    """Looks at the counters of a node's services now and then, and tells what has become of them lately."""

    __slots__ = ("_node", "_of", "tick")

    def __init__(self, node: Node) -> None:
        self._node = node
        self._of: dict[Service, Recent] = {}
        self.tick = 0

    def start(self) -> None:
        """Look from now on."""
        self.on_timer(self._node.reactor.clock())

    def on_timer(self, now: float) -> None:
        """Look, and come again."""
        self._node.reactor.wheel.at(self, now + STEP_S)  # first: a bug met by one must not end it for all
        known, self._of = self._of, {}
        for running in (*self._node.running.values(), *self._node.leaving.values()):
            service = running.service
            self._of[service] = recent = known.get(service) or Recent(now, [0] * len(_counts(service)))
            recent.look(now, _counts(service))

    def of(self, service: Service) -> RecentFigures:
        """Tell how many came in the last minute, and how many were harmed by what, not by their own doing."""
        now, counts = self._node.reactor.clock(), _counts(service)
        recent = self._of.get(service)
        # Without one it is younger than the last look.
        window_s, (connections, *closed) = recent.since(now, counts) if recent else (0.0, counts)
        return RecentFigures(
            window_s,
            connections,
            {word: closed[place] for place, word in _REFUSED if closed[place]},
            {word: closed[place] for place, word in _CUT if closed[place]},
        )


def _counts(service: Service) -> tuple[int, ...]:
    """Return clients accepted, and then clients gone by close reason, in the order of `CloseReason`."""
    totals = service.totals
    return (totals.connections, *totals.closed.values())
