"""Waiting for a drain: by itself, or cut at the timeout."""

from __future__ import annotations

import pytest

from controlplane.cli.operate import wait_drained


def drained(looks, timeout_s):
    """Wait on virtual time over these looks, the first before the drain; return what was cut, and how long it took."""
    now, left = 0.0, list(looks)

    def sleep(seconds):
        nonlocal now
        now += seconds

    def look():
        return left.pop(0) if len(left) > 1 else left[0]

    cut = wait_drained(look(), look, timeout_s=timeout_s, clock=lambda: now, sleep=sleep)
    return cut, round(now, 3)


@pytest.mark.parametrize(
    ("looks", "timeout_s", "cut", "after_s"),
    [
        ([(0, 5)], 60.0, 0, 0.0),
        ([(2, 5), (1, 5), (0, 5)], 60.0, 0, 0.2),
        ([(3, 0)], 1.0, 3, 1.0),
        ([(3, 0)] * 3 + [(0, 3)], 60.0, 3, 0.4),
        ([(3, 0), (2, 0), (2, 0), (0, 2)], 60.0, 2, 0.4),
        ([(3, 0), (1, 2)], 0.3, 3, 0.4),
        ([(1, 0), (0, 9)], 60.0, 1, 0.0),
        ([(3, 0), (0, 3)], 60.0, 3, 0.0),
        ([(0, 0), (1, 0), (0, 0)], 60.0, 0, 0.2),
    ],
    ids=[
        "nothing to wait for",
        "the last one goes",
        "our deadline comes first",
        "the data planes' deadline comes first",
        "one goes by itself and two are cut",
        "some are cut and one is still closing",
        "another backend's cuts are not ours",
        "all are cut before the first look",
        "one came while the drain began",
    ],
)
def test_wait_ends_with_the_last_connection_or_the_timeout(looks, timeout_s, cut, after_s):
    """Returns how many were cut; each look is what is connected, and what the service has cut so far."""
    assert drained(looks, timeout_s) == (cut, after_s)


def test_no_timeout_waits_for_as_long_as_it_takes():
    """A drain timeout of 0s is none."""
    assert drained([(1, 0)] * 1000 + [(0, 0)], 0.0) == (0, 199.8)
