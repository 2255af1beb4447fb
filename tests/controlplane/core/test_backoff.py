"""Pauses between tries: they grow, they are spread, and they never end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.backoff import Backoff


def test_backoff_doubles_to_its_cap():
    """The bound of the pause doubles from 0.25 s to 30 s and stays there, for ever."""
    backoff = Backoff()
    pauses = [backoff.fail(lambda: 1.0) for _ in range(2000)]
    assert pauses[:8] == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert set(pauses[8:]) == {30.0}
    backoff.succeed()
    assert backoff.fail(lambda: 1.0) == 0.25


@settings(deadline=None)
@given(st.integers(0, 50), st.floats(0, 1, exclude_max=True))
def test_backoff_jitter(failures, chance):
    """The pause is spread over everything from 0 to its bound."""
    backoff = Backoff(failures=failures)
    bound = backoff.bound()
    assert backoff.fail(lambda: chance) == pytest.approx(bound * chance)


@settings(deadline=None)
@given(st.integers(0, 50), st.floats(0, 1), st.floats(0, 1, exclude_max=True))
def test_least_pause(failures, least, chance):
    """Who may not come back at once waits for a share of the bound at least."""
    backoff = Backoff(least=least, failures=failures)
    bound = backoff.bound()
    pause = backoff.fail(lambda: chance)
    assert least * bound <= pause + 1e-9
    assert pause <= bound + 1e-9
