"""Slow start: from a sixteenth to the whole weight."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.slowstart import STEPS, next_step, ramp

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
