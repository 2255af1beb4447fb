"""Active health of one backend."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.health import (
    TRANSITIONS,
    ActiveHealth,
    Change,
    HealthState,
    HealthView,
    Outcome,
    combine,
)

REFUSED = "connection refused"


def observe_all(health, verdicts, *, start=1.0):
    """Feed verdicts one second apart; return the states after each."""
    states = []
    for index, ok in enumerate(verdicts):
        health.observe(Outcome(ok, "ok" if ok else REFUSED, ok), start + index)
        states.append(health.state.value)
    return states


def test_starts_unknown():
    """Before any verdict a backend is unknown, which is usable."""
    health = ActiveHealth(2, 3, now=5.0)
    assert health.view == HealthView(HealthState.UNKNOWN, "not checked yet", 5.0)
    assert health.state.usable


@pytest.mark.parametrize(
    ("ok", "cause", "state"), [(True, "ok", HealthState.UP), (False, REFUSED, HealthState.DOWN)]
)
def test_first_verdict_counts_at_once(ok, cause, state):
    """The first verdict decides alone, whatever rise and fall are."""
    health = ActiveHealth(5, 5)
    change = health.observe(Outcome(ok, cause, ok), 7.0)
    assert change == Change(
        HealthView(HealthState.UNKNOWN, "not checked yet", 0.0), HealthView(state, cause, 7.0, ok)
    )


@pytest.mark.parametrize(
    ("rise", "fall", "verdicts", "states"),
    [
        (2, 3, [1, 0, 0, 0], ["up", "up", "up", "down"]),
        (2, 3, [1, 0, 0, 1, 0, 0, 0], ["up", "up", "up", "up", "up", "up", "down"]),
        (2, 3, [0, 1, 1], ["down", "down", "up"]),
        (3, 1, [0, 1, 1, 0, 1, 1, 1], ["down", "down", "down", "down", "down", "down", "up"]),
        (1, 1, [1, 0, 1, 0], ["up", "down", "up", "down"]),
        (2, 2, [1, 1, 1, 0, 0], ["up", "up", "up", "up", "down"]),
    ],
)
def test_streaks_decide(rise, fall, verdicts, states):
    """After the first verdict it takes `fall` failures or `rise` successes in a row."""
    assert observe_all(ActiveHealth(rise, fall), map(bool, verdicts)) == states


def test_first_failure_counts_as_the_first_of_its_streak():
    """With fall 2, the failure after an unknown start leaves nothing to repeat: it is down already."""
    health = ActiveHealth(2, 2)
    assert observe_all(health, [False, True, True, False, False]) == ["down", "down", "up", "up", "down"]


def test_cause_and_since_belong_to_the_change():
    """While a state lasts, its cause and beginning stay."""
    health = ActiveHealth(2, 2)
    health.observe(Outcome(True, "ok"), 1.0)
    health.observe(Outcome(False, REFUSED, False), 2.0)
    assert (health.cause, health.since) == ("ok", 1.0)
    assert health.observe(Outcome(False, "connect timeout", False), 3.0) is not None
    health.observe(Outcome(False, "http status 503"), 4.0)
    assert (health.cause, health.since) == ("connect timeout", 3.0)


WRONG, GONE = Outcome(False, "http status 503"), Outcome(False, REFUSED, False)


def test_reachable_has_a_streak_of_its_own():
    """A backend that is down becomes unreachable, and reachable again, by `fall` and `rise`; the cause follows."""
    health = ActiveHealth(2, 3)
    assert health.reachable, "nobody has said anything against it"
    health.observe(WRONG, 1.0)
    assert (health.state, health.reachable) == (HealthState.DOWN, True)
    assert [health.observe(GONE, now) for now in (2.0, 3.0)] == [None, None]
    change = health.observe(GONE, 4.0)
    assert change.old == HealthView(HealthState.DOWN, "http status 503", 1.0, True)
    assert change.new == HealthView(HealthState.DOWN, REFUSED, 1.0, False)
    assert health.observe(WRONG, 5.0) is None
    assert health.observe(WRONG, 6.0).new == HealthView(HealthState.DOWN, "http status 503", 1.0, True)
    assert health.forget(7.0).new == HealthView(HealthState.UNKNOWN, "checks are off", 7.0, True)


def test_the_first_verdict_tells_whether_it_is_reachable():
    """As with health, nobody has to wait for a streak."""
    health = ActiveHealth(5, 5)
    health.observe(GONE, 1.0)
    assert (health.state, health.reachable) == (HealthState.DOWN, False)


@pytest.mark.parametrize(
    ("state", "said", "before", "after"),
    [
        (HealthState.DOWN, None, GONE, False),
        (HealthState.DOWN, None, WRONG, True),
        (HealthState.DOWN, None, None, True),
        (HealthState.DOWN, True, GONE, True),
        (HealthState.DOWN, False, WRONG, False),
        (HealthState.UP, None, GONE, True),
        (HealthState.UP, False, GONE, True),
        (HealthState.UNKNOWN, False, GONE, True),
    ],
)
def test_a_decision_may_say_whether_it_is_reachable(state, said, before, after):
    """What it does not say stays as it was; who is up is reachable."""
    health = ActiveHealth(2, 3)
    if before is not None:
        health.observe(before, 1.0)
    health.decide(state, "said so", 2.0, reachable=said)
    assert (health.state, health.reachable) == (state, after)


def test_reconfigure_keeps_state_and_streak():
    """Lower thresholds apply to the streak as it stands, at the next verdict."""
    health = ActiveHealth(2, 5)
    observe_all(health, [True, False, False])
    health.reconfigure(2, 3)
    assert health.state is HealthState.UP
    change = health.observe(Outcome(False, REFUSED), 9.0)
    assert change is not None
    assert change.new.state is HealthState.DOWN


def test_forget_returns_to_unknown_and_the_next_verdict_counts_at_once():
    """Checks that are switched off and on again begin anew."""
    health = ActiveHealth(3, 3)
    observe_all(health, [True])
    change = health.forget(4.0)
    assert (change.old.state, change.new) == (
        HealthState.UP,
        HealthView(HealthState.UNKNOWN, "checks are off", 4.0),
    )
    assert health.forget(5.0) is None
    assert health.observe(Outcome(False, REFUSED), 6.0) is not None
    assert health.state is HealthState.DOWN


@pytest.mark.parametrize("before", [[], [True], [False]])
@pytest.mark.parametrize("state", [HealthState.UP, HealthState.DOWN, HealthState.UNKNOWN])
def test_a_decision_needs_no_streak(before, state):
    """Whatever the state was, a decision holds at once, and says so only if it changes something."""
    health = ActiveHealth(3, 3)
    observe_all(health, before)
    was = health.state
    change = health.decide(state, "said so", 9.0)
    assert health.state is state
    assert (change is None) is (was is state)


def test_a_decision_begins_a_new_streak():
    """Checks of our own need their whole streak against it."""
    health = ActiveHealth(2, 2)
    observe_all(health, [False])
    health.decide(HealthState.UP, "said so", 3.0)
    assert health.observe(Outcome(False, REFUSED), 4.0) is None
    assert health.observe(Outcome(False, REFUSED), 5.0).new.state is HealthState.DOWN


EVENTS = st.lists(
    st.one_of(
        st.sampled_from([Outcome(True, "ok"), WRONG, GONE]),
        st.just("forget"),
        st.tuples(st.integers(1, 4), st.integers(1, 4)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(rise=st.integers(1, 4), fall=st.integers(1, 4), events=EVENTS)
def test_random_events_follow_the_table(rise, fall, events):
    """Whatever happens, both facts follow streaks counted by hand, who is up is reachable, and each change is told."""
    health = ActiveHealth(rise, fall)
    facts = {"state": [], "reachable": []}
    known = {"state": None, "reachable": None}
    for now, event in enumerate(events, start=1):
        before = health.view
        if event == "forget":
            change = health.forget(float(now))
            facts, known = {"state": [], "reachable": []}, {"state": None, "reachable": None}
        elif isinstance(event, tuple):
            rise, fall = event
            health.reconfigure(rise, fall)
            assert health.view == before
            continue
        else:
            change = health.observe(event, float(now))
            for fact, good in (("state", event.ok), ("reachable", event.reachable)):
                facts[fact].append(good)
                threshold = rise if good else fall
                if known[fact] is None or facts[fact][-threshold:] == [good] * threshold:
                    known[fact] = good
        states = {None: HealthState.UNKNOWN, True: HealthState.UP, False: HealthState.DOWN}
        assert health.state is states[known["state"]]
        assert health.reachable is (known["reachable"] is not False)
        assert health.reachable or health.state is HealthState.DOWN
        after = health.view
        assert change == (None if before == after else Change(before, after))
        if before.state is not after.state:
            assert (after.since, after.cause) == (now, "checks are off" if event == "forget" else event.cause)


def test_table_knows_no_ejected():
    """Active checks neither say `ejected` nor act on it."""
    assert HealthState.EJECTED not in {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values())


EJECTED = HealthView(HealthState.EJECTED, "5 x connection reset", 3.0)


@pytest.mark.parametrize(
    ("active", "ejected", "state"),
    [
        (HealthState.DOWN, EJECTED, "down"),
        (HealthState.UP, EJECTED, "ejected"),
        (HealthState.UNKNOWN, EJECTED, "ejected"),
        (HealthState.UP, None, "up"),
        (HealthState.UNKNOWN, None, "unknown"),
        (HealthState.DOWN, None, "down"),
    ],
)
def test_combine_names_the_word_that_holds(active, ejected, state):
    """Down wins over ejected, ejected over the rest, and cause and since go with the winner."""
    view = HealthView(active, "active", 1.0)
    combined = combine(view, ejected)
    assert combined.state == state
    assert combined is (EJECTED if state == "ejected" else view)


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("dials", [True, False])
@pytest.mark.parametrize("state", [HealthState.UP, HealthState.DOWN])
def test_combine_believes_whoever_cannot_connect(active, dials, state):
    """It is reachable only if neither checks nor clients' dials say the contrary."""
    combined = combine(
        HealthView(state, "active", 1.0, active), HealthView(HealthState.EJECTED, "x", 2.0, dials)
    )
    assert combined.reachable is (active and dials)


def test_usable():
    """Unknown counts as usable, ejected does not."""
    assert {state.value for state in HealthState if state.usable} == {"up", "unknown"}
