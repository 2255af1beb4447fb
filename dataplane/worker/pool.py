"""A pool whose sizes are the node's: what a worker may hold follows its clients, not the number of workers.

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

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dataplane.core.pool import TAU_S
from dataplane.core.reasons import DiscardCause
from dataplane.core.spec import PoolMode
from dataplane.ipc.shared_counters import EVENTS, HELD, WANTED
from dataplane.net.pool import MAX_DIALS, Pool

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from dataplane.core.spec import PoolSpec
    from dataplane.net.dialer import Dial
    from dataplane.net.idle import Idle
    from dataplane.net.pool import PoolOwner
    from dataplane.net.reactor import Reactor
    from dataplane.net.sockopts import SocketAddress
    from dataplane.worker.board import Board

__all__ = ["SharedPool", "divide", "part"]

WINDOW_S: Final = 5.0
"""For how long an idle connection is not taken before it counts as not needed, and how long a lack is remembered."""
WEIGHT_STEP: Final = 4
"""A weight is written when it is off by more than one in so many."""


def part(total: int, weights: Sequence[int], index: int) -> int:
    """Return the part of `total` that falls to `index`, in proportion to the weights.

    The parts of all add up to `total`, and none is a whole one away from what it would be without rounding.

    Args:
        total: What is divided, 0 or more.
        weights: One for each, 0 or more; if all are 0, nobody gets anything.
        index: Whose part.
    """
    whole = sum(weights)
    if not whole:
        return 0
    before = sum(weights[:index])
    start, end = (
        2 * total * reach + whole for reach in (before, before + weights[index])
    )  # rounded, not cut off
    return end // (2 * whole) - start // (2 * whole)


def divide(total: int, weights: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Return who may have how many of `total`: weighted max-min fair, in whole numbers.

    Whoever wants no more than its part gets it, and what is left is divided again among the others (Bertsekas and
    Gallager, "Data Networks", section 6.5.2, for one link). O(N^2) at worst.

    Args:
        total: What is divided, 0 or more.
        weights: One for each, 0 or more; who has 0 gets nothing.
        wanted: How many each has use for, 0 or more.
    """
    given = [0] * len(weights)
    active = [weight if want else 0 for weight, want in zip(weights, wanted, strict=True)]
    while any(active):
        parts = [part(total, active, index) for index in range(len(active))]
        content = [index for index, weight in enumerate(active) if weight and wanted[index] <= parts[index]]
        if not content:
            return [had or new for had, new in zip(given, parts, strict=True)]
        for index in content:
            given[index] = wanted[index]
            total -= wanted[index]
            active[index] = 0
    return given


