"""The selection: who may be picked, tiers, panic, slow start, and what survives an update."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core import selection as selection_module
from dataplane.core.balance.sticky_table import StickyTable
from dataplane.core.selection import STEPS, Lack, Selection, Standing, next_step, ramp, sticky_members
from dataplane.core.spec import BackendSpec, Mode, OperatorState
from tests.dataplane.core.balance.backends import Backend, tries

STANDINGS = st.lists(
    st.builds(
        lambda weight, tier, enabled, health, ramp: (weight, tier, enabled, *health, ramp),
        st.integers(0, 256) | st.just(0) | st.just(1),
        st.integers(0, 2),
        st.booleans(),
        st.sampled_from([(True, True), (False, True), (False, False)]),
        st.sampled_from([1 / 16, 0.5, 1.0]),
    ),
    max_size=10,
)
MODES = [Mode.RR, Mode.LEASTCONN, Mode.P2C, Mode.RANDOM, Mode.STICKY]


def standing(id_: str, weight: int = 1, tier: int = 0, **fields) -> Standing[Backend]:
    """Return a backend in good standing, but for what is said; who is not healthy is not reachable either."""
    fields = {"enabled": True, "healthy": True, "ramp": 1.0, **fields}
    return Standing(Backend(id_), weight, tier, **{"reachable": fields["healthy"], **fields})


def members(standings) -> dict[int, list[tuple[str, int]]]:
    """Return the members of the sticky tables of the backends that these are the standings of."""
    state = {True: OperatorState.ENABLED, False: OperatorState.DRAIN}
    return sticky_members(
        BackendSpec(one.target.id, "192.0.2.1:1", one.weight, one.tier, state[one.enabled])
        for one in standings
    )


def build(standings, mode=Mode.RR, panic=0.0, previous=None, tables=None) -> Selection[Backend]:
    """Build a selection with a seeded source of randomness."""
    return Selection.build(
        standings,
        mode=mode,
        panic=panic,
        random=random.Random(1).random,
        tables=tables or {},
        previous=previous,
    )


def ids(selection: Selection[Backend]) -> str:
    """Return the ids of a connection's tries in their order."""
    return "".join(tries(selection))


@pytest.mark.parametrize("mode", MODES)
@given(rows=STANDINGS, panic=st.sampled_from([0.0, 0.5, 1.0]), key=st.integers(0, 2**64 - 1))
@settings(deadline=None, max_examples=60)
def test_rules(mode, rows, panic, key) -> None:
    """Tries name the serving tier first, nobody without weight or enablement, and all usable ones once."""
    standings = [Standing(Backend(str(place)), *row) for place, row in enumerate(rows)]
    selection = build(standings, mode, panic)
    weighted = [one for one in standings if one.enabled and one.weight]
    usable = [one for one in weighted if one.healthy]
    tier = min((one.tier for one in usable), default=None)
    serving = [one for one in weighted if one.tier == tier] or weighted
    few = panic > 0 and (not usable or sum(one.healthy for one in serving) / len(serving) < panic)
    ignored = [one for one in serving if few and one.reachable and not one.healthy]
    expected = [one for one in weighted if one.healthy] + ignored
    assert selection.panic is bool(ignored)
    assert selection.usable == len(usable)
    assert selection.tier == min((one.tier for one in expected), default=None)
    assert Counter(target.id for target in selection.candidates) == Counter(one.target.id for one in expected)
    got = tries(selection, key)
    assert sorted(got) == sorted(one.target.id for one in expected)
    tiers = [standings[int(id_)].tier for id_ in got]
    assert tiers == sorted(tiers)
    assert sorted(target.id for target in selection.order(key)) == sorted(got)


def test_weight_zero_is_never_picked() -> None:
    """A weight of 0 takes no connection, even if nobody else is there."""
    assert build([standing("a", weight=0)], panic=1.0).pick(1, ()) is None


def test_next_tier_serves_those_for_whom_nobody_is_left() -> None:
    """Tier 1 serves a connection that has tried all of tier 0, and no other."""
    selection = build([standing("x", tier=1), standing("a"), standing("b")])
    assert ids(selection) == "abx"
    assert {selection.pick(1, ()).id for _ in range(6)} == {"a", "b"}


def test_tier_takes_over() -> None:
    """With tier 0 unusable, the next one that has a usable backend serves."""
    selection = build(
        [standing("a", healthy=False), standing("x", tier=3, enabled=False), standing("y", tier=7)]
    )
    assert (selection.tier, ids(selection)) == (7, "y")


