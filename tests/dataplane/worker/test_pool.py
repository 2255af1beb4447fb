"""Pools of several workers: together never too large, and where the clients are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.pool import Demand
from dataplane.core.reasons import DiscardCause
from dataplane.ipc.shared_counters import EVENTS, HELD, WANTED
from dataplane.worker.pool import WINDOW_S
from tests.dataplane.worker.pools import KEY, Pools, pools

# -- the size is the node's ---------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(0, 2)),
        st.tuples(st.just("leave"), st.integers(0, 2)),
        st.tuples(st.just("look"), st.integers(0, 2)),
        st.tuples(st.just("pass"), st.integers(1, 200)),
    ),
    max_size=60,
)


def follow(site: Pools, steps: list[tuple[str, int]], size: int) -> None:
    """Do `steps`, and see after each that the pools are not too large together."""
    for what, number in steps:
        worker = site.workers[number % 3]
        if what == "come":
            worker.come()
        elif what == "leave" and worker.clients:
            worker.leave()
        elif what == "look":
            worker.refresh()
        elif what == "pass":
            site.pass_time(number / 20)
        assert sum(site.held) <= size


@given(
    steps=STEPS,
    mode=st.sampled_from(["preconnect", "reuse"]),
    least=st.integers(0, 5),
    size=st.integers(1, 8),
)
@settings(deadline=None, max_examples=60)
def test_pools_together_are_never_too_large(
    steps: list[tuple[str, int]], mode: str, least: int, size: int
) -> None:
    """Whoever does what in which order: all workers together never hold more than `max_idle`."""
    with pools(3, mode=mode, min_idle=min(least, size), max_idle=size) as site:
        follow(site, steps, size)


@given(steps=STEPS, mode=st.sampled_from(["preconnect", "reuse"]), limit=st.integers(1, 8))
@settings(deadline=None, max_examples=60)
def test_pools_leave_a_backend_its_limit(steps: list[tuple[str, int]], mode: str, limit: int) -> None:
    """Clients and pools of all workers are within `limits.per_backend` as soon as all workers have looked twice."""
    with pools(3, {"per_backend": limit}, mode=mode, max_idle=8) as site:
        for step in steps:
            if step[0] == "come" and site.workers[0].backend.active >= limit:
                continue  # no client is given to a backend that is full
            if step[0] == "come":
                worker = site.workers[step[1]]
                before = worker.pool.own
                if not worker.come() and worker.backend.active + worker.pool.held > limit and before:
                    worker.pool.displace()  # as a service does before it dials
            else:
                follow(site, [step], 8)
            for worker in site.workers * 2:
                worker.refresh()
            assert site.workers[0].backend.active + sum(site.held) <= limit


def test_what_is_put_back_at_the_same_time_is_one_too_many_for_each_further_worker() -> None:
    """Two clients that leave different workers in the same microsecond may both find room for one; it is noticed."""
    with pools(3, mode="reuse", max_idle=4) as site:
        one, other, third = site.workers
        for worker in (one, one, one, one, other, third):
            worker.come()
        for _ in range(3):
            one.leave()
        assert site.held == [3, 0, 0]

        def also_third() -> None:
            third.leave()

        def also_other() -> None:
            site.reactor.meanwhile = also_third
            other.leave()

        site.reactor.meanwhile = also_other
        one.leave()
        assert site.held == [4, 1, 1]
        site.pass_time(0.2)
        assert sum(site.held) == 4


def test_two_that_dial_at_the_same_time_do_not_both_get_the_last_place() -> None:
    """A claim is made before the first dial, so a worker that looks meanwhile finds the room taken."""
    with pools(2, mode="preconnect", min_idle=6, max_idle=6) as site:
        one, other = site.workers
        site.board.present[other.board.row] = 0  # so that all of min_idle is the first one's
        found = []

        def meanwhile() -> None:
            site.board.present[other.board.row] = 1
            other.pool.refiller.restock()
            found.append(other.pool.own)

        site.reactor.meanwhile = meanwhile
        one.pool.refiller.restock()
        assert (found, site.held) == ([0], [6, 0])


def test_a_smaller_size_is_kept_by_all() -> None:
    """When `max_idle` falls, all workers together close what is too many, and not more."""
    with pools(2, mode="reuse", max_idle=10) as site:
        for worker in site.workers:
            for _ in range(5):
                worker.come()
            for _ in range(5):
                worker.leave()
        assert site.held == [5, 5]
        for worker in site.workers:
            worker.configure(**{**site.options, "pool": {"mode": "reuse", "max_idle": 4}})
        site.pass_time(0.2)
        assert sum(site.held) == 4


# -- where the clients are ----------------------------------------------------------------------------


def busy(site: Pools, index: int, clients: int, seconds: float) -> None:
    """Let so many clients come and leave at one worker, ten times a second."""
    worker = site.workers[index]
    for _ in range(round(seconds * 10)):
        for _ in range(clients):
            worker.come()
        for _ in range(clients):
            worker.leave()
        site.pass_time(0.1)


def test_one_worker_may_hold_all_of_it() -> None:
    """Who has all the clients holds the whole pool at once, however many workers there are."""
    with pools(4, mode="reuse", max_idle=12) as site:
        busy(site, 2, 12, 0.1)
        assert site.held == [0, 0, 12, 0]
        other = site.workers[1]
        other.come()
        other.leave()
        assert site.held == [0, 0, 12, 0]
        assert other.backend.totals.discarded[DiscardCause.FULL] == 1


class SlowDials(Demand):
    """The demand for a backend that is far away: much has to be ready."""

    def dialled(self, seconds: float) -> None:
        """Take note of a dial, and of the way."""
        super().dialled(seconds + 0.1)


@pytest.mark.parametrize("mode", ["preconnect", "reuse"])
def test_the_pool_follows_the_clients(mode: str) -> None:
    """When all clients go to another worker, so does the pool, and what its holder does not need is given up."""
    with pools(2, mode=mode, max_idle=12) as site:
        for worker in site.workers:
            worker.pool.goal.demand = SlowDials()
        busy(site, 0, 12, 20)
        assert site.held == [12, 0]
        busy(site, 1, 12, 30)
        surplus = site.workers[0].backend.totals.discarded[DiscardCause.SURPLUS]
        assert site.held[1] >= 11
        assert surplus >= 11


@given(
    idle=st.lists(st.integers(0, 8), min_size=1, max_size=3),
    size=st.integers(1, 12),
)
@settings(deadline=None, max_examples=20)
def test_a_busy_worker_gets_what_idle_ones_do_not_need(idle: list[int], size: int) -> None:
    """Whatever others hold, and nobody takes: a worker whose clients need it has all of it after two windows."""
    with pools(1 + len(idle), mode="reuse", max_idle=size) as site:
        for index, clients in enumerate(idle, 1):
            busy(site, index, clients, 0.1)
        busy(site, 0, size, 2 * WINDOW_S + 1)
        weights = [worker.share._events + 1 for worker in site.workers]
        assert site.held[0] >= min(size, size * weights[0] // sum(weights))
        site.pass_time(WINDOW_S)
        busy(site, 0, size, 1)
        assert sum(site.held) == size


def test_two_busy_workers_share_by_their_clients() -> None:
    """Nobody is starved by who was there first: each has about its clients' part, and is left in peace."""
    with pools(2, mode="reuse", max_idle=12) as site:
        busy(site, 0, 12, 5)
        for _ in range(300):
            busy(site, 0, 12, 0.1)
            busy(site, 1, 12, 0.1)
        assert min(site.held) >= 5
        before = [worker.backend.totals.discarded[DiscardCause.SURPLUS] for worker in site.workers]
        for _ in range(50):
            busy(site, 0, 12, 0.1)
            busy(site, 1, 12, 0.1)
        assert before == [worker.backend.totals.discarded[DiscardCause.SURPLUS] for worker in site.workers]


