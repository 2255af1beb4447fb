"""Whether a canary is worse: by each of the four things, against each reference, and never by chance or for lack of traffic."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from controlplane.core.node_record import FirstByte, Outcomes
from controlplane.core.verdict import ALPHA, Window, chance_of_more, judge

PAST = Outcomes(10_000, 10, 2, 4, 4, FirstByte(10_000, 20_000.0, {"2.5": 9_500, "10": 500}))
DAY_S = 86400.0


def window(node="n", began=None, *, restarted=False, **added):
    """Return a node's window: what it adds to `began`, by field; `slow` of its first bytes are above 2.5 ms."""
    began = PAST if began is None else began
    slow = added.pop("slow", 0)
    connections = added.get("connections", 1000)
    answered = connections - added.get("failures", 0)
    times = FirstByte(answered, 2.0 * answered, {"2.5": answered - slow, "100": slow})
    more = Outcomes(
        connections,
        added.get("failures", 1),
        added.get("ejections", 0),
        added.get("usable", 4) - began.usable,
        added.get("backends", 4) - began.backends,
        times,
    )
    start = Outcomes() if restarted else began
    after = start + more if not restarted else replace(more, usable=added.get("usable", 4), backends=4)
    return Window(node, {"web": began}, {"web": after}, DAY_S, restarted=restarted)


def worse(canary, others, window_s=60.0, **how):
    """Return what is worse."""
    return {each.metric for each in judge(canary, others, window_s, **how).rows if each.is_worse}


FINE = [window("b"), window("c")]


@pytest.mark.parametrize(
    ("added", "found"),
    [
        ({}, set()),
        ({"failures": 100}, {"failed"}),
        ({"failures": 4}, set()),
        ({"failures": 1000}, {"failed"}),
        ({"connections": 49, "failures": 49}, set()),
        ({"connections": 50, "failures": 50}, {"failed"}),
        ({"slow": 500}, {"first byte"}),
        ({"slow": 90}, set()),
        ({"ejections": 8}, {"ejections"}),
        ({"ejections": 1}, set()),
        ({"usable": 2}, {"usable"}),
        ({"usable": 0}, {"usable"}),
        ({"connections": 0, "failures": 0}, set()),
    ],
)
def test_what_is_worse_than_both(added, found):
    """By the thing that is worse, and no other one."""
    assert worse([window("a", **added)], FINE) == found


@pytest.mark.parametrize(
    "added",
    [{"failures": 100}, {"slow": 500}, {"ejections": 8}, {"usable": 2}],
    ids=lambda it: next(iter(it)),
)
def test_what_all_nodes_meet_is_not_the_canarys_fault(added):
    """A backend that dies in the window."""
    assert worse([window("a", **added)], [window("b", **added), window("c", **added)]) == set()


def test_a_node_that_was_always_so_is_no_worse():
    """Its own past is the other witness."""
    past = replace(PAST, failures=1000)
    assert worse([window("a", began=past, failures=100)], FINE) == set()


def test_without_others_the_past_decides():
    """And without enough of others, too."""
    assert worse([window("a", failures=100)], []) == {"failed"}
    assert worse([window("a", failures=100)], [window("b", connections=10)]) == {"failed"}
    assert worse([window("a", failures=1)], []) == set()


def test_a_service_without_reference_is_worse_only_if_it_serves_hardly_anybody():
    """There is nothing to compare with."""
    for failures, found in ((600, {"failed"}), (100, set())):
        new = Window("a", {}, {"new": Outcomes(1000, failures, 0, 1, 1)}, DAY_S)
        assert worse([new], FINE) == found


def test_counters_that_began_anew_are_no_negative_numbers():
    """What a node counted since its restart is what it adds."""
    verdict = judge([window("a", restarted=True, connections=70)], FINE, 60.0)
    assert (verdict.connections, verdict.is_worse) == (70, False)
    less = Window("a", {"web": PAST}, {"web": Outcomes(60, 1, 0, 4, 4)}, DAY_S)
    assert judge([less], FINE, 60.0).connections == 60


def test_a_restarted_node_may_have_counted_more_since_than_before():
    """Its start tells, not its numbers."""
    node = Window(
        "a", {"web": Outcomes(10, 0, 0, 4, 4)}, {"web": Outcomes(70, 1, 0, 4, 4)}, 1.0, restarted=True
    )
    assert judge([node], FINE, 60.0).connections == 70


def test_the_smallest_difference_is_none():
    """With a million connections chance excludes it, and nobody would notice."""
    past = replace(PAST, connections=10**6, failures=0)
    millions = {"began": past, "connections": 10**6}
    others = [window("b", **millions, failures=0)]
    assert worse([window("a", **millions, failures=500)], others) == set()
    assert worse([window("a", **millions, failures=2500)], others) == {"failed"}


def test_a_window_without_time():
    """There is nothing to compare rates by."""
    assert worse([window("a", ejections=50)], FINE, 0.0) == set()


def test_too_little_traffic_is_said():
    """And is no failure."""
    verdict = judge([window("a", connections=20, failures=20)], FINE, 60.0)
    assert (verdict.is_worse, verdict.is_judged) == (False, False)
    assert verdict.why == "too little traffic to judge: 20 new connections on its nodes"


def test_an_early_look_wants_stronger_proof():
    """What is clear at the end may not be clear yet; what is obvious is."""
    canary = [window("a", connections=200, failures=7)]
    assert (worse(canary, FINE), worse(canary, FINE, early=True)) == ({"failed"}, set())
    assert worse([window("a", failures=300)], FINE, early=True) == {"failed"}
    assert worse([window("a", usable=0)], FINE, early=True) == set()


def test_the_line_says_what_was_seen():
    """In percent of how many, on each side."""
    bad = judge([window("a", failures=100)], FINE, 60.0)
    assert bad.why == "web: failed 10% of 1000, others 0.1% of 2000, before 0.1% of 10000"
    assert judge([window("a")], FINE, 60.0).why == "web: failed 0.1% of 1000, others 0.1% of 2000"
    report = bad.rows[0].report()
    assert (report["metric"], report["worse"], report["worse_than_before"]) == ("failed", True, True)


@pytest.mark.parametrize(
    ("numbers", "chance"),
    [
        ((3, 100, 0, 300), 0.015224),  # 100/400 * 99/399 * 98/398
        ((0, 100, 0, 300), 1.0),
        ((3, 4, 1, 4), 17 / 70),  # Fisher's tea
        ((100, 100, 0, 100), 1.1e-59),
    ],
)
def test_the_exact_test(numbers, chance):
    """By numbers that can be looked up."""
    assert chance_of_more(*numbers) == pytest.approx(chance, rel=0.01)


def test_large_numbers_are_no_trouble():
    """Millions of connections: a chance, at once."""
    assert 0.3 < chance_of_more(10_000, 5_000_000, 20_000, 10_000_000) < 0.7
    assert chance_of_more(20_000, 5_000_000, 20_000, 10_000_000) < 1e-30


def test_canaries_that_are_as_good_are_hardly_ever_condemned():
    """Of 300 that are like the others hardly one, as the test promises; and a bad one always is."""
    dice = random.Random(7)

    def drawn(share):
        return sum(dice.random() < share for _ in range(500))

    others = [window("b", connections=1000, failures=20)]
    past = replace(PAST, failures=200)
    wrong = sum(
        bool(worse([window("a", began=past, connections=500, failures=drawn(0.02))], others))
        for _ in range(300)
    )
    assert wrong <= max(1, 300 * ALPHA * 3)
    assert worse([window("a", began=past, connections=500, failures=drawn(0.12))], others) == {"failed"}
