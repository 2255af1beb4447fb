"""Passive health of one service."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.health import HealthState, HealthView
from dataplane.core.outlier import TRANSITIONS, Ejection, Evidence, Failure, Outliers, Refusal, Standing
from dataplane.core.spec import PassiveSpec, Resets

SPEC = PassiveSpec(
    failures=3, ejection_s=30.0, max_ejection_s=100.0, max_ejected=0.5, resets=Resets.UNPROVOKED
)
REFUSED = "connection refused"


def fail(outliers, backend_id, now, *, times=3, evidence=Evidence.CONNECT, **around):
    """Let a backend fail several times; return the last answer that is one.

    Args:
        outliers: Who is told.
        backend_id: Of the backend.
        now: Monotonic seconds.
        times: How often.
        evidence: What happens.
        around: `population`, and whether it has `others`.
    """
    answer, others = None, around.get("others", True)
    for _ in range(times):
        failure = Failure(backend_id, evidence, REFUSED, now)
        told = outliers.failure(failure, population=around.get("population", 10), has_others=lambda: others)
        answer = told or answer
    return answer


def test_consecutive_failures_eject():
    """The failure that completes the streak ejects, none before it."""
    outliers = Outliers(SPEC)
    assert fail(outliers, "a", 1.0, times=2) is None
    assert outliers.failing == {"a": 2}
    ejection = fail(outliers, "a", 2.0, times=1)
    assert ejection == Ejection("a", REFUSED, since=2.0, until=32.0, times=1, reachable=False)
    assert outliers.ejection("a") is ejection
    assert outliers.ejected() == (ejection,)
    assert ejection.view == HealthView(HealthState.EJECTED, REFUSED, 2.0, reachable=False)


def test_success_ends_the_streak():
    """Failures count only in a row, and `failing` tells who has any."""
    outliers = Outliers(SPEC)
    fail(outliers, "a", 1.0, times=2)
    outliers.success("a")
    assert outliers.failing == {}
    assert fail(outliers, "a", 2.0, times=2) is None
    assert fail(outliers, "a", 2.0, times=1) is not None


def test_success_of_a_backend_without_failures_is_nothing():
    """A success that was reported without need is harmless."""
    outliers = Outliers(SPEC)
    outliers.success("a")
    assert outliers.failing == {}


def test_failing_is_one_dictionary_for_life():
    """The caller may keep a reference to `failing`: no call replaces it."""
    outliers = Outliers(SPEC)
    failing = outliers.failing
    fail(outliers, "a", 1.0, times=1)
    outliers.reconfigure(replace(SPEC, failures=0))
    outliers.reconfigure(SPEC)
    fail(outliers, "b", 1.0, times=1)
    assert failing is outliers.failing
    assert failing == {"b": 1}


def test_ejection_ends_when_its_time_is_over():
    """`next_deadline` tells when, and `expire` ends it then and not before."""
    outliers = Outliers(SPEC)
    assert outliers.next_deadline() is None
    fail(outliers, "a", 0.0)
    fail(outliers, "b", 5.0)
    assert outliers.next_deadline() == 30.0
    assert outliers.expire(29.9) == []
    assert outliers.expire(30.0) == ["a"]
    assert outliers.next_deadline() == 35.0
    assert outliers.ejection("a") is None
    assert outliers.expire(1000.0) == ["b"]
    assert outliers.next_deadline() is None


def test_streak_starts_from_nothing_after_an_ejection():
    """A backend that is back gets as many chances as any other."""
    outliers = Outliers(SPEC)
    fail(outliers, "a", 0.0)
    outliers.expire(30.0)
    assert fail(outliers, "a", 31.0, times=2) is None
    assert outliers.failing == {"a": 2}


def test_failures_while_ejected_say_nothing():
    """Connections of before, or of panic, neither prolong an ejection nor count for the time after."""
    outliers = Outliers(SPEC)
    fail(outliers, "a", 0.0)
    assert fail(outliers, "a", 10.0, times=20) is None
    outliers.success("a")
    assert outliers.next_deadline() == 30.0
    assert outliers.failing == {}


def test_each_ejection_is_longer_up_to_the_limit():
    """The n-th ejection in short order lasts n periods, at most `max_ejection_s`."""
    outliers = Outliers(SPEC)
    now, lengths = 0.0, []
    for _ in range(6):
        ejection = fail(outliers, "a", now)
        lengths.append(ejection.until - ejection.since)
        now = ejection.until
        outliers.expire(now)
    assert lengths == [30.0, 60.0, 90.0, 100.0, 100.0, 100.0]


@pytest.mark.parametrize(("back_for_s", "times"), [(29.0, 4), (30.0, 3), (59.9, 3), (60.0, 2), (500.0, 1)])
def test_memory_of_ejections_decays(back_for_s, times):
    """Each ejection period without a new one takes one off the count."""
    outliers = Outliers(SPEC)
    now = 0.0
    for _ in range(3):
        now = fail(outliers, "a", now).until
        outliers.expire(now)
    assert fail(outliers, "a", now + back_for_s).times == times


def test_memory_is_bounded_by_the_longest_ejection():
    """However often a backend was ejected, four quiet periods suffice where four periods reach the limit."""
    outliers = Outliers(SPEC)
    now = 0.0
    for _ in range(50):
        now = fail(outliers, "a", now).until
        outliers.expire(now)
    assert fail(outliers, "a", now + 4 * 30.0).times == 1


def test_passed_check_ends_an_ejection():
    """A check that passes brings the backend back, and its early return still counts as an ejection lately."""
    outliers = Outliers(SPEC)
    fail(outliers, "a", 0.0)
    assert outliers.passed_check("a", 2.0)
    assert outliers.ejection("a") is None
    assert outliers.next_deadline() is None
    assert fail(outliers, "a", 3.0).times == 2


def test_passed_check_of_others_is_nothing():
    """A check that passes for a backend that is in changes nothing, least of all its streak."""
    outliers = Outliers(SPEC)
    assert not outliers.passed_check("a", 1.0)
    fail(outliers, "a", 1.0, times=2)
    assert not outliers.passed_check("a", 2.0)
    assert outliers.failing == {"a": 2}


@pytest.mark.parametrize(
    ("share", "population", "allowed"),
    [
        (0.1, 3, 1),
        (0.1, 19, 1),
        (0.1, 20, 2),
        (0.29, 100, 29),
        (0.5, 5, 2),
        (1.0, 4, 4),
        (0.0, 9, 1),
        (0.1, 1, 1),
    ],
)
def test_cap(share, population, allowed):
    """At most that share of the backends is ejected at once, rounded down, but one always may be."""
    outliers = Outliers(replace(SPEC, max_ejected=share))
    answers = [fail(outliers, f"b{i}", 1.0, population=population) for i in range(population)]
    ejected = [answer for answer in answers if isinstance(answer, Ejection)]
    assert outliers.allowed(population) == allowed
    assert len(ejected) == len(outliers.ejected()) == allowed


def test_refusal_is_told_once_a_streak_and_retried():
    """Beyond the cap an ejection is refused and said once; when there is room, the next failure ejects."""
    outliers = Outliers(replace(SPEC, max_ejected=0.1))
    fail(outliers, "a", 0.0)
    assert fail(outliers, "b", 1.0) is Refusal.CAP
    assert fail(outliers, "b", 1.0, times=5) is None
    assert outliers.failing == {"b": 8}
    outliers.expire(30.0)
    assert isinstance(fail(outliers, "b", 31.0, times=1), Ejection)


@pytest.mark.parametrize(
    ("resets", "counted"),
    [
        (Resets.OFF, {Evidence.CONNECT}),
        (Resets.UNPROVOKED, {Evidence.CONNECT, Evidence.UNPROVOKED_RESET}),
        (Resets.ANY, set(Evidence)),
    ],
)
@pytest.mark.parametrize("evidence", Evidence)
def test_evidence(resets, counted, evidence):
    """Failed connects always count; resets that a client may have provoked only if they are asked for."""
    outliers = Outliers(replace(SPEC, resets=resets))
    assert isinstance(fail(outliers, "a", 0.0, evidence=evidence), Ejection) is (evidence in counted)
    assert outliers.failing == {}, "what does not count is no part of a streak either"


@pytest.mark.parametrize("evidence", [Evidence.RESET, Evidence.UNPROVOKED_RESET])
def test_resets_never_eject_the_last_one(evidence):
    """A streak with a reset in it ejects only where another backend is usable; one of connects ejects anybody."""
    outliers = Outliers(replace(SPEC, resets=Resets.ANY, max_ejected=1.0))
    assert isinstance(fail(outliers, "a", 0.0, others=False), Ejection)
    assert fail(outliers, "b", 0.0, evidence=evidence, others=False) is Refusal.LAST
    assert fail(outliers, "b", 0.0, others=False) is None, "the streak has resets in it"
    ejection = fail(outliers, "b", 0.0, times=1)
    assert isinstance(ejection, Ejection), "there is somebody else again"
    assert ejection.reachable, "connections could be made"


def test_a_success_forgets_the_resets():
    """A streak that begins anew after a success is judged by its own failures."""
    outliers = Outliers(SPEC)
    fail(outliers, "a", 0.0, times=2, evidence=Evidence.UNPROVOKED_RESET)
    outliers.success("a")
    assert isinstance(fail(outliers, "a", 0.0, others=False), Ejection)


def test_remove_frees_the_place():
    """A removed backend is forgotten, and somebody else may be ejected."""
    outliers = Outliers(replace(SPEC, max_ejected=0.1))
    fail(outliers, "a", 0.0)
    fail(outliers, "b", 0.0, times=2)
    outliers.remove("a")
    outliers.remove("never seen")
    assert outliers.next_deadline() is None
    assert fail(outliers, "b", 1.0, times=1) is not None
    outliers.remove("b")
    assert fail(outliers, "b", 2.0).times == 1


def test_reconfigure_keeps_counters():
    """New settings apply to streaks as they stand, and ejections in force keep their end."""
    outliers = Outliers(SPEC)
    fail(outliers, "a", 0.0)
    fail(outliers, "b", 0.0, times=2)
    assert outliers.reconfigure(replace(SPEC, failures=2, ejection_s=5.0)) == []
    assert outliers.next_deadline() == 30.0
    assert fail(outliers, "b", 1.0, times=1).until == 6.0


def test_zero_failures_switches_off_and_releases():
    """With `failures` 0 nobody is ejected, and whoever was is back."""
    outliers = Outliers(SPEC)
    fail(outliers, "a", 0.0)
    fail(outliers, "b", 0.0, times=1)
    off = replace(SPEC, failures=0)
    assert outliers.reconfigure(off) == ["a"]
    assert outliers.reconfigure(off) == []
    assert fail(outliers, "a", 1.0, times=50) is None
    assert outliers.ejected() == ()
    assert outliers.failing == {}


def test_ejection_of_no_length_is_over_at_once():
    """An ejection time of 0 neither divides by zero nor holds anybody."""
    outliers = Outliers(replace(SPEC, ejection_s=0.0))
    for _ in range(2):
        ejection = fail(outliers, "a", 4.0)
        assert (ejection.until, ejection.times) == (4.0, 1)
        assert outliers.expire(4.0) == ["a"]


BACKENDS = ("a", "b", "c", "d")
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("fail", "fail", "fail", "succeed", "check", "expire", "remove", "off", "on")),
        st.sampled_from(BACKENDS),
        st.floats(0.0, 40.0),
    ),
    max_size=80,
)


def play(outliers, spec, event, backend_id, now):
    """Apply one event of the property test."""
    if event == "fail":
        fail(outliers, backend_id, now, times=1, population=len(BACKENDS))
    elif event == "succeed":
        outliers.success(backend_id)
    elif event == "check":
        outliers.passed_check(backend_id, now)
    elif event == "expire":
        outliers.expire(now)
    elif event == "remove":
        outliers.remove(backend_id)
    else:
        outliers.reconfigure(spec if event == "on" else replace(spec, failures=0))


@settings(deadline=None)
@given(failures=st.integers(1, 3), share=st.sampled_from((0.0, 0.5, 1.0)), events=EVENTS)
def test_random_events_follow_the_table(failures, share, events):
    """Whatever happens, only rows of the table do, the cap holds, and every ejection has an end in time."""
    spec = replace(SPEC, failures=failures, max_ejected=share)
    outliers, steps, now = Outliers(spec), set(), 0.0
    for event, backend_id, passed_s in events:
        now += passed_s
        before = {key: (record, record.standing) for key, record in outliers._records.items()}
        play(outliers, spec, event, backend_id, now)
        for record, standing in before.values():
            steps.add((standing, record.standing))
        ejected = {ejection.backend_id for ejection in outliers.ejected()}
        assert ejected == {key for key, r in outliers._records.items() if r.standing is Standing.EJECTED}
        assert len(ejected) <= max(1, floor(share * len(BACKENDS)))
        assert not ejected & outliers.failing.keys()
        assert all(streak > 0 for streak in outliers.failing.values())
        for ejection in outliers.ejected():
            assert ejection.since < ejection.until <= ejection.since + spec.max_ejection_s
    assert steps <= {(old, new) for (old, _), new in TRANSITIONS.items()}
    outliers.expire(now + spec.max_ejection_s)
    assert outliers.ejected() == ()
