"""A worker's share of a pool whose sizes are the node's: it follows its clients, not the number of workers.

Theory of operation:

1. Three cells for each backend and worker (`shared_counters`): what its pool holds, dials included; the clients that
   it had lately; and how many idle connections it wants. A worker writes its own, and reads all.
2. Nobody asks anybody for leave. A worker takes what is free: it may hold `max_idle` alone, if the others hold
   nothing. Before it dials it claims: it writes what it will hold, adds up what all hold, and gives back what is
   too many. Two that claim the last place at once both give it back. So `max_idle` is exceeded by nobody who
   dials, but for what another core has written in the nanoseconds in which a store travels. What a client leaves
   (`reuse`) is put back after a look, without a claim: at most one too many for each further worker.
3. What a worker wants is with `preconnect` the pool's own target. With `reuse` it is all of the pool for WINDOW_S
   after a connection found no room, and otherwise the most that it has held in this window and the one before,
   less those that nobody has taken: as many as always lay there, for the last in is the first out.
4. If all want more than there is, each may hold its allotment: `divide`, the max-min fair division with the
   clients of each, and one more, as its weight. Nobody gets more than it wants; what one leaves, the others share; and nobody
   who wants it gets less than its clients' part of the pool. `cap` keeps a worker to that.
5. Who holds more than its allotment gives up the surplus when a sibling lacks some of its own and nothing is free:
   all who have a surplus share the loss, so together they close as many as are lacking, and not more. But for rule
   7 nothing else makes a sibling close a connection: as long as there is room, a surplus grows old in peace.
6. `min_idle` is divided by the same weights: evenly, as long as nobody has come. Who drains has no weight. `part`
   rounds so that the parts add up, which all workers compute alike.
7. `limits.per_backend` less the node's clients is a size, too: the pools of all stay below it. A client displaces
   an idle connection of its own worker; if that has none, it dials, and a sibling that looks and finds too many
   gives up one.
8. A worker looks (`refresh`) at POOLS_REFRESHED pools every REFRESH_S (`worker.node`). Weights are written when they
   are off by a quarter, or chance would move connections back and forth all the time.
"""

from __future__ import annotations

from typing import Final

from dataplane.core.fair_share import divide, part
from dataplane.core.pool import TAU_S
from dataplane.core.reasons import DiscardCause
from dataplane.core.spec import PoolMode, PoolSpec
from dataplane.ipc.shared_counters import EVENTS, HELD, WANTED, Board
from dataplane.net.goal import PoolShare
from dataplane.net.pool import Pool

WINDOW_S: Final = 5.0
"""For how long an idle connection is not taken before it counts as not needed, and how long a lack is remembered."""
WEIGHT_STEP: Final = 4
"""A weight is written when it is off by more than one in so many."""


