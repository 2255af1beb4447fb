"""Which instances are wanted, on virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.instances import Condition, Instance
from controlplane.core.wanted import FlapDamper, Wanted

ABSENT_S = 300.0


def seen(**conditions):
    """Return instances with these conditions."""
    return tuple(
        Instance(name, f"{name}:1", condition=condition) for name, condition in sorted(conditions.items())
    )


def never(_backend):
    """Nobody answers."""
    return False


def ids(wanted, now):
    """Return the ids of those that are wanted."""
    return "".join(wanted.table(now, ABSENT_S))


def test_critical_ones_are_not_wanted():
    """All other conditions are."""
    wanted = Wanted(never)
    wanted.note(seen(**dict(zip("abcde", Condition, strict=True))), 0.0)
    assert ids(wanted, 0.0) == "abcd"


def test_another_one_recalls_who_is_lost_and_who_flaps():
    """Without the reply itself; what it notes then is its own."""
    before, later = Wanted(never), Wanted(never)
    for number in range(12):
        before.note(seen(a=Condition.LOST, b=(Condition.PASSING, Condition.CRITICAL)[number % 2]), 0.0)
    later.recall(before)
    assert ids(later, 0.0) == ""
    later.note(seen(a=Condition.LOST, b=Condition.PASSING), 100.0)
    assert (later.flapping(100.0), later.dues("a", ABSENT_S)[0]) == (["b"], ABSENT_S)
    later.note(seen(), 100.0)
    assert before.dues("a", ABSENT_S)[0] == ABSENT_S


def test_lost_ones_are_wanted_for_a_time():
    """From when the agent fell silent, whatever replies come meanwhile; and from anew when it has come back."""
    wanted = Wanted(never)
    for now in (0.0, 200.0):
        wanted.note(seen(a=Condition.LOST), now)
    assert wanted.dues("a", ABSENT_S) == [ABSENT_S]
    assert (ids(wanted, 299.0), ids(wanted, 300.0)) == ("a", "")
    wanted.note(seen(a=Condition.PASSING), 400.0)
    wanted.note(seen(a=Condition.LOST), 500.0)
    assert (ids(wanted, 799.0), ids(wanted, 800.0)) == ("a", "")


def test_lost_ones_that_answer_stay():
    """The balancer's own checks know better than a silent agent."""
    wanted = Wanted(lambda backend: backend == "a")
    wanted.note(seen(a=Condition.LOST, b=Condition.LOST), 0.0)
    assert ids(wanted, 10 * ABSENT_S) == "a"


def test_only_what_is_published_falls_due():
    """Nobody need be woken for the end of what nobody sees."""
    wanted = Wanted(never)
    wanted.note(seen(a=Condition.LOST), 0.0)
    assert wanted.dues("b", ABSENT_S) == []


def test_flapping_ones_wait():
    """What goes up and down all the time is not wanted until it has calmed, and that falls due."""
    wanted = Wanted(never)
    for now in range(8):
        wanted.note(seen(a=Condition.PASSING if now % 2 else Condition.CRITICAL), float(now))
    assert ids(wanted, 7.0) == ""
    assert wanted.flapping(7.0) == ["a"]
    (calm_at,) = wanted.dues((), ABSENT_S)
    assert (ids(wanted, calm_at - 1.0), ids(wanted, calm_at)) == ("", "a")
    assert wanted.flapping(calm_at) == []


def flap(damper, times, *, now=0.0, gap=0.0):
    """Let an instance change so many times; returns the time of the last."""
    up = True
    damper.note("a", now, up=up)
    for _ in range(times):
        up = not up
        now += gap
        damper.note("a", now, up=up)
    return now


def test_a_few_changes_are_no_flapping():
    """Five changes at once are suffered; the sixth is one too many."""
    damper = FlapDamper()
    flap(damper, 5)
    assert not damper.is_suppressed("a", 0.0)
    damper.note("a", 0.0, up=True)
    assert damper.is_suppressed("a", 0.0)


def test_comes_back_when_calm():
    """A suppressed instance is let back at the time that was told, and not before."""
    damper = FlapDamper()
    flap(damper, 8)
    (back_at,) = damper.reuses()
    assert back_at == pytest.approx(120.0)  # from 8 to 2: two half-lives
    assert damper.is_suppressed("a", back_at - 1.0)
    assert not damper.is_suppressed("a", back_at)
    assert damper.reuses() == []


def test_slow_changes_never_count():
    """One change a minute never reaches the mark."""
    damper = FlapDamper()
    now = flap(damper, 100, gap=60.0)
    assert not damper.is_suppressed("a", now)


def test_the_same_state_again_is_no_change():
    """Seeing an instance in the state that it had costs nothing."""
    damper = FlapDamper()
    for now in range(100):
        damper.note("a", float(now), up=False)
    assert not damper.is_suppressed("a", 99.0)


def test_forgets_what_is_gone():
    """Of instances that left long ago nothing is kept; of flapping ones something, for they may return."""
    damper = FlapDamper()
    flap(damper, 8)
    damper.prune(set(), 1.0)
    assert damper.is_suppressed("a", 1.0)
    damper.prune(set(), 3600.0)
    assert damper._records == {}


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), st.booleans())))
def test_suppressed_only_after_enough_changes(steps):
    """Nobody is suppressed who has changed five times or less."""
    damper = FlapDamper()
    now, changes, last = 0.0, 0, None
    for gap, up in steps:
        now += gap
        changes += last is not None and up is not last
        last = up
        damper.note("a", now, up=up)
        if changes <= 5:
            assert not damper.is_suppressed("a", now)
