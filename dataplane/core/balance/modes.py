"""The table of modes: how each one's balancer is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from dataplane.core.balance.base import Balancer
from dataplane.core.balance.leastconn import LeastConn
from dataplane.core.balance.p2c import PowerOfTwo
from dataplane.core.balance.random import Random
from dataplane.core.balance.rr import RoundRobin
from dataplane.core.balance.sticky import Sticky
from dataplane.core.balance.sticky_table import StickyTable
from dataplane.core.spec import Mode

Builder = Callable[
    [Sequence[tuple[Any, int]], Callable[[], float], Balancer[Any] | None, StickyTable | None],
    Balancer[Any],
]

BALANCERS: Final[dict[Mode, Builder]] = {
    Mode.RR: lambda members, _random, previous, _table: RoundRobin(
        members, previous if isinstance(previous, RoundRobin) else None
    ),
    Mode.STICKY: lambda members, _random, _previous, table: Sticky(members, table),
    Mode.LEASTCONN: lambda members, _random, previous, _table: LeastConn(
        members, previous if isinstance(previous, LeastConn) else None
    ),
    Mode.P2C: lambda members, random, _previous, _table: PowerOfTwo(members, random),
    Mode.RANDOM: lambda members, random, _previous, _table: Random(members, random),
}
"""Each takes the members (usable targets with effective weights >= 1, in configured order, each id once); a source of
numbers, uniform in [0, 1); the balancer that it replaces, None if there is none: whose turn it was survives, if it is of
the same mode; and for `sticky` who owns which clients, None: everybody's second choice is the first."""