def test_a_surplus_is_left_alone_while_there_is_room() -> None:
    """A worker keeps what it does not need as long as nobody lacks it."""
    with pools(2, mode="reuse", max_idle=12) as site:
        busy(site, 0, 8, 0.1)
        busy(site, 1, 4, 30)
        assert site.held == [8, 4]
        assert site.workers[0].backend.totals.discarded[DiscardCause.SURPLUS] == 0


def test_a_worker_whose_clients_use_its_whole_pool_still_needs_it() -> None:
    """What is in use comes back, so it is kept for who had it when a sibling wants it as well."""
    with pools(3, {"per_backend": 8}, mode="reuse", max_idle=8) as site:
        busy(site, 0, 1, 0.2)
        busy(site, 0, 8, 1)
        one, *others = site.workers
        for other in others:
            other.come()
            other.leave()  # there is no room: it is short
        for _ in range(8):
            one.come()
        site.pass_time(0.2)
        for _ in range(8):
            one.leave()
        assert site.held[0] >= 7


def test_a_lack_of_before_is_forgotten() -> None:
    """A worker without clients and connections wants nothing, whatever it lacked: the sibling keeps its pool."""
    with pools(2, mode="reuse", max_idle=10) as site:
        one, other = site.workers
        for _ in range(20):
            one.come()
        site.pass_time(60)
        for _ in range(20):  # ten are put back, ten find no room
            one.leave()
        site.pass_time(1)
        for idle in list(one.pool.shelf.idle):
            idle.on_failure()
        site.pass_time(60)
        assert list(site.board.part(WANTED, one.share._column))[: site.board.head[0]] == [0, 0]
        for _ in range(10):
            other.come()
        site.pass_time(60)
        for _ in range(10):
            other.leave()
        site.pass_time(60)
        assert site.held == [0, 10]


