"""How many connections a pool keeps ready."""

from __future__ import annotations

from math import exp

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.pool import TAU_S, Demand

START = 1000.0


def steady(demand: Demand, rate: float, seconds: float) -> float:
    """Let clients come at a steady rate; return when the last one came."""
    now = START
    for index in range(int(rate * seconds)):
        now = START + index / rate
        demand.arrived(now)
    return now


@pytest.mark.parametrize("rate", [1.0, 20.0, 500.0])
def test_the_rate_of_a_steady_stream_is_found(rate):
    """After some time constants the estimate is within a few per cent of the truth."""
    demand = Demand()
    now = steady(demand, rate, 8 * TAU_S)
    assert demand.rate(now) == pytest.approx(rate, rel=0.07)


def test_the_rate_is_forgotten():
    """Without clients the estimate falls with the time constant."""
    demand = Demand()
    now = steady(demand, 100.0, 50.0)
    before = demand.rate(now)
    assert demand.rate(now + TAU_S) == pytest.approx(before * exp(-1), rel=0.01)


def test_nobody_comes_nobody_waits():
    """Without a client there is no demand."""
    assert Demand().target(START, idle_timeout_s=30.0) == 0


def test_one_client_makes_one_ready():
    """The first client says that there may be another one."""
    demand = Demand()
    assert demand.arrived(START)
    assert demand.target(START, idle_timeout_s=30.0) == 1


def test_rare_clients_keep_nothing_ready():
    """What would grow old unused is not dialled."""
    demand = Demand()
    demand.arrived(START)
    assert demand.target(START + 30.0, idle_timeout_s=30.0) == 0


def test_a_slow_dial_needs_more():
    """500 clients a second and a dial of 10 ms: 5 on average are asked for while one is dialled, 12 with chance."""
    demand = Demand()
    now = steady(demand, 500.0, 80.0)
    for _ in range(50):
        demand.dialled(0.010)
    assert 11 <= demand.target(now, idle_timeout_s=30.0) <= 13


def test_many_are_dialled_together():
    """5,000 clients a second: those of 2 ms are one batch, on top of what one dial has to bridge; 16 at most."""
    demand = Demand()
    assert demand.batch == 1
    now = steady(demand, 5000.0, 80.0)
    for _ in range(50):
        demand.dialled(0.0001)
    assert demand.target(now, idle_timeout_s=30.0) == 3 + demand.batch - 1
    assert 10 <= demand.batch <= 11
    now = steady(demand, 50_000.0, 40.0)
    demand.rate(now)
    assert demand.batch == 16


def test_arrivals_are_counted_in_batches():
    """Within a tenth of a second nothing is computed anew, and nobody is forgotten."""
    demand = Demand()
    assert demand.arrived(START)
    assert [demand.arrived(START + 0.01 * step) for step in range(1, 10)] == [False] * 9
    assert demand.arrived(START + 0.11)
    assert demand.rate(START + 0.11) * TAU_S == pytest.approx(11, rel=0.02)


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(0.0001, 3), st.floats(0, 100))
@settings(deadline=None)
def test_more_time_never_means_more_demand(gaps, dial_s, pause):
    """While nobody comes, the target only falls; it is never negative."""
    demand, now = Demand(), START
    for gap in gaps:
        now += gap
        demand.arrived(now)
        demand.dialled(dial_s)
    before = demand.target(now, idle_timeout_s=30.0)
    assert 0 <= demand.target(now + pause, idle_timeout_s=30.0) <= before
