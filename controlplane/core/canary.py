"""Which content counts on a node: the key's, or for a time that of a canary, which some nodes take first.

Theory of operation
-------------------
1. The key and the canary's record beside it are one picture: both as Consul had them at one index. So a promotion, which
   writes the key and ends the record at once, hands nothing on where the canary runs: the content is the same one.
2. A node that a record names takes its content for `lasts_s`, counted by the node's own monotonic clock from its first
   sight of the record's id. Nothing that happens to the command, to Consul or to the network makes it longer: then the
   node returns to the key's content, which it has read.
3. What was seen outlives the process (`Memory`): after a restart the wall clock says how much time is left, and
   never that it is more than there was. A process that has just started and remembers nothing counts from `since` in the
   record, as it may have run the canary before.
4. A canary that is over here stays over, whatever its record says: only another id begins again.
5. A record that cannot be read names nobody.
6. A canary's content may call this node something else. That changes nothing: it was named by the name that it had.

| state | what is seen | next | counts |
|---|---|---|---|
| NONE | nothing that names us | NONE | the key |
| NONE | another id names us | RUNNING | the canary |
| NONE | another id names us, and its time is up | OVER | the key |
| RUNNING | the same id, time is left | RUNNING | the canary |
| RUNNING | its time is up | OVER | the key: `expired` |
| RUNNING | nothing that names us, or its end | NONE | the key: as the end says, else `promoted` if it is the same content, else `taken_back` |
| RUNNING | another id names us | RUNNING | the new canary: the old one was `replaced` |
| OVER | the same id | OVER | the key |
| OVER | nothing that names us, or its end | NONE | the key |
| OVER | another id names us | RUNNING | the canary |
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from controlplane.core.canary_record import CanaryRecord, digest_of_content, seconds_of


class Phase(enum.Enum):
    """How far a canary has come on this node."""

    NONE = "none"
    RUNNING = "running"
    OVER = "over"
    """Its time was up here, and its record is there still."""


class Event(enum.Enum):
    """What a look shows."""

    GONE = "gone"
    """No record, one that has ended, or one that does not name us."""
    NEW = "new"
    """A record of another id names us, and there is time left."""
    LATE = "late"
    """A record of another id names us, and its time was up before we saw it."""
    SAME = "same"
    """The known record, in time."""
    LAPSED = "lapsed"
    """The known record's time is up."""


TRANSITIONS: Final[dict[tuple[Phase, Event], Phase]] = {
    (Phase.NONE, Event.GONE): Phase.NONE,
    (Phase.NONE, Event.NEW): Phase.RUNNING,
    (Phase.NONE, Event.LATE): Phase.OVER,
    (Phase.RUNNING, Event.SAME): Phase.RUNNING,
    (Phase.RUNNING, Event.LAPSED): Phase.OVER,
    (Phase.RUNNING, Event.GONE): Phase.NONE,
    (Phase.RUNNING, Event.NEW): Phase.RUNNING,
    (Phase.RUNNING, Event.LATE): Phase.OVER,
    (Phase.OVER, Event.SAME): Phase.OVER,
    (Phase.OVER, Event.LAPSED): Phase.OVER,
    (Phase.OVER, Event.GONE): Phase.NONE,
    (Phase.OVER, Event.NEW): Phase.RUNNING,
    (Phase.OVER, Event.LATE): Phase.OVER,
}


@dataclass(frozen=True, slots=True)
class Picture:
    """What Consul has, at one index."""

    content: bytes | None
    """The key's; None: it is missing or empty."""
    canary: CanaryRecord | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """What a node remembers of a canary over its own restart."""

    id: str
    by: str
    since: str
    seen: float
    """Its first sight, in seconds since the epoch by the node's clock."""
    lasts_s: float
    content_hash: str
    over: bool
    base: str | None
    """The key's content at the last look, which counts when the canary is over and Consul is away."""

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> Memory:
        """Read what was written down; raises TypeError or ValueError if it was something else."""
        made = cls(**value)
        wanted = (str, str, str, float | int, float | int, str, bool, str | None)
        values = (
            made.id,
            made.by,
            made.since,
            made.seen,
            made.lasts_s,
            made.content_hash,
            made.over,
            made.base,
        )
        if not all(isinstance(each, kind) for each, kind in zip(values, wanted, strict=True)):
            raise ValueError("a field of another kind")
        return made


@dataclass(frozen=True, slots=True)
class Ended:
    """A canary that ran here, and does no more."""

    id: str
    by: str
    how: str
    """`promoted`, `taken_back`, `expired` or `replaced`; or what a later version says."""
    why: str = ""
    """The evidence in a line, if somebody said."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What counts now."""

    content: bytes | None
    """None: nothing is known that could be taken; what was taken before holds."""
    began: Memory | None = None
    """The canary that has just begun here."""
    ended: Ended | None = None
    """The one that has just ended here."""
    note: str = ""
    """Where the content comes from, if not just from the key."""


