"""What has been counted lately."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.recent import STEP_S, WINDOW_S, Recent


def test_a_minute_and_no_more() -> None:
    """What happened in the last minute counts, all that is older does not, and nothing is asked in between."""
    recent = Recent(0.0, (0, 0))
    count = 0
    for step in range(1, 100):
        now = step * STEP_S
        count += 7
        recent.look(now, (count, 0))
        window_s, (lately, nothing) = recent.since(now, (count, 0))
        assert window_s == min(now, WINDOW_S)
        assert (lately, nothing) == (7 * window_s / STEP_S, 0)


def test_a_young_one_has_a_short_window() -> None:
    """Before the first look everything is recent."""
    recent = Recent(100.0, (0,))
    assert recent.since(102.0, (5,)) == (2.0, (5,))


def test_after_a_pause_old_counts_are_not_new() -> None:
    """A process that was stopped for long does not tell what was before as if it had been now."""
    recent = Recent(0.0, (0,))
    recent.look(5.0, (100,))
    recent.look(905.0, (103,))
    assert recent.since(905.0, (103,)) == (900.0, (3,))
    assert recent.since(965.0, (103,)) == (60.0, (0,))


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0, STEP_S))
def test_against_the_sum(counts: list[int], later: float) -> None:
    """Looked at every STEP_S, it is what was counted since a look between one and one and a bit windows ago."""
    recent = Recent(0.0, (0,))
    total = 0
    for step, count in enumerate(counts, 1):
        total += count
        recent.look(step * STEP_S, (total,))
    now = len(counts) * STEP_S + later
    window_s, (lately,) = recent.since(now, (total,))
    assert window_s <= WINDOW_S + STEP_S
    assert window_s >= min(now, WINDOW_S)
    assert lately == sum(counts[round((now - window_s) / STEP_S) :])
