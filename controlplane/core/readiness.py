"""Whether this node may receive traffic, and why not: one verdict for `ready`, Consul, routers and whoever else asks.

A node is ready while every data plane accepts on every listener of its snapshot, and nobody is taking it out. It is
*preferred* unless it asks for other nodes to be preferred (`lowered`). What is not known does not count as ready.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.core.drain import Drain, Phase


class Reason(StrEnum):
    """Why a node is not ready."""

    NO_DATA_PLANE = "no_data_plane"
    """None was found: nothing is served."""
    DATA_PLANE = "data_plane"
    """One does not accept on all its listeners, refuses, or does not answer."""
    WITHDRAWN = "withdrawn"
    """`lb-control node drain` has begun: new clients go elsewhere."""
    DRAINING = "draining"
    """The same; connections in place have their last deadline."""
    DRAINED = "drained"
    """It may be switched off; `lb-control node enable` brings it back."""
    UNKNOWN = "unknown"
    """What is on record about taking it out cannot be read."""


_TAKEN_OUT = {
    Phase.WITHDRAWN: Reason.WITHDRAWN,
    Phase.DRAINING: Reason.DRAINING,
    Phase.DRAINED: Reason.DRAINED,
}


@dataclass(frozen=True, slots=True)
class Readiness:
    """The verdict."""

    why: tuple[tuple[Reason, str], ...]
    """Every reason against it, with its words; empty: it is ready."""
    drain: Drain
    planes: Mapping[str, str | None] = field(default_factory=dict)
    """Each data plane by name, and what it has against it; None: it is ready."""

    @property
    def ready(self) -> bool:
        """Whether this node may receive traffic."""
        return not self.why

    @property
    def preferred(self) -> bool:
        """Whether it is ready, and does not ask for other nodes to be preferred."""
        return self.ready and self.drain.phase is Phase.ENABLED

    @property
    def reason(self) -> str:
        """Why it is not ready, on one line; empty if it is."""
        return "; ".join(f"{reason}: {words}" for reason, words in self.why)


def readiness(planes: Mapping[str, str | None] | str, drain: Drain | str) -> Readiness:
    """Judge.

    Args:
        planes: Each data plane by name, and what it has against it (None: it is ready), or why there is none.
        drain: What is on record about taking the node out, or why that cannot be read.
    """
    why: list[tuple[Reason, str]] = []
    if isinstance(drain, str):
        why.append((Reason.UNKNOWN, drain))
        drain = Drain()
    elif (reason := _TAKEN_OUT.get(drain.phase)) is not None:
        why.append(
            (reason, f"by {drain.by} since {drain.since}; to take clients again: lb-control node enable")
        )
    if isinstance(planes, str) or not planes:
        words = planes if isinstance(planes, str) else "none was found"
        why.append((Reason.NO_DATA_PLANE, words))
        planes = {}
    why += [(Reason.DATA_PLANE, f"{name}: {words}") for name, words in planes.items() if words is not None]
    return Readiness(tuple(why), drain, planes)
