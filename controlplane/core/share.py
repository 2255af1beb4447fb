"""By how many nodes the limits of a cluster are divided, and what that leaves this node.

Theory of operation:

1. A limit is a promise that all nodes together keep. So a node that comes counts at once: for a moment there may be less
   than was promised, and never more.
2. A node that goes counts on until fewer nodes have been there for `HOLD_S` without a break. Then those count that were there at
   most meanwhile. One that comes and goes makes no change of limits each time.
3. Where it is not known who is there, nothing changes, and no time of rule 2 passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

HOLD_S: Final = 10.0


class Share:
    """How many nodes count.

    Args:
        nodes: As it was before; None: that was never known.
    """

    def __init__(self, nodes: int | None) -> None:
        self.nodes = nodes
        self._fewer_since: float | None = None
        self._most = 0
        """How many there were at most since then."""

    def note(self, live: int | None, now: float) -> None:
        """Take in how many are alive for certain; None: that is not known. This node is, whoever else is."""
        live = None if live is None else max(1, live)
        if live is None or self.nodes is None or live >= self.nodes:
            self.nodes = self.nodes if live is None else live
            self._fewer_since = None
            return
        if self._fewer_since is None:
            self._fewer_since, self._most = now, 0
        self._most = max(self._most, live)
        if now >= self._fewer_since + HOLD_S:
            self.nodes = self._most
            self._fewer_since = None
            self.note(live, now)

    def due(self) -> float | None:
        """Return when fewer nodes may count, in monotonic seconds, so that one should look again; None: no time soon."""
        return None if self._fewer_since is None else self._fewer_since + HOLD_S


def share_report(
    nodes: int | None, scoped: Mapping[str, Mapping[str, float]], services: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Tell what this node has of the limits that all share, as `status --json` prints it; None: there are none.

    Args:
        nodes: By how many they are divided; None: never known, so they are not.
        scoped: The limits as they are written, by service.
        services: Those of the snapshot, which has this node's share.
    """
    limits = {
        name: {
            limit: {"limit": written, "here": services[name]["limits"][limit]}
            for limit, written in each.items()
        }
        for name, each in sorted(scoped.items())
        if name in services
    }
    return {"nodes": nodes, "limits": limits} if limits else None
