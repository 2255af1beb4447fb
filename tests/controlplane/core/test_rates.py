"""Rates: what looks at counters say."""

from __future__ import annotations

import math

import pytest

from controlplane.core.rates import Look, Meter, quantile, share, total

PLANES = frozenset({("edge", 7)})


def look(at, connections, hits=0, misses=0, *, planes=PLANES, key="a"):
    """Make a look at one backend."""
    totals = {
        "connections": connections,
        "bytes_in": connections * 10,
        "bytes_out": connections * 100,
        "pool": {"hits": hits, "misses": misses},
    }
    backend = {"id": key, "state": "enabled", "health": {"state": "up"}, "active": 1, "totals": totals}
    return Look(at, {"web": {"backends": [backend]}}, {("web", key): [(0.01, connections)]}, planes)


def measured(*looks):
    """Take looks, and return the row of the only backend."""
    meter = Meter()
    for each in looks:
        meter.take(each)
    (row,) = meter.rows
    return row


def test_rates_are_differences_over_time():
    """Ten connections in two seconds are five a second."""
    row = measured(look(10.0, 100, hits=1, misses=1), look(12.0, 110, hits=4, misses=2))
    assert (row.connections, row.bytes_in, row.bytes_out, row.hit_rate) == (5.0, 50.0, 500.0, 0.75)
    assert (row.place, row.connect_p99_s) == (("web", "a"), 0.01)


def test_first_look_knows_no_rate():
    """What was counted before anybody looked says nothing about now."""
    row = measured(look(1.0, 4))
    assert (row.connections, row.hit_rate, row.connect_p99_s, row.trail) == (None, None, None, ())


def test_restarted_counter_makes_no_rate():
    """A counter that fell began again: neither a negative rate nor a jump is shown."""
    row = measured(look(10.0, 100, hits=9), look(11.0, 3))
    assert (row.connections, row.hit_rate) == (None, None)


def test_other_data_planes_make_no_rate():
    """The sum over one data plane more, or over another process, is no difference to take; nor is that over none."""
    more = PLANES | {("edge-2", 8)}
    assert measured(look(10.0, 100), look(11.0, 5000, planes=more)).connections is None
    assert (
        measured(look(10.0, 100), look(11.0, 5000, planes=more), look(12.0, 5001, planes=more)).connections
        == 1
    )
    nobody = frozenset()
    assert measured(look(1.0, 5, planes=nobody), look(2.0, 5, planes=nobody)).connections is None


def test_looks_in_quick_succession_are_one():
    """A tenth of a second is not measured over: the rate stays, what is no rate is renewed."""
    meter = Meter()
    for each in (look(10.0, 100), look(11.0, 110), look(11.1, 190)):
        meter.take(each)
    (row,) = meter.rows
    assert row.connections == 10.0
    assert row.backend["totals"]["connections"] == 190
    assert row.trail == (10.0,)


def test_rates_are_smoothed_over_four_looks():
    """A burst is spread over the last three seconds, then forgotten."""
    meter = Meter()
    seen = []
    for second, count in enumerate((0, 0, 30, 30, 30, 30)):
        meter.take(look(float(second), count))
        seen.append(meter.rows[0].connections)
    assert seen == [None, 0.0, 15.0, 10.0, 10.0, 0.0]
    assert list(meter.trail) == list(meter.rows[0].trail) == seen[1:]


def test_backend_that_comes_and_goes_has_no_past():
    """A new backend waits for its second look; one that has gone leaves nothing behind."""
    meter = Meter()
    meter.take(look(0.0, 5, key="old"))
    meter.take(look(1.0, 5, key="new"))
    assert [row.connections for row in meter.rows] == [None]
    meter.take(look(2.0, 7, key="new"))
    assert [(row.place, row.connections) for row in meter.rows] == [(("web", "new"), 2.0)]


@pytest.mark.parametrize(
    ("hits", "misses", "expected"), [(3.0, 1.0, 0.75), (0.0, 0.0, None), (None, 1.0, None), (0.0, 2.0, 0.0)]
)
def test_share_of_hits(hits, misses, expected):
    """Without a connection there is no share."""
    assert share(hits, misses) == expected


def test_total_of_what_is_known():
    """Unknown is not zero, unless something else is known."""
    assert total([None, 2.0, 3.0]) == 5.0
    assert total([None]) is None


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