@pytest.mark.parametrize(("healthy", "panic"), [(0, True), (1, True), (2, False), (4, False)])
def test_panic_is_below_the_share(healthy: int, panic: bool) -> None:  # noqa: FBT001 - a row
    """At half of four there is no panic at 50 %; below it there is, with nobody healthy above all."""
    selection = build([standing(str(n), healthy=n < healthy, reachable=True) for n in range(4)], panic=0.5)
    assert selection.panic is panic
    assert len(ids(selection)) == (4 if panic else healthy)


@pytest.mark.parametrize("panic", [0.5, 0.0])
@pytest.mark.parametrize(
    ("fleet", "serving"),
    [
        ("up wrong wrong gone", "012"),
        ("up gone gone gone", "0"),
        ("wrong wrong gone gone", "01"),
        ("gone gone gone gone", ""),
    ],
)
def test_panic_ignores_health_and_not_reachability(fleet: str, serving: str, panic: float) -> None:
    """Who answers wrongly serves in panic, who cannot be connected to never does; `panic: 0%` ignores nothing."""
    standings = [
        standing(str(place), healthy=word == "up", reachable=word != "gone")
        for place, word in enumerate(fleet.split())
    ]
    selection = build(standings, panic=panic)
    healthy = "0" if "up" in fleet else ""
    assert "".join(sorted(ids(selection))) == (serving if panic else healthy)
    assert selection.panic is (bool(panic) and serving != healthy)


def test_with_nobody_healthy_every_tier_serves_in_its_turn() -> None:
    """As with healthy ones, tier 1 gets only connections that have tried all of tier 0."""
    wrong = {"healthy": False, "reachable": True}
    selection = build([standing("x", tier=1, **wrong), standing("a", **wrong)], panic=0.5)
    assert (selection.tier, ids(selection)) == (0, "ax")
    selection = build([standing("x", tier=1), standing("a", **wrong)], panic=0.5)
    assert (selection.tier, ids(selection), selection.panic) == (1, "x", False)


def test_panic_leaves_out_what_people_have_turned_off() -> None:
    """Panic ignores health, never the operator, and does not count whom the operator took out."""
    down = [standing(id_, healthy=False, reachable=True) for id_ in "bc"]
    off = [standing("d", enabled=False), standing("e", weight=0)]
    selection = build([standing("a"), *down, *off], panic=0.4)
    assert selection.panic
    assert ids(selection) == "abc"
    assert not build([standing("a"), *off], panic=1.0).panic


def test_panic_concerns_the_serving_tier_only() -> None:
    """Backends that are down in a further tier stay out."""
    further = [
        standing("x", tier=1),
        standing("y", tier=1, healthy=False, reachable=True),
        standing("z", tier=1, healthy=False, reachable=True),
    ]
    selection = build([standing("a"), *further], panic=0.9)
    assert not selection.panic
    assert ids(selection) == "ax"


@pytest.mark.parametrize("percent", range(1, 101))
def test_panic_is_exact_at_the_share(percent: int) -> None:
    """Exactly the share is enough, whatever it is: rounding never makes a panic."""
    standings = [standing(str(n), healthy=n < percent, reachable=True) for n in range(100)]
    assert not build(standings, panic=percent / 100).panic


def test_slow_start_scales_the_weight() -> None:
    """A backend at a quarter of its ramp gets a quarter of its turns, and others theirs."""
    selection = build([standing("a"), standing("b", ramp=0.25), standing("c", weight=2)])
    got = Counter(selection.pick(0, ()).id for _ in range(52))
    assert got == {"a": 16, "b": 4, "c": 32}


def test_sticky_ignores_slow_start() -> None:
    """A ramp moves no sticky client."""
    standings = [standing("a"), standing("b")]
    tables = {0: StickyTable.build_now(members(standings)[0], "seed")}
    ramping = [standings[0], standings[1]._replace(ramp=1 / 16)]
    one, other = (build(of, Mode.STICKY, tables=tables) for of in (standings, ramping))
    keys = [key << 50 for key in range(300)]
    assert [one.pick(key, ()) for key in keys] == [other.pick(key, ()) for key in keys]


def test_sticky_falls_through_tiers() -> None:
    """Each tier has its own table; the next tier's is asked when this one has nobody left."""
    standings = [standing("a"), standing("b"), standing("x", tier=1), standing("y", tier=1)]
    tables = {tier: StickyTable.build_now(of, "seed") for tier, of in members(standings).items()}
    selection = build(standings, Mode.STICKY, tables=tables)
    assert {tuple(sorted(tries(selection, key << 50)[:2])) for key in range(50)} == {("a", "b")}
    assert {tries(selection, key << 50)[2] for key in range(50)} == {"x", "y"}