def test_a_sibling_that_comes_meanwhile() -> None:
    """How many rows there are is asked once for a look: it may be one more a moment later."""

    class Growing:
        """A head that says one more each time."""

        rows = 1

        def __getitem__(self, place: int) -> int:
            self.rows = min(4, self.rows + 1)
            return self.rows

    with pools(2, mode="reuse", max_idle=2) as site:
        one, _ = site.workers
        for _ in range(4):
            one.come()
        for _ in range(4):
            one.leave()
        for _ in range(5):
            one.board.head = Growing()
            one.refresh()
        assert one.pool.own <= 2


def test_what_is_a_siblings_is_left_for_it() -> None:
    """While both want more than there is, a place that is free for a moment is not taken by who has its share."""
    with pools(2, mode="reuse", max_idle=12) as site:
        for _ in range(100):
            busy(site, 0, 12, 0.1)
            busy(site, 1, 12, 0.1)
        one, other = site.workers
        for _ in range(12):
            other.come()
        for _ in range(24):
            one.come()
        for _ in range(24):
            one.leave()
        for _ in range(12):
            other.leave()
        assert min(site.held) >= 5


def test_two_that_dial_ahead_share_by_their_clients() -> None:
    """Who has given something up does not dial it again at once."""
    with pools(2, mode="preconnect", max_idle=12) as site:
        for worker in site.workers:
            worker.pool.goal.demand = SlowDials()
        busy(site, 0, 12, 20)
        assert site.held == [12, 0]
        for _ in range(200):
            busy(site, 0, 12, 0.1)
            busy(site, 1, 12, 0.1)
        assert min(site.held) >= 5


def test_a_division_knows_who_leaves_what_untaken() -> None:
    """With equally many clients, who takes four at a time needs four, and who takes eight gets the rest."""
    with pools(2, mode="reuse", max_idle=12) as site:
        busy(site, 1, 12, 0.1)
        for _ in range(round(6 * WINDOW_S / 0.3)):
            busy(site, 0, 8, 0.1)
            busy(site, 1, 4, 0.2)
        assert site.held == [8, 4]


def test_chance_moves_nothing() -> None:
    """Others see another number of clients only when it is off by a quarter."""
    with pools(2, mode="reuse", max_idle=12) as site:
        busy(site, 0, 12, 5)
        column = site.board.assign({KEY})[KEY]
        told = site.board.part(EVENTS, column)[0]
        busy(site, 0, 12, 0.5)
        assert site.board.part(EVENTS, column)[0] == told
        busy(site, 0, 12, 5)
        assert site.board.part(EVENTS, column)[0] > told * 5 // 4


# -- min_idle -----------------------------------------------------------------------------------------