class WorkerShare(PoolShare):
    """What one worker may hold of the idle connections of a backend; without a column, nobody else counts here."""

    __slots__ = (
        "_board",
        "_clients",
        "_column",
        "_events",
        "_held",
        "_highest",
        "_highest_before",
        "_idle",
        "_lowest",
        "_lowest_before",
        "_own",
        "_short_until",
        "_wanted",
        "_window_ends",
    )

    is_shared = True

    def __init__(self, board: Board, column: int | None) -> None:
        self._board = board
        self._column = column
        self._held = board.part(HELD, column)
        self._own = self._idle = 0
        """What the pool holds, and what of it lies idle."""
        self._clients = 0
        """How many had come at the last look, to see whether any has come since."""
        self._events = 0
        self._wanted = 0
        self._lowest = self._lowest_before = 0
        """The fewest that lay idle in this window, and in the one before."""
        self._highest = self._highest_before = 0
        """The most that it held."""
        self._window_ends = self._short_until = 0.0
        super().__init__(0)  # while not all can have what they want, it is less than the whole pool

    def use(self, column: int | None) -> None:
        """Count in another column from now on; what is counted moves along."""
        events, wanted = self._events, self._wanted
        self._held[self._board.row] = 0
        self._write(0, 0)
        self._column = column
        self._held = self._board.part(HELD, column)
        self._held[self._board.row] = self._own
        self._write(events, wanted)

    # -- what the pool asks ---------------------------------------------------------------------------

    def configure(self, spec: PoolSpec) -> None:
        """Take new sizes, which are the node's."""
        self.cap = spec.max_idle

    def part(self, least: int) -> int:
        """Return this worker's part of `min_idle`."""
        if self._column is None or not least:
            return least
        return part(least, self._weights(self._board.head[0]), self._board.row)

    def held(self, own: int) -> int:
        """Return how many connections the pools of the node account for, dials included."""
        del own  # it is published
        return sum(self._held[: self._board.head[0]])

    def has_room(self, own: int, size: int, now: float) -> bool:
        """Tell whether one more may be put back; if not, this worker is short of room for a while."""
        if own < self.cap and self.held(own) < size:
            return True
        self._short_until = now + WINDOW_S
        return False

    def claim(self, own: int, missing: int, size: int) -> int:
        """Return how many of `missing` may be dialled: first the claim, then the look (rule 2)."""
        self._held[self._board.row] = own + missing
        return max(0, missing - max(0, self.held(own) - size))

    def publish(self, idle: int, own: int) -> None:
        """Tell the others what this worker holds."""
        self._own, self._idle = own, idle
        self._lowest = min(self._lowest, idle)
        self._held[self._board.row] = own

    def clear(self) -> None:
        """Have no claim to any."""
        self.publish(0, 0)
        self._lowest = self._lowest_before = self._highest = self._highest_before = 0
        self._write(0, 0)

    # -- what the others need -------------------------------------------------------------------------

    def refresh(self, pool: Pool) -> None:
        """Tell the others what this worker has and wants, give up what they lack, and dial what is missing."""
        backend, goal = pool.backend, pool.goal
        clients = backend.totals.hits + backend.totals.misses
        idle = not (self._events or self._wanted or goal.spec.min_idle or goal.count or self._own)
        if idle and clients == self._clients:
            return
        self._clients = clients
        if self._column is not None:
            events = round(goal.demand.rate(goal.reactor.now) * TAU_S)
            if abs(events - self._events) <= self._events // WEIGHT_STEP:
                events = self._events
            goal.take_part()
            in_use = backend.usable and goal.spec.mode is not PoolMode.OFF
            self._write(events if in_use else 0, self._use_for(pool) if in_use else 0)
            self._give_up(pool)
        pool.refiller.restock()

    def retire(self, pool: Pool) -> None:
        """Close everything and claim nothing: this worker takes no more clients."""
        self.cap = 0
        if self._events or pool.goal.count or self._own:
            pool.clear(DiscardCause.SURPLUS)

    def _weights(self, rows: int) -> list[int]:
        """Return, for each of the first rows, its clients and one more; 0 for who takes no clients."""
        board = self._board
        events = board.part(EVENTS, self._column)[:rows]
        return [here and count + 1 for here, count in zip(board.counters.present[:rows], events, strict=True)]

    def _use_for(self, pool: Pool) -> int:
        """Return how many this worker wants (rule 3)."""
        goal, most = pool.goal, pool.goal.spec.max_idle
        if goal.spec.mode is PoolMode.PRECONNECT:
            return goal.target()
        now, own = goal.reactor.now, self._own
        self._highest = max(self._highest, own)
        if now >= self._window_ends:
            self._lowest_before, self._lowest = self._lowest, self._idle
            self._highest_before, self._highest = self._highest, own
            self._window_ends = now + WINDOW_S
        if now < self._short_until:
            return most
        used = max(self._highest, self._highest_before) - min(self._lowest, self._lowest_before)
        return min(max(goal.least, used), most)

    def _write(self, events: int, wanted: int) -> None:
        """Tell the others how many clients this worker had lately, and how many connections it wants."""
        if self._column is not None:
            if events != self._events:
                self._board.part(EVENTS, self._column)[self._board.row] = events
            if wanted != self._wanted:
                self._board.part(WANTED, self._column)[self._board.row] = wanted
        self._events, self._wanted = events, wanted

    def _give_up(self, pool: Pool) -> None:
        """Close what is too many for the node, or what is not ours and a sibling lacks."""
        row, rows = self._board.row, self._board.head[0]
        most, size = pool.goal.spec.max_idle, pool.goal.size()
        held = list(self._held[:rows])
        wanted = list(self._board.part(WANTED, self._column)[:rows])
        free = size - sum(held)
        self.cap = most
        lasting = min(most, pool.goal.limit or most)
        contended = sum(wanted) > lasting
        if free > 0 and not contended:
            return
        weights = self._weights(rows)
        if contended:  # by all that there may ever be: a limit leaves room again as soon as a client goes
            self.cap = divide(lasting, weights, wanted)[row]
        if free < 0:
            cause = DiscardCause.DISPLACED if size < most else DiscardCause.SURPLUS
            _shed(pool, part(-free, held, row), cause)
            return
        allotted = divide(size, weights, wanted)
        lacking = sum(max(0, may - has) for may, has in zip(allotted, held, strict=True)) - free
        surplus = [max(0, has - may) for may, has in zip(allotted, held, strict=True)]
        if lacking > 0:
            _shed(pool, part(lacking, surplus, row), DiscardCause.SURPLUS)


def _shed(pool: Pool, count: int, cause: DiscardCause) -> None:
    """Close `count` connections of a pool, the oldest first, and then its dials."""
    for _ in range(count):
        if pool.shelf.idle:
            pool.shelf.discard(pool.shelf.idle[0], cause)
        elif not pool.displace():
            break