def test_sticky_members_are_what_is_configured() -> None:
    """Tables do not depend on health, operator state or ramp; a weight of 0 is left out."""
    standings = [
        standing("a", weight=3, healthy=False),
        standing("b", enabled=False, ramp=0.5),
        standing("c", weight=0),
        standing("x", tier=2),
    ]
    assert members(standings) == {0: [("a", 3), ("b", 1)], 2: [("x", 1)]}


def test_turns_survive_updates() -> None:
    """Round robin goes on where it was, in each tier, when somebody goes, comes back, or panics."""
    standings = [standing(id_) for id_ in "abcd"]
    selection = build(standings)
    assert selection.pick(0, ()).id == "a"
    less = [standings[0], standings[1]._replace(healthy=False), *standings[2:]]
    selection = build(less, previous=selection)
    assert selection.pick(0, ()).id == "c"
    selection = build(standings, previous=selection)
    assert [selection.pick(0, ()).id for _ in range(5)] == ["d", "a", "c", "b", "d"]


def test_leastconn_is_told_of_changes() -> None:
    """`changed` reaches the balancer of whatever tier the backend is in."""
    standings = [standing("a"), standing("b"), standing("x", tier=1), standing("y", tier=1)]
    selection = build(standings, Mode.LEASTCONN)
    assert selection.tracks_load
    for busy in (standings[0].target, standings[2].target):
        busy.active = 5
        selection.changed(busy)
    assert ids(selection) == "bayx"


def test_nobody() -> None:
    """Without standings there is no tier, no pick and nothing to track."""
    selection = build([], Mode.LEASTCONN, panic=1.0)
    assert (selection.tier, selection.usable, selection.panic, selection.tracks_load) == (
        None,
        0,
        False,
        False,
    )
    assert selection.pick(0, ()) is None
    assert list(selection.order(0)) == []


REWEIGHED = {
    "a candidate": ({}, {"weight": 5}, 0.0, True, 5),
    "the same weight": ({}, {}, 0.0, True, 1),
    "one that is down": ({"healthy": False}, {"weight": 5}, 0.0, True, 0),
    "one that is down, in panic": ({"healthy": False, "reachable": True}, {"weight": 5}, 0.9, True, 5),
    "one that is gone, in panic": ({"healthy": False}, {"weight": 5}, 0.9, True, 0),
    "one that is turned off": ({"enabled": False}, {"weight": 5}, 0.0, True, 0),
    "one that comes back meanwhile": ({"healthy": False}, {"weight": 5, "healthy": True}, 0.0, False, 0),
    "one that gets its first weight": ({"weight": 0}, {"weight": 5}, 0.0, False, 0),
    "one that loses its weight": ({}, {"weight": 0}, 0.0, False, 1),
}


@pytest.mark.parametrize(
    ("before", "after", "panic", "done", "turns"), REWEIGHED.values(), ids=REWEIGHED.keys()
)
def test_reweigh(before, after, panic, done, turns) -> None:
    """A weight is taken in place exactly where it concerns nobody else; then the turns are those of the new one."""
    old = standing("x", **before)
    selection = build([standing("a"), standing("b"), old], panic=panic)
    assert selection.reweigh(old, old._replace(**after)) is done
    got = Counter(selection.pick(0, ()).id for _ in range((2 + turns) * 10))
    assert got["x"] == 10 * turns


def test_slow_start_is_built_anew() -> None:
    """While somebody ramps up, all weights are scaled: another one is not what it says."""
    standings = [standing("a"), standing("b", ramp=0.5)]
    for one in standings:
        assert not build(standings).reweigh(one, one._replace(weight=3))


def test_reweigh_in_a_further_tier() -> None:
    """The weight goes to the balancer of the backend's own tier."""
    standings = [standing("a"), standing("x", tier=1), standing("y", tier=1)]
    selection = build(standings)
    assert selection.reweigh(standings[1], standings[1]._replace(weight=3))
    got = [selection.pick(0, (standings[0].target,)).id for _ in range(44)]
    assert Counter(got[4:]) == {"x": 30, "y": 10}


@pytest.mark.parametrize("fields", [{}, {"healthy": False}, {"enabled": False}])
def test_sticky_is_built_anew(fields) -> None:
    """Another weight means another table, even of a backend that nobody gets now; no other weight means none."""
    standings = [standing("a", **fields), standing("b")]
    selection = build(
        standings, Mode.STICKY, tables={0: StickyTable.build_now(members(standings)[0], "seed")}
    )
    assert not selection.reweigh(standings[0], standings[0]._replace(weight=3))
    assert selection.reweigh(standings[0], Standing(*standings[0]))


