"""Least connections: the lowest load per weight, ties in turn."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.spec import Mode
from tests.dataplane.core.balance.backends import WEIGHTS, Backend, build, members, picks

ACTIONS = st.lists(
    st.tuples(st.sampled_from(["pick", "open", "close", "rebuild", "reweigh"]), st.integers(0, 11)),
    max_size=300,
)


@given(weights=WEIGHTS, actions=ACTIONS)
@settings(deadline=None)
def test_always_the_least_loaded(weights, actions) -> None:
    """Whatever opens and closes, a pick has the lowest active / weight."""
    of = members(*weights)
    balancer = build(Mode.LEASTCONN, of)
    for action, place in actions:
        target = of[place % len(of)][0]
        if action == "rebuild":
            balancer = build(Mode.LEASTCONN, of, previous=balancer)
        elif action == "reweigh":
            weight = of[place % len(of)][1] % 7 + 1
            assert balancer.reweigh(target, of[place % len(of)][1], weight)
            of[place % len(of)] = (target, weight)
            continue
        elif action == "pick":
            target = balancer.pick(0, ())
            loads = {other.id: other.active / weight for other, weight in of}
            assert loads[target.id] == min(loads.values())
            target.active += 1
        elif action == "open":
            target.active += 1
        else:
            target.active = max(0, target.active - 1)
        balancer.changed(target)


def test_a_weight_that_changes_costs_no_turn() -> None:
    """Whose weight changes all the time has its turn among equal loads when it comes."""
    of = members(1, 1, 1)
    balancer = build(Mode.LEASTCONN, of)
    served = ""
    for number in range(6):
        assert balancer.reweigh(of[1][0], number + 1, number + 2)
        served += picks(balancer, 1)[0]
    assert served == "abcabc"


def test_ties_go_round() -> None:
    """Among equal loads everybody has a turn, with or without changes in between."""
    of = members(1, 1, 1)
    balancer = build(Mode.LEASTCONN, of)
    assert "".join(picks(balancer, 6)) == "abcabc"
    served = []
    for _ in range(6):
        target = balancer.pick(0, ())
        for step in (1, -1):
            target.active += step
            balancer.changed(target)
        served.append(target.id)
    assert "".join(served) == "abcabc"


def test_load_is_per_weight() -> None:
    """Connections that stay settle in proportion to the weights."""
    of = members(1, 2, 5)
    balancer = build(Mode.LEASTCONN, of)
    for _ in range(80):
        target = balancer.pick(0, ())
        target.active += 1
        balancer.changed(target)
    assert [target.active for target, _ in of] == [10, 20, 50]


def test_turns_survive_a_rebuild() -> None:
    """After an update ties go on where they were; a newcomer with the same load is last."""
    of = members(1, 1, 1)
    balancer = build(Mode.LEASTCONN, of)
    picks(balancer, 2)
    balancer = build(Mode.LEASTCONN, [(Backend("new"), 1), *of], previous=balancer)
    assert picks(balancer, 5) == ["c", "a", "b", "new", "c"]


def test_memory_is_bounded() -> None:
    """However often loads change without a pick, the heap stays within a small multiple of the members."""
    of = members(1, 1, 1)
    balancer = build(Mode.LEASTCONN, of)
    for number in range(5000):
        of[0][0].active = number
        balancer.changed(of[0][0])
        assert len(balancer._heap) <= 100
    assert Counter(picks(balancer, 4)) == {"b": 2, "c": 2}


def test_tried_ones_come_back() -> None:
    """Being tried by one connection costs nothing with the next."""
    of = members(1, 1)
    of[1][0].active = 3
    balancer = build(Mode.LEASTCONN, of)
    assert balancer.pick(0, (of[0][0],)) is of[1][0]
    assert balancer.pick(0, ()) is of[0][0]
