"""Round robin: exact, smooth, and continued across updates."""

from __future__ import annotations

from collections import Counter
from math import gcd

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.spec import Mode
from tests.dataplane.core.balance.backends import SMALL_WEIGHTS, WEIGHTS, Backend, build, members, picks


def test_equal_weights_go_round() -> None:
    """Equal weights are served in configured order."""
    assert "".join(picks(build(Mode.RR, members(7, 7, 7)), 7)) == "abcabca"


def test_unequal_weights_are_interleaved() -> None:
    """A heavy backend's turns are spread over the period instead of coming in one run."""
    assert "".join(picks(build(Mode.RR, members(5, 1, 1)), 14)) == "aabaacaaabaaca"


@given(weights=SMALL_WEIGHTS, start=st.integers(0, 100))
@settings(deadline=None)
def test_every_window_is_exact(weights: list[int], start: int) -> None:
    """Wherever a window of sum(weights) / gcd picks begins, everybody gets exactly the weight's share."""
    of = members(*weights)
    window = sum(weights) // gcd(*weights)
    got = Counter(picks(build(Mode.RR, of), start + window)[start:])
    assert got == {target.id: weight // gcd(*weights) for target, weight in of}


@given(weights=WEIGHTS)
@settings(deadline=None, max_examples=50)
def test_nobody_is_a_pick_off(weights: list[int]) -> None:
    """After any number of picks each backend is less than one pick away from its exact share."""
    of = members(*weights)
    total = sum(weights)
    got: Counter[str] = Counter()
    for count, id_ in enumerate(picks(build(Mode.RR, of), min(total, 600)), 1):
        got[id_] += 1
        for target, weight in of:
            assert abs(got[target.id] * total - count * weight) < total


@given(weights=SMALL_WEIGHTS, at=st.lists(st.integers(0, 12), max_size=20))
@settings(deadline=None)
def test_rebuilding_the_same_changes_nothing(weights: list[int], at: list[int]) -> None:
    """Updates that touch nobody here, however many, move nobody further from its share."""
    of = members(*weights)
    straight = picks(build(Mode.RR, of), sum(at) + 20)
    balancer, got = build(Mode.RR, of), []
    for count in at:
        got += picks(balancer, count)
        balancer = build(Mode.RR, of, previous=balancer)
    got += picks(balancer, 20)
    if len(set(weights)) == 1:
        assert got == straight
    assert _off(of, got) < 1.5


def _off(of: list[tuple[Backend, int]], got: list[str]) -> float:
    total, counted = sum(weight for _, weight in of), Counter(got)
    return max(abs(counted[target.id] - len(got) * weight / total) for target, weight in of)


@given(size=st.integers(2, 9), before=st.integers(0, 30), gone=st.integers(0, 8))
@settings(deadline=None)
def test_removal_keeps_the_turns_of_the_others(size: int, before: int, gone: int) -> None:
    """When one leaves, the others go on in the same order from the same place."""
    of = members(*[1] * size)
    balancer = build(Mode.RR, of)
    picks(balancer, before)
    upcoming = [target.id for target in balancer.order(0)]
    left = [member for place, member in enumerate(of) if place != gone % size]
    balancer = build(Mode.RR, left, previous=balancer)
    assert picks(balancer, size - 1) == [id_ for id_ in upcoming if id_ != of[gone % size][0].id]


@given(size=st.integers(1, 9), before=st.integers(0, 30), place=st.integers(0, 9))
@settings(deadline=None)
def test_newcomer_is_last(size: int, before: int, place: int) -> None:
    """A newcomer gets its first turn after everybody else, and then one in each round."""
    of = members(*[1] * size)
    balancer = build(Mode.RR, of)
    picks(balancer, before)
    upcoming = [target.id for target in balancer.order(0)]
    more = [*of[:place], (Backend("new"), 1), *of[place:]]
    balancer = build(Mode.RR, more, previous=balancer)
    assert picks(balancer, 2 * (size + 1)) == [*upcoming, "new"] * 2


@given(weights=SMALL_WEIGHTS, weight=st.integers(1, 9), before=st.integers(0, 30))
@settings(deadline=None)
def test_weighted_newcomer_gets_no_burst(weights: list[int], weight: int, before: int) -> None:
    """A newcomer of any weight is never two picks ahead of its share."""
    of = members(*weights)
    balancer = build(Mode.RR, of)
    picks(balancer, before)
    balancer = build(Mode.RR, [*of, (Backend("new"), weight)], previous=balancer)
    got = picks(balancer, 60)
    share = weight / (sum(weights) + weight)
    for count in range(1, 61):
        assert got[:count].count("new") < count * share + 2


@given(
    weights=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    changes=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), min_size=40, max_size=80),
    in_place=st.booleans(),
)
@settings(deadline=None)
def test_nobody_starves_while_weights_change(weights, changes, in_place) -> None:
    """With a change of some weight after every pick, everybody is served within a few rounds."""
    of = members(*weights)
    balancer = build(Mode.RR, of)
    unserved = dict.fromkeys((target.id for target, _ in of), 0.0)
    for place, weight in changes:
        (id_,) = picks(balancer, 1)
        for target, own in of:
            unserved[target.id] += own / sum(w for _, w in of)
        unserved[id_] = 0.0
        assert max(unserved.values()) < 4
        target, old = of[place % len(of)]
        of[place % len(of)] = (target, weight)
        if in_place:
            assert balancer.reweigh(target, old, weight)
        else:
            balancer = build(Mode.RR, of, previous=balancer)


CHANGES = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8), st.integers(1, 9)), max_size=12)
"""Picks before each, whose weight, and which."""


