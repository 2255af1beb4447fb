from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.flap import FlapDamper


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
