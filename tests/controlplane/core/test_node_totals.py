"""What clients of a node met, counted over restarts of data planes and over what became of their backends."""

from __future__ import annotations

from controlplane.core.node_record import FirstByte, Outcomes
from controlplane.core.node_totals import NodeTotals


def backend(id_, *, ejections=0, count=0, state="enabled", weight=1, health="up", **more):
    """Return a backend as a status has it."""
    times = {"count": count, "sum_s": count * 0.002, "buckets": {"0.0025": count} if count else {}}
    return {
        "id": id_,
        "state": state,
        "weight": weight,
        "health": {"state": health},
        "totals": {"ejections": ejections, "first_byte": times},
        **more,
    }


def status(*backends, connections=0, harmed=0, instance="p1", name="web"):
    """Return a data plane's status with one service."""
    totals = {"connections": connections, "harmed": harmed}
    return {"instance": instance, "services": {name: {"totals": totals, "backends": list(backends)}}}


def counted(*turns):
    """Return the sums after these statuses, one turn after the other."""
    totals = NodeTotals()
    for turn in turns:
        totals.take(turn)
    return totals.outcomes()


def test_what_is_counted_is_what_statuses_say():
    """In milliseconds, where a record has those; nothing twice."""
    one = status(backend("a", ejections=1, count=4), backend("b", count=6), connections=20, harmed=3)
    assert counted([one], [one]) == {"web": Outcomes(20, 3, 1, 2, 2, FirstByte(10, 20.0, {"2.5": 10}))}


def test_another_process_goes_on_where_the_last_one_ended():
    """Its counters begin at nothing; the node's do not fall."""
    before = status(backend("a", count=4), connections=20, harmed=3)
    after = status(backend("a", count=1), connections=2, instance="p2")
    out = counted([before], [after])["web"]
    assert (out.connections, out.failures, out.first_byte_ms.count, out.backends) == (22, 3, 5, 1)


def test_a_backend_that_goes_takes_nothing_along():
    """And one that comes again under its name begins anew."""
    full = status(backend("a", ejections=2, count=4), backend("b", count=6), connections=10)
    gone = status(backend("b", count=6), connections=10)
    again = status(backend("a", count=3), backend("b", count=6), connections=10)
    out = counted([full], [gone], [again])["web"]
    assert (out.ejections, out.first_byte_ms) == (2, FirstByte(13, 26.0, {"2.5": 13}))
    less = status(backend("a", ejections=0, count=1), backend("b", count=6), connections=10)
    assert counted([full], [less])["web"].first_byte_ms.count == 11


def test_data_planes_are_added():
    """Counters of all; of what is usable, what the worst off of them says."""
    one = status(backend("a"), backend("b", health="down"), connections=1)
    two = status(backend("a"), backend("b"), connections=2, instance="p2")
    out = counted([one, two])["web"]
    assert (out.connections, out.usable, out.backends) == (3, 1, 2)


def test_usable_is_who_gets_clients():
    """By what is wanted and seen; what is removed is not counted."""
    there = status(
        backend("a"),
        backend("b", health="unknown"),
        backend("c", health="ejected"),
        backend("d", state="drain"),
        backend("e", weight=0),
        backend("f", removed=True),
    )
    out = counted([there])["web"]
    assert (out.usable, out.backends) == (2, 5)


def test_a_service_that_is_gone_is_forgotten():
    """It begins anew if it comes back."""
    assert counted([status(connections=5)], [status(connections=5, name="db")]).keys() == {"db"}


def test_an_older_data_plane_says_less():
    """Without times and harm there are none."""
    old = {
        "pid": 7,
        "services": {"web": {"totals": {"connections": 3}, "backends": [backend("a") | {"totals": {}}]}},
    }
    assert counted([old]) == {"web": Outcomes(3, 0, 0, 1, 1)}
