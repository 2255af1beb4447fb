"""Who has taken a content that was written for all, and who has not and why.

Theory of operation
-------------------
1. A node has it when its record says that this is the content it has taken, from this key, and that all its data planes run
   what has come of it.
2. A node that refuses it says why. An error that it had before, word by word, is about something older; one that is
   tried again by itself may go. Any other one lasts until somebody writes another content: nobody needs to wait for that.
3. A node that was there when the waiting began, and is gone, is named and not waited for. One that was gone before is nobody's
   business; one that comes later is waited for.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import NodeView, Picture

TRIED_AGAIN: Final = "it is tried again"
"""In a node's error: what is in the way may go by itself."""
_SHORT: Final = 12


class Standing(enum.Enum):
    """How far a node is."""

    RUNS = "runs"
    BEHIND = "behind"
    """It has taken something else, or not heard of it yet."""
    CONVERGING = "not_converged"
    """It has taken it, and not all its data planes run it yet."""
    REFUSED = "refused"
    """It will not take it."""
    ELSEWHERE = "follows_another_key"
    GONE = "gone"

    @property
    def is_settled(self) -> bool:
        """Whether waiting changes nothing."""
        return self in (Standing.RUNS, Standing.REFUSED, Standing.ELSEWHERE, Standing.GONE)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One node."""

    node: str
    standing: Standing
    why: str = ""
    """For people; empty if it runs."""

    def report(self) -> dict[str, str]:
        """Return it as `--json` prints it."""
        return {"node": self.node, "standing": self.standing.value, "why": self.why}


@dataclass(frozen=True, slots=True)
class Awaited:
    """What is waited for."""

    path: str
    """The key."""
    content_hash: str
    nodes: Collection[str] | None = None
    """Who is to take it; None: every live node."""
    before: Mapping[str, NodeRecord | None] | None = None
    """The nodes that were live when the waiting began, with what they said then."""


def arrivals(awaited: Awaited, picture: Picture) -> list[Arrival]:
    """Say how far everybody is that is waited for, by name."""
    before = awaited.before or {}
    live = {view.name: view for view in picture.live()}
    names = set(awaited.nodes) if awaited.nodes is not None else live.keys() | before.keys()
    return [
        _live(awaited, live[name], before.get(name)) if name in live else _gone(name, picture)
        for name in sorted(names)
    ]


def _gone(name: str, picture: Picture) -> Arrival:
    view = picture.named(name)
    if view is None:
        return Arrival(name, Standing.GONE, "there is no such node")
    if view.problem is not None:
        return Arrival(name, Standing.GONE, f"its record cannot be read: {view.problem}")
    since = f" since {view.since}" if view.since else ""
    return Arrival(name, Standing.GONE, f"{view.presence.value}{since}")


def _live(awaited: Awaited, view: NodeView, before: NodeRecord | None) -> Arrival:
    record, name = view.record, view.name
    if record is None:
        return Arrival(name, Standing.BEHIND, f"its record cannot be read: {view.problem}")
    if record.key != awaited.path:
        key = "no key" if record.key is None else f"the key {record.key}"
        return Arrival(name, Standing.ELSEWHERE, f"it follows {key}")
    if record.content == awaited.content_hash and not record.error:
        if record.converged:
            return Arrival(name, Standing.RUNS)
        return Arrival(
            name, Standing.CONVERGING, f"not all its data planes run generation {record.generation}"
        )
    if record.error:
        is_new = before is None or before.error != record.error
        is_final = is_new and TRIED_AGAIN not in record.error
        return Arrival(name, Standing.REFUSED if is_final else Standing.BEHIND, record.error)
    has = "nothing from this key" if record.content is None else f"lb.yaml {record.content[:_SHORT]}"
    return Arrival(name, Standing.BEHIND, f"it has {has}, not {awaited.content_hash[:_SHORT]}")