class SharedPool(Pool):
    """The idle connections of one backend in one worker.

    Args:
        reactor: The worker's.
        backend: Whose connections; its `active` is the node's count.
        spec: Sizes for the node.
        limit: `limits.per_backend`, for the node.
        board: The shared memory, and the worker's row.
        column: The backend's; None: nobody else counts here.
    """

    __slots__ = (
        "_board",
        "_clients",
        "_column",
        "_events",
        "_head",
        "_held",
        "_highest",
        "_highest_before",
        "_least",
        "_lowest",
        "_lowest_before",
        "_row",
        "_short_until",
        "_wanted",
        "_window_ends",
        "cap",
    )

    def __init__(
        self,
        reactor: Reactor,
        backend: PoolOwner,
        spec: PoolSpec,
        *,
        limit: int,
        board: Board,
        column: int | None,
    ) -> None:
        super().__init__(reactor, backend, spec, limit=limit)
        self._board = board.counters
        self._head = board.head
        self._row = board.row
        self._column = column
        self._held = self._held_cells()
        self._least = spec.min_idle
        self._clients = 0
        """How many had come at the last look, to see whether any has come since."""
        self._events = 0
        self._wanted = 0
        self._lowest = self._lowest_before = 0
        """The fewest that lay idle in this window, and in the one before."""
        self._highest = self._highest_before = 0
        """The most that it held."""
        self._window_ends = self._short_until = 0.0
        self.cap = spec.max_idle
        """The most that this worker may hold, while not all can have what they want."""
        self._take_part()

    def _held_cells(self) -> memoryview:
        if self._column is None:
            return memoryview(array("q", bytes(8 * self._board.rows)))
        return self._board.part(HELD, self._column)

    def use(self, column: int | None) -> None:
        """Count in another column from now on; what is counted moves along."""
        if column == self._column:
            return
        events, wanted = self._events, self._wanted
        self._held[self._row] = 0
        self._write(0, 0)
        self._column = column
        self._held = self._held_cells()
        self._publish()
        self._write(events, wanted)

    @property
    def held(self) -> int:
        """How many connections the pools of the node account for, dials included."""
        return sum(self._held[: self._head[0]])

    @property
    def own(self) -> int:
        """This worker's part of `held`."""
        return len(self._idle) + len(self._dials)

    def configure(self, spec: PoolSpec, *, limit: int) -> None:
        """Take new settings; connections that they do not concern stay."""
        self._least = spec.min_idle
        self.cap = spec.max_idle
        super().configure(spec, limit=limit)

    # -- taking and giving ----------------------------------------------------------------------------

    def take(self) -> Idle | None:
        """Return a live connection, or None."""
        idle = super().take()
        if idle is not None:
            left = len(self._idle)
            self._lowest = min(self._lowest, left)
            self._held[self._row] = left + len(self._dials)
        return idle

    def put(
        self, sock: socket.SocketType, mask: int, born_at: float, dialled_to: SocketAddress | None
    ) -> None:
        """Take back a connection whose client is done, if the node has room for it."""
        size, held = self.spec.max_idle, sum(self._held[: self._head[0]])
        if self.limit:
            size = min(size, self.limit - self.backend.active)
        if (
            (held >= size or self.own >= self.cap)
            and self.spec.mode is PoolMode.REUSE
            and self.backend.usable
        ):
            self._short_until = self.reactor.now + WINDOW_S
            self.refuse(sock, DiscardCause.FULL)
            return
        super().put(sock, mask, born_at, dialled_to)
        self._held[self._row] = len(self._idle) + len(self._dials)

    def displace(self) -> bool:
        """Give up a dial or an idle connection of this worker."""
        displaced = super().displace()
        self._publish()
        return displaced

    def discard(self, idle: Idle, cause: DiscardCause) -> None:
        """Close one idle connection."""
        super().discard(idle, cause)
        left = len(self._idle)
        self._lowest = min(self._lowest, left)
        self._publish()

    def clear(self, cause: DiscardCause) -> None:
        """Close all of them, and have no claim to any."""
        super().clear(cause)
        self._lowest = self._lowest_before = self._highest = self._highest_before = 0
        self._publish()
        self._write(0, 0)

    def _publish(self) -> None:
        self._held[self._row] = len(self._idle) + len(self._dials)

    # -- dialling ahead -------------------------------------------------------------------------------

    def target(self) -> int:
        """Return how many idle connections this worker should have now, if the node has room (`refill`)."""
        return min(super().target(), self.cap)

    def restock(self) -> None:
        """Find the target anew, and dial up to it."""
        self._take_part()
        super().restock()

    def refill(self) -> None:
        """Dial up to the goal, as far as the node has room."""
        own = self.own
        missing = self.goal - own
        if missing <= self.slack or self.reactor.now < self.retry_at:
            return
        missing = min(missing, MAX_DIALS - len(self._dials))
        self._held[self._row] = own + missing  # first the claim, then the look: see rule 2
        excess = sum(self._held[: self._head[0]]) - self._size()
        if excess > 0:
            self.goal = own + max(0, missing - excess)
            self.slack = 0
        super().refill()
        self._publish()

    def dialled(self, dial: Dial, code: int) -> None:
        """Take a connection that is ready, or its failure."""
        super().dialled(dial, code)
        self._publish()

    def _size(self) -> int:
        """Return how many the pools of all workers may hold now."""
        size = self.spec.max_idle
        return max(0, min(size, self.limit - self.backend.active)) if self.limit else size

    def _take_part(self) -> None:
        """Make `spec` say this worker's part of `min_idle`."""
        if self._least or self.spec.min_idle:
            least = self._least
            if self._column is not None:
                least = part(least, self._weights(self._head[0]), self._row)
            if least != self.spec.min_idle:
                self.spec = replace(self.spec, min_idle=least)

    def _weights(self, rows: int) -> list[int]:
        """Return, for each of the first rows, its clients and one more; 0 for who takes no clients."""
        board = self._board
        assert self._column is not None  # noqa: S101 - who asks has looked
        events = board.part(EVENTS, self._column)[:rows]
        return [here and count + 1 for here, count in zip(board.present[:rows], events, strict=True)]

    # -- what the others need -------------------------------------------------------------------------

    def refresh(self) -> None:
        """Tell the others what this worker has and wants, give up what they lack, and dial what is missing."""
        clients = self.backend.totals.hits + self.backend.totals.misses
        idle = not (self._events or self._wanted or self._least or self.goal or self.own)
        if idle and clients == self._clients:
            return
        self._clients = clients
        if self._column is None:
            self.restock()
            return
        events = round(self.demand.rate(self.reactor.now) * TAU_S)
        if abs(events - self._events) <= self._events // WEIGHT_STEP:
            events = self._events
        self._take_part()
        in_use = self.backend.usable and self.spec.mode is not PoolMode.OFF
        self._write(events if in_use else 0, self._use_for() if in_use else 0)
        self._give_up()
        super().restock()

    def retire(self) -> None:
        """Close everything and claim nothing: this worker takes no more clients."""
        self.cap = 0
        if self._events or self.goal or self.own:
            self.clear(DiscardCause.SURPLUS)

    def _use_for(self) -> int:
        if self.spec.mode is PoolMode.PRECONNECT:
            return super().target()
        now, own = self.reactor.now, self.own
        self._highest = max(self._highest, own)
        if now >= self._window_ends:
            self._lowest_before, self._lowest = self._lowest, len(self._idle)
            self._highest_before, self._highest = self._highest, own
            self._window_ends = now + WINDOW_S
        if now < self._short_until:
            return self.spec.max_idle
        used = max(self._highest, self._highest_before) - min(self._lowest, self._lowest_before)
        return min(max(self.spec.min_idle, used), self.spec.max_idle)

    def _write(self, events: int, wanted: int) -> None:
        """Tell the others."""
        if self._column is not None:
            if events != self._events:
                self._board.part(EVENTS, self._column)[self._row] = events
            if wanted != self._wanted:
                self._board.part(WANTED, self._column)[self._row] = wanted
        self._events, self._wanted = events, wanted

    def _give_up(self) -> None:
        """Close what is too many for the node, or what is not ours and a sibling lacks."""
        assert self._column is not None  # noqa: S101 - the caller has looked
        rows, size = self._head[0], self._size()
        held = list(self._held[:rows])
        wanted = list(self._board.part(WANTED, self._column)[:rows])
        free = size - sum(held)
        self.cap = self.spec.max_idle
        most = min(self.cap, self.limit or self.cap)
        contended = sum(wanted) > most
        if free > 0 and not contended:
            return
        weights = self._weights(rows)
        if contended:  # by all that there may ever be: a limit leaves room again as soon as a client goes
            self.cap = divide(most, weights, wanted)[self._row]
        if free < 0:
            limited = size < self.spec.max_idle
            cause = DiscardCause.DISPLACED if limited else DiscardCause.SURPLUS
            self._shed(part(-free, held, self._row), cause)
            return
        allotted = divide(size, weights, wanted)
        lacking = sum(max(0, may - has) for may, has in zip(allotted, held, strict=True)) - free
        surplus = [max(0, has - may) for may, has in zip(allotted, held, strict=True)]
        if lacking > 0:
            self._shed(part(lacking, surplus, self._row), DiscardCause.SURPLUS)

    def _shed(self, count: int, cause: DiscardCause) -> None:
        for _ in range(count):
            if self._idle:
                self.discard(self._idle[0], cause)
            elif not self.displace():
                break