@pytest.mark.parametrize("mode", MODES)
@given(
    rows=STANDINGS,
    loads=st.lists(st.integers(0, 3), min_size=10, max_size=10),
    tried=st.sets(st.integers(0, 9)),
    limit=st.integers(1, 3),
    skips=st.integers(0, 3),
)
@settings(deadline=None, max_examples=60)
def test_below_a_limit(mode, rows, loads, tried, limit, skips) -> None:
    """Whoever has room and was not tried is found, of the best tier that has one; else it is told whether to wait."""
    standings = [Standing(Backend(str(place)), *row) for place, row in enumerate(rows)]
    for one, load in zip(standings, loads, strict=False):
        one.target.active = load
    selection = build(standings, mode)
    out = tuple(one.target for one in standings if int(one.target.id) in tried)
    everybody = {one.target.id: one for one in standings if one.target in set(selection.order(0))}
    left = {id_: one for id_, one in everybody.items() if one.target not in out}
    fit = {id_: one for id_, one in left.items() if one.target.active < limit}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection_module, "MAX_SKIPS", skips)
        found = selection.pick_below(limit, 1, out)
    if not fit:
        assert found is (Lack.FULL if left else Lack.NOBODY)
    else:
        assert isinstance(found, Backend)
        assert fit[found.id].tier == min(one.tier for one in fit.values())


class Restless(Backend):
    """A backend whose count others change before each look at it; `seen` has what was read."""

    counts: Iterator[int]

    def __init__(self, id_: str) -> None:
        super().__init__(id_)
        self.seen: list[int] = []

    @property
    def active(self) -> int:
        """The count, which is another one each time."""
        self.seen.append(next(self.counts))
        return self.seen[-1]

    @active.setter
    def active(self, value: int) -> None:
        """Do nothing: the others decide."""


@pytest.mark.parametrize("mode", MODES)
@given(
    number=st.integers(1, 5),
    counts=st.lists(st.integers(0, 2), min_size=1, max_size=40),
    tried=st.sets(st.integers(0, 4)),
    skips=st.integers(0, 6),
)
@settings(deadline=None, max_examples=200)
def test_counts_that_change_between_any_two_looks(mode, number, counts, tried, skips) -> None:
    """Whatever others do between two reads: nobody is left only if nobody is, and full is who was seen full."""
    targets = [Restless(str(place)) for place in range(number)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection_module, "MAX_SKIPS", skips)
        patch.setattr(Restless, "counts", chain.from_iterable(repeat(counts)), raising=False)
        selection = build([Standing(target, 1, 0, True, True, True, 1.0) for target in targets], mode)
        out = tuple(target for target in targets if int(target.id) in tried)
        for target in targets:
            target.seen.clear()
        found = selection.pick_below(2, 1, out)
    left = [target for target in targets if target not in out]
    assert (found is Lack.NOBODY) is not bool(left)
    if found is Lack.FULL:
        assert all(2 in target.seen for target in left)
    elif isinstance(found, Restless):
        assert found in left
        assert min(found.seen) < 2


DURATIONS = st.floats(0.001, 3600)
STARTS = st.floats(0, 1e7)


def test_steps() -> None:
    """It starts with one sixteenth, is at a half in the middle, and is over at the end."""
    assert [ramp(100 + elapsed, 100, 8) for elapsed in (0, 0.5, 1, 4, 7.99, 8, 99)] == [
        1 / 16,
        1 / 16,
        2 / 16,
        8 / 16,
        15 / 16,
        1,
        1,
    ]


def test_off() -> None:
    """Without a duration the whole weight counts at once, and no step is to come."""
    assert ramp(5, 5, 0) == 1
    assert next_step(5, 5, 0) is None


@given(since=STARTS, duration=DURATIONS, part=st.floats(-0.5, 2))
@settings(deadline=None)
def test_range(since: float, duration: float, part: float) -> None:
    """It is a multiple of a sixteenth above 0 and up to 1, also if the clock was read too early."""
    share = ramp(since + part * duration, since, duration)
    assert 0 < share <= 1
    assert share * STEPS == int(share * STEPS)


@given(since=STARTS, duration=DURATIONS)
@settings(deadline=None)
def test_following_the_steps_ends(since: float, duration: float) -> None:
    """A timer set to each next step finds a larger share every time, and needs at most fifteen."""
    now: float | None = since
    shares = []
    while now is not None:
        shares.append(ramp(now, since, duration))
        now = next_step(now, since, duration)
    assert shares == sorted(set(shares))
    assert shares[0] == 1 / STEPS
    assert shares[-1] == 1
    assert len(shares) == STEPS
