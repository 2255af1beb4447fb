from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.coalesce import Coalescer


def test_waits_for_quiet():
    """A burst is over when nothing has changed for the quiet time."""
    coalescer = Coalescer()
    assert coalescer.due() is None
    coalescer.change(10.0)
    coalescer.change(10.05)
    assert coalescer.due() == pytest.approx(10.15)


def test_never_waits_longer_than_the_cap():
    """A burst that does not end is cut off one second after its first change."""
    coalescer = Coalescer()
    for step in range(30):
        coalescer.change(10.0 + step * 0.05)
    assert coalescer.due() == pytest.approx(11.0)


def test_clear_forgets():
    """What was published is no burst any more."""
    coalescer = Coalescer()
    coalescer.change(10.0)
    coalescer.clear()
    assert coalescer.due() is None
    coalescer.change(20.0)
    assert coalescer.due() == pytest.approx(20.1)


@settings(deadline=None)
@given(st.lists(st.floats(0, 2), min_size=1))
def test_due_lies_between_quiet_and_cap(gaps):
    """The end of a burst is never before its last change nor later than the cap after its first."""
    coalescer = Coalescer()
    first = now = 5.0
    for gap in gaps:
        now += gap
        coalescer.change(now)
    due = coalescer.due()
    assert due == min(now + 0.1, first + gaps[0] + 1.0)
