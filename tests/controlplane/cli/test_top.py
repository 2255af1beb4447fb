"""What `top` reads, and what it does beside; with a terminal: tests/integration/test_top.py."""

from __future__ import annotations

import threading

import pytest

from controlplane.cli.top import Background, connect_buckets
from controlplane.errors import PlaceError


def test_times_to_connect_are_added_up_over_data_planes():
    """Buckets of the same backend are summed bound by bound; other metrics are none of ours."""
    text = (
        "# TYPE lb_connect_seconds histogram\n"
        'lb_connect_seconds_bucket{service="web",backend="a",le="0.001"} 1\n'
        'lb_connect_seconds_bucket{service="web",backend="a",le="+Inf"} 3\n'
        'lb_connect_seconds_count{service="web",backend="a"} 3\n'
        'lb_connect_seconds_sum{service="web",backend="a"} 0.1\n'
        "# TYPE lb_pool_idle gauge\nlb_pool_idle 4\n"
    )
    assert connect_buckets([text, text]) == {("web", "a"): [(0.001, 2.0), (float("inf"), 6.0)]}


def finished(work):
    """Let a background do something, and return what it told."""
    woken = threading.Event()
    told: list[object] = []
    background = Background(woken.set)
    background.do(work, told.append)
    assert woken.wait(10)
    background.finish()
    background.finish()
    return told


def test_result_of_the_background_is_told_once():
    """In the thread that asks for it."""
    assert finished(lambda: 7) == [7]


def test_what_an_operator_should_see_is_a_result():
    """It is shown, and the view goes on; anything else ends it."""

    def refuse():
        raise PlaceError("nobody listens")

    (error,) = finished(refuse)
    assert str(error) == "nobody listens"
    with pytest.raises(ZeroDivisionError):
        finished(lambda: 1 / 0)
