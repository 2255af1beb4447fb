"""Flap damping: an instance that goes up and down all the time stays down until it has calmed.

The penalty of BGP route flap damping (RFC 2439): one per change of state, halved every half-life; above `suppress`
an instance is held down until its penalty has fallen below `reuse`. Registering and deregistering do not count:
they are somebody's word, not a check's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["FlapDamper"]

HALF_LIFE_S: Final = 60.0
SUPPRESS: Final = 5.0
"""The penalty above which an instance is suppressed."""
REUSE: Final = 2.0
"""The penalty below which it is let back."""
_FORGET_BELOW: Final = 0.05


@dataclass(slots=True)
class _Record:
    up: bool
    penalty: float
    at: float
    suppressed: bool = False


class FlapDamper:
    """Penalties of one set of instances, by id."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def note(self, name: str, now: float, *, up: bool) -> None:
        """Take note of an instance's state; a change adds one to its penalty."""
        record = self._records.get(name)
        if record is None:
            self._records[name] = _Record(up, 0.0, now)
            return
        self._settle(record, now)
        if record.up is not up:
            record.up = up
            record.penalty += 1.0
            if record.penalty > SUPPRESS:
                record.suppressed = True

    def is_suppressed(self, name: str, now: float) -> bool:
        """Tell whether an instance is to be treated as down."""
        record = self._records.get(name)
        if record is None:
            return False
        self._settle(record, now)
        return record.suppressed

    def reuses(self) -> list[float]:
        """Return when each suppressed instance is let back, in monotonic seconds."""
        return [
            record.at + HALF_LIFE_S * math.log2(record.penalty / REUSE)
            for record in self._records.values()
            if record.suppressed
        ]

    def prune(self, present: frozenset[str] | set[str], now: float) -> None:
        """Forget instances that are gone and whose penalty has faded."""
        for name, record in list(self._records.items()):
            if name not in present:
                self._settle(record, now)
                if record.penalty < _FORGET_BELOW:
                    del self._records[name]

    def _settle(self, record: _Record, now: float) -> None:
        """Let a penalty fade up to now."""
        record.penalty *= 0.5 ** (max(0.0, now - record.at) / HALF_LIFE_S)
        record.at = now
        # the tolerance: at exactly the time of reuses() rounding may leave a trace above the mark
        if record.suppressed and record.penalty <= REUSE * (1 + 1e-9):
            record.suppressed = False