def test_min_idle_is_held_together() -> None:
    """Evenly as long as nobody has come; then where the clients are; a new worker takes its part."""
    with pools(2, mode="preconnect", min_idle=6, max_idle=6) as site:
        for worker in site.workers:
            worker.pool.refiller.restock()
        assert site.held == [3, 3]
        site.join()
        site.pass_time(0.5)
        assert site.held == [2, 2, 2]
        for _ in range(100):
            site.workers[0].come()
        site.pass_time(0.5)
        assert site.held == [6, 0, 0]


def test_who_takes_no_clients_has_no_part() -> None:
    """A worker that drains closes what it holds, and the others take it over."""
    with pools(2, mode="preconnect", min_idle=6, max_idle=6) as site:
        site.look()
        one, other = site.workers
        one.board.set_present(present=False)
        one.share.retire(one.pool)
        other.refresh()
        assert site.held == [0, 6]
        one.pool.refiller.restock()
        assert site.held == [0, 6]


def test_a_client_of_a_draining_worker_leaves_nothing_in_its_pool() -> None:
    """Nobody would come to take it."""
    with pools(2, mode="reuse", max_idle=6) as site:
        one = site.workers[0]
        one.come()
        one.board.set_present(present=False)
        one.share.retire(one.pool)
        one.leave()
        assert site.held == [0, 0]


def test_a_dead_worker_gives_its_cells_back() -> None:
    """What a killed worker held is free for the others as soon as its row is wiped, and so is its part."""
    with pools(2, mode="preconnect", min_idle=6, max_idle=6) as site:
        site.look()
        dead, other = site.workers
        dead.come()
        dead.refresh()
        column = site.board.assign({KEY})[KEY]
        site.board.free_row(dead.board.row)
        assert [list(site.board.part(kind, column))[dead.board.row] for kind in (HELD, EVENTS, WANTED)] == [
            0,
            0,
            0,
        ]
        other.refresh()
        assert other.pool.own == 6


# -- the column ---------------------------------------------------------------------------------------


def test_without_a_column_a_worker_counts_alone() -> None:
    """Beyond the last column there is none: then each worker's pool is its own."""
    with pools(2, mode="preconnect", min_idle=4, max_idle=4) as site:
        for worker in site.workers:
            worker.backend.use(None)
        site.look()
        assert [worker.pool.own for worker in site.workers] == [4, 4]


def test_what_is_counted_moves_to_another_column() -> None:
    """A backend that gets another column leaves nothing behind in the old one."""
    with pools(1, mode="reuse", max_idle=4) as site:
        busy(site, 0, 4, 0.2)
        worker = site.workers[0]
        columns = dict(site.board.assign({KEY, "other"}))
        old, new = columns[KEY], columns["other"]
        before = [site.board.part(kind, old)[0] for kind in (HELD, EVENTS, WANTED)]
        assert all(before)
        worker.backend.use(new)
        assert [site.board.part(kind, old)[0] for kind in (HELD, EVENTS, WANTED)] == [0, 0, 0]
        assert [site.board.part(kind, new)[0] for kind in (HELD, EVENTS, WANTED)] == before


def test_dials_that_are_given_up_are_claimed_no_more() -> None:
    """A pool is cleared in the middle of its dials: the others have the room at once."""
    with pools(2, mode="preconnect", min_idle=4, max_idle=4) as site:
        one, other = site.workers
        one.share.publish(1, 3)
        assert other.pool.held == 3
        one.pool.clear(DiscardCause.UNUSABLE)
        assert other.pool.held == 0


def test_a_backend_that_is_not_used_claims_nothing() -> None:
    """An unusable backend, and one without a pool, leave their cells at zero: the column can be given out again."""
    with pools(1, mode="reuse", max_idle=4) as site:
        busy(site, 0, 4, 0.2)
        worker = site.workers[0]
        column = site.board.assign({KEY})[KEY]
        worker.backend.usable = False
        worker.pool.clear(DiscardCause.UNUSABLE)
        site.look()
        assert [site.board.part(kind, column)[0] for kind in (HELD, EVENTS, WANTED)] == [0, 0, 0]
