"""The garbage collector, told what this process is like.

Connections leave no cycles behind, so reference counts free nearly everything. What a full collection would find
is not worth what it costs: with 10,000 backends it stops every relay for 60 ms, and one apply set off several.
"""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["tune_collector"]

YOUNG: Final = 50_000
"""Net allocations between two collections of the youngest generation, which take about 3 ms at most."""
MIDDLE: Final = 20
FULL: Final = 1_000
"""Collections of the middle generation until a full one: days, not seconds."""


def tune_collector() -> None:
    """Leave out of every collection what exists when the process starts, and collect seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, FULL)
