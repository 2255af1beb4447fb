"""Rates: what two looks at counters say."""

from __future__ import annotations

import math

from controlplane.core.rates import Look, quantile, rows


def look(at, connections, hits=0, misses=0, buckets=()):
    """Make a look at one backend."""
    totals = {
        "connections": connections,
        "bytes_in": connections * 10,
        "bytes_out": connections * 100,
        "pool": {"hits": hits, "misses": misses},
    }
    backend = {"id": "a", "state": "enabled", "health": {"state": "up"}, "active": 1, "totals": totals}
    return Look(at, {"web": {"backends": [backend]}}, {("web", "a"): buckets})


def test_rates_are_differences_over_time():
    """Ten connections in two seconds are five a second."""
    (row,) = rows(look(10.0, 100, hits=1, misses=1), look(12.0, 110, hits=4, misses=2))
    assert (row.connections, row.bytes_in, row.bytes_out, row.hit_rate) == (5.0, 50.0, 500.0, 0.75)


def test_restarted_counter_is_never_negative():
    """A data plane that began again from zero has done what it counts since."""
    (row,) = rows(look(10.0, 100, hits=9), look(11.0, 3, hits=0))
    assert (row.connections, row.hit_rate) == (3.0, None)


def test_backend_that_is_new_counts_from_zero():
    """Its first look has nothing to compare with."""
    (row,) = rows(Look(0.0, {}), look(1.0, 4))
    assert row.connections == 4.0


def test_quantile_is_the_bound_of_its_bucket():
    """Of 100 new observations 99 are at most 10 ms: that is the 99th percentile."""
    before = [(0.001, 5.0), (0.01, 5.0), (math.inf, 5.0)]
    after = [(0.001, 55.0), (0.01, 104.0), (math.inf, 105.0)]
    assert quantile(0.99, before, after) == 0.01
    assert quantile(1.0, before, after) == math.inf


def test_no_new_observation_has_no_quantile():
    """Nothing measured is None, not zero."""
    assert quantile(0.99, [(1.0, 5.0)], [(1.0, 5.0)]) is None
    assert quantile(0.99, (), ()) is None