@given(weights=SMALL_WEIGHTS, changes=CHANGES)
@settings(deadline=None)
def test_weights_changed_in_place_are_exact(weights, changes) -> None:
    """After changes in place everybody gets exactly its new weight in each period, and nobody is a turn late."""
    of = members(*weights)
    balancer = build(Mode.RR, of)
    for before, place, weight in changes:
        picks(balancer, before)
        target, old = of[place % len(of)]
        assert balancer.reweigh(target, old, weight)
        of[place % len(of)] = (target, weight)
    period = sum(weight for _, weight in of)
    assert sorted(target.id for target in balancer.order(0)) == sorted(target.id for target, _ in of)
    got = picks(balancer, 3 * period)
    for start in (period, 2 * period):
        assert Counter(got[start : start + period]) == {target.id: weight for target, weight in of}
    first = Counter(got[:period])
    assert all(abs(first[target.id] - weight) <= 1 for target, weight in of)


@given(
    size=st.integers(2, 9),
    before=st.integers(0, 30),
    place=st.integers(0, 8),
    weights=st.lists(st.integers(1, 9)),
)
@settings(deadline=None)
def test_a_changed_weight_keeps_the_turns_of_the_others(size, before, place, weights) -> None:
    """However the weight of one changes in place, the others follow each other as they did."""
    of = members(*[1] * size)
    balancer = build(Mode.RR, of)
    picks(balancer, before)
    one = of[place % size][0]
    others = [target.id for target in balancer.order(0) if target is not one]
    old = 1
    for weight in weights:
        assert balancer.reweigh(one, old, weight)
        old = weight
    assert [target.id for target in balancer.order(0) if target is not one] == others


@given(
    weights=SMALL_WEIGHTS,
    place=st.integers(0, 8),
    to_and_fro=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    every=st.integers(1, 4),
)
@settings(deadline=None)
def test_weights_that_come_back_between_picks_cost_nobody_a_turn(weights, place, to_and_fro, every) -> None:
    """A weight that goes and comes back before a pick has never gone, however often it does."""
    of = members(*weights)
    straight, bent = (build(Mode.RR, of) for _ in range(2))
    one, own = of[place % len(of)]
    got = []
    for number in range(3 * sum(weights)):
        if number % every == 0:
            old = own
            for weight in [*to_and_fro, own]:
                assert bent.reweigh(one, old, weight)
                old = weight
        got += picks(bent, 1)
    assert _off(of, got) < 2.5
    assert max(abs(got.count(target.id) - 3 * weight) for target, weight in of) <= 2
    del straight


@given(weights=st.lists(st.integers(1, 40), min_size=2, max_size=6), refused=st.integers(1, 400))
@settings(deadline=None)
def test_turns_that_nobody_wants_do_not_pile_up(weights, refused) -> None:
    """Whoever refuses for long, and is back, gets at most a round of its weight in a row more than it should."""
    of = members(*weights)
    balancer = build(Mode.RR, of)
    gone, own = of[0]
    for _ in range(refused):
        target = balancer.pick(0, ())
        if target is gone:
            assert balancer.pick(0, (gone,)) is not gone
    total = sum(weights)
    got = picks(balancer, 4 * total)
    assert got.count(gone.id) <= 4 * own + own + 2
    assert Counter(got[-2 * total :])[gone.id] <= 2 * own + 1


@given(weights=SMALL_WEIGHTS, before=st.integers(0, 30), scale=st.integers(2, 16))
@settings(deadline=None)
def test_scaling_all_weights_changes_nothing(weights: list[int], before: int, scale: int) -> None:
    """All weights times sixteen, as when somebody begins to ramp up, leave everybody within its share."""
    of = members(*weights)
    balancer = build(Mode.RR, of)
    got = picks(balancer, before)
    scaled = [(target, weight * scale) for target, weight in of]
    got += picks(build(Mode.RR, scaled, previous=balancer), sum(weights) * 2)
    assert _off(of, got) < 1.5


def test_identity_is_the_id() -> None:
    """A backend that is built anew under its old id keeps its place."""
    balancer = build(Mode.RR, members(1, 1, 1))
    picks(balancer, 1)
    assert "".join(picks(build(Mode.RR, members(1, 1, 1), previous=balancer), 4)) == "bcab"


def test_a_failing_backends_share_is_spread() -> None:
    """If every pick of one backend is retried, the others share its connections evenly."""
    of = members(1, 1, 1, 1)
    dead = of[0][0]
    balancer = build(Mode.RR, of)
    served: Counter[str] = Counter()
    for _ in range(300):
        target = balancer.pick(0, ())
        if target is dead:
            target = balancer.pick(0, (dead,))
        served[target.id] += 1
    assert served == {"b": 100, "c": 100, "d": 100}


def test_a_tried_backend_keeps_its_turn() -> None:
    """Whoever is passed over for one connection serves the next one."""
    of = members(1, 1, 1)
    balancer = build(Mode.RR, of)
    assert balancer.pick(0, (of[0][0],)) is of[1][0]
    assert "".join(picks(balancer, 4)) == "acba"


def test_retries_of_a_heavy_backend_terminate() -> None:
    """Passing over a backend that owns nearly all turns costs no more than one step."""
    of = members(256, 1)
    balancer = build(Mode.RR, of)
    assert [balancer.pick(0, (of[0][0],)).id for _ in range(3)] == ["b", "b", "b"]


def test_a_lone_backend_serves_everything() -> None:
    """A single backend is picked each time, whatever its weight."""
    assert picks(build(Mode.RR, members(256)), 3) == ["a", "a", "a"]