class CanaryRule:
    """The rule on one node.

    Args:
        remembered: By the process before this one; None: nothing.
        now: Monotonic seconds.
        wall: Seconds since the epoch.
    """

    def __init__(self, remembered: Memory | None, now: float, wall: float) -> None:
        self.memory = remembered
        """What is to be remembered; None: nothing."""
        self.phase = Phase.NONE
        self._until = now
        self._is_first = True
        self._called: str | None = None
        """What this node was called when the newest canary named it."""
        if remembered is not None:
            self.phase = Phase.OVER if remembered.over else Phase.RUNNING
            self._until = now + _left(remembered.lasts_s, remembered.seen, wall)

    @property
    def due(self) -> float | None:
        """When to look again whatever Consul says, in monotonic seconds; None: when there is another picture."""
        return self._until if self.phase is Phase.RUNNING else None

    def look(self, seen: Picture | None, node: str | None, now: float, wall: float) -> Choice:
        """Say what counts.

        Args:
            seen: The newest picture; None: Consul has not answered yet.
            node: This node's name in its cluster; None: it has none, and no canary names it.
            now: Monotonic seconds.
            wall: Seconds since the epoch.
        """
        record = None if seen is None else self._ours(seen.canary, node)
        before, known = self.phase, self.memory
        left_s = self._left(record, wall)
        event = self._event(seen, record, now, left_s)
        self.phase = TRANSITIONS[before, event]
        if record is not None and event in (Event.NEW, Event.LATE):
            self._until = now + left_s
            seen_at = wall - (record.lasts_s - left_s)
        else:
            seen_at = wall
        self.memory = self._remembered(event, record, None if seen is None else _text(seen.content), seen_at)
        # Who does not know its own name yet cannot tell whether it has seen its canary.
        self._is_first = self._is_first and (seen is None or node is None)
        began = self.memory if event is Event.NEW else None
        ended = None
        if before is Phase.RUNNING and event is not Event.SAME and known is not None:
            ended = _ended(known, event, seen)
        if self.phase is Phase.RUNNING:
            content = None if record is None or record.content is None else record.content.encode()
            note = "" if record is None else f"canary {record.short_id} of {record.by}"
            return Choice(content, began, ended, note)
        if seen is None:
            base = known.base if known is not None and self.phase is Phase.OVER else None
            return Choice(None if base is None else base.encode(), None, ended, _note(ended, None))
        content = seen.content
        if content is None and known is not None and known.base is not None:  # the key has gone meanwhile
            content = known.base.encode()
        return Choice(content, None, ended, _note(ended, seen))

    def _ours(self, record: CanaryRecord | None, node: str | None) -> CanaryRecord | None:
        """Return a record that names this node, or did when it was first seen."""
        if record is None or record.ended is not None:
            return None
        if self.memory is None or self.memory.id != record.id or node in record.nodes:
            self._called = node
        return record if self._called in record.nodes else None

    def _event(self, seen: Picture | None, record: CanaryRecord | None, now: float, left_s: float) -> Event:
        if self.memory is not None and (seen is None or (record is not None and record.id == self.memory.id)):
            return Event.LAPSED if now >= self._until else Event.SAME
        if record is None:
            return Event.GONE
        return Event.NEW if left_s > 0 else Event.LATE

    def _left(self, record: CanaryRecord | None, wall: float) -> float:
        """Return how long a canary that is new here may run."""
        if record is None:
            return 0.0
        return _left(record.lasts_s, seconds_of(record.since), wall) if self._is_first else record.lasts_s

    def _remembered(
        self, event: Event, record: CanaryRecord | None, base: str | None, seen_at: float
    ) -> Memory | None:
        """Return what is to be remembered after an event."""
        if event is Event.GONE:
            return None
        over = self.phase is Phase.OVER
        if record is not None and event in (Event.NEW, Event.LATE):
            digest = record.content_hash
            return Memory(record.id, record.by, record.since, seen_at, record.lasts_s, digest, over, base)
        return self.memory and replace(self.memory, over=over, base=base or self.memory.base)


def _left(lasts_s: float, since: float, wall: float) -> float:
    """Return how much of a time is left that began at `since`; a clock that was set back does not make it longer."""
    return max(0.0, lasts_s - max(0.0, wall - since))


def _text(content: bytes | None) -> str | None:
    try:
        return None if not content else content.decode()
    except UnicodeDecodeError:  # the daemon refuses it, too
        return None


def _ended(known: Memory, event: Event, seen: Picture | None) -> Ended:
    """Say how a canary ended that ran here."""
    record = None if seen is None else seen.canary
    if event is Event.LAPSED:
        return Ended(
            known.id, known.by, "expired", f"it was to last {known.lasts_s:g} s, and nobody ended it"
        )
    if event in (Event.NEW, Event.LATE):
        return Ended(known.id, known.by, "replaced")
    if record is not None and record.id == known.id and record.ended is not None:
        return Ended(known.id, known.by, record.ended.how, record.ended.why)
    content = None if seen is None else seen.content
    is_same = bool(content) and digest_of_content(content or b"") == known.content_hash
    return Ended(known.id, known.by, "promoted" if is_same else "taken_back")


def _note(ended: Ended | None, seen: Picture | None) -> str:
    """Say where the key's content comes from: of a canary that ended here, or that was promoted elsewhere."""
    if ended is not None:
        return _line(ended)
    record = None if seen is None else seen.canary
    if seen is None or record is None or record.ended is None or record.ended.how != "promoted":
        return ""
    if not seen.content or digest_of_content(seen.content) != record.content_hash:
        return ""
    return _line(Ended(record.id, record.by, record.ended.how, record.ended.why))


def _line(ended: Ended) -> str:
    said = f"canary {ended.id[:8]} of {ended.by} {ended.how}"
    return f"{said}: {ended.why}" if ended.why else said
