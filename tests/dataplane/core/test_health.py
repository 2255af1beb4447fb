"""Active health of one backend."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.health import (
    TRANSITIONS,
    ActiveHealth,
    Change,
    Event,
    HealthState,
    HealthView,
    combine,
)

REFUSED = "connection refused"


def observe_all(health, verdicts, *, start=1.0):
    """Feed verdicts one second apart; return the states after each."""
    states = []
    for index, ok in enumerate(verdicts):
        health.observe(ok, "ok" if ok else REFUSED, start + index)
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
    assert health.observe(ok, cause, 7.0) == Change(HealthState.UNKNOWN, state, cause, 7.0)


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
    """While a state lasts, its cause and beginning stay, and the newest failure's cause is kept apart."""
    health = ActiveHealth(2, 2)
    health.observe(True, "ok", 1.0)
    health.observe(False, REFUSED, 2.0)
    assert (health.cause, health.since, health.last_failure) == ("ok", 1.0, REFUSED)
    assert health.observe(False, "connect timeout", 3.0) is not None
    health.observe(False, "http status 503", 4.0)
    assert (health.cause, health.since, health.last_failure) == ("connect timeout", 3.0, "http status 503")


def test_last_failure_outlives_recovery():
    """An operator still sees after recovery what the last failure was."""
    health = ActiveHealth(1, 1)
    observe_all(health, [False, True])
    assert (health.state, health.last_failure) == (HealthState.UP, REFUSED)


def test_reconfigure_keeps_state_and_streak():
    """Lower thresholds apply to the streak as it stands, at the next verdict."""
    health = ActiveHealth(2, 5)
    observe_all(health, [True, False, False])
    health.reconfigure(2, 3)
    assert health.state is HealthState.UP
    change = health.observe(False, REFUSED, 9.0)
    assert change is not None
    assert change.new is HealthState.DOWN


def test_forget_returns_to_unknown_and_the_next_verdict_counts_at_once():
    """Checks that are switched off and on again begin anew."""
    health = ActiveHealth(3, 3)
    observe_all(health, [True])
    assert health.forget(4.0) == Change(HealthState.UP, HealthState.UNKNOWN, "checks are off", 4.0)
    assert health.forget(5.0) is None
    assert health.observe(False, REFUSED, 6.0) is not None
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
    assert health.observe(False, REFUSED, 4.0) is None
    assert health.observe(False, REFUSED, 5.0).new is HealthState.DOWN


EVENTS = st.lists(
    st.one_of(
        st.booleans(),
        st.just("forget"),
        st.tuples(st.integers(1, 4), st.integers(1, 4)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(rise=st.integers(1, 4), fall=st.integers(1, 4), events=EVENTS)
def test_random_events_follow_the_table(rise, fall, events):
    """Whatever happens, each step is a row of the table, and streaks agree with a count made by hand."""
    health = ActiveHealth(rise, fall)
    run: list[bool] = []
    for now, event in enumerate(events, start=1):
        before = health.state
        if event == "forget":
            change = health.forget(float(now))
            run = []
            reachable = {TRANSITIONS[before, Event.FORGET]}
        elif isinstance(event, tuple):
            rise, fall = event
            health.reconfigure(rise, fall)
            assert health.state is before
            continue
        else:
            run.append(event)
            change = health.observe(event, str(event), float(now))
            rows = (Event.PASS, Event.RISE) if event else (Event.FAIL, Event.FALL)
            reachable = {TRANSITIONS[before, row] for row in rows if (before, row) in TRANSITIONS}
            threshold = rise if event else fall
            complete = run[-threshold:] == [event] * threshold
            if before is HealthState.UNKNOWN or complete:
                assert health.state is (HealthState.UP if event else HealthState.DOWN)
            else:
                assert health.state is before
        assert health.state in reachable
        assert (change is not None) == (health.state is not before)
        if change is not None:
            assert change == Change(before, health.state, health.cause, float(now))
            assert health.since == now


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


def test_usable():
    """Unknown counts as usable, ejected does not."""
    assert {state.value for state in HealthState if state.usable} == {"up", "unknown"}
