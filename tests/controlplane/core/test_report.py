"""Status: sums, the worst state, and when all agree."""

from __future__ import annotations

import pytest

from controlplane.core.merge import Override
from controlplane.core.report import Seen, node_status

SINCE = "2026-01-01T00:00:00.000Z"


def backend(key="a:1", *, health="up", active=0, overridden=None):
    """Make a backend's part of a data plane's status."""
    return {
        "id": key,
        "address": key,
        "weight": 1,
        "tier": 0,
        "state": "enabled",
        "overridden": overridden or {},
        "health": {"state": health, "cause": "", "since": SINCE},
        "active": active,
        "pooled": 1,
        "draining_since": None,
        "totals": {"connections": 2, "pool": {"hits": 1, "misses": 0, "discarded": {"idle": 1}}},
    }


def status(*backends, generation=3, digest="h", table=None, workers=1, listener="accepting"):
    """Make a data plane's status with one service."""
    return {
        "name": "a",
        "pid": 7,
        "generation": generation,
        "hash": digest,
        "skew": 1.5,
        "workers": [
            {"index": n, "pid": n, "generation": generation, "hash": digest, "active": 0}
            for n in range(workers)
        ],
        "services": {
            "web": {
                "mode": "rr",
                "table_hash": table,
                "panic": False,
                "tier": 0,
                "active": 1,
                "queued": 0,
                "listeners": [{"address": "127.0.0.1:1", "state": listener, "accepted": 2}],
                "totals": {"connections": 2, "closed": {"client_closed": 2}},
                "backends": list(backends),
            }
        },
    }


def seen(body, name="a", **more):
    """Make what is known of one data plane."""
    return Seen(name, f"/run/dataplane-{name}.sock", **{"reachable": True, "status": body, **more})


def test_two_data_planes_are_summed():
    """Counts are added; a backend that only one knows is listed too."""
    joined = node_status(
        [seen(status(backend(active=2))), seen(status(backend(active=3), backend("b:1")), "b")], ()
    )
    web = joined["services"]["web"]
    assert web["active"] == 2
    assert web["listeners"] == [{"address": "127.0.0.1:1", "state": "accepting", "accepted": 4}]
    assert web["totals"] == {"connections": 4, "closed": {"client_closed": 4}}
    assert [(each["id"], each["active"], each["pooled"]) for each in web["backends"]] == [
        ("a:1", 5, 2),
        ("b:1", 0, 1),
    ]
    assert web["backends"][0]["totals"]["pool"] == {"hits": 2, "misses": 0, "discarded": {"idle": 2}}


def test_what_clients_met_is_summed():
    """Counts of both are added, the window is the longer one; an older data plane tells nothing."""
    one, two, older = status(backend()), status(backend()), status(backend())
    one["services"]["web"]["recent"] = {
        "window_s": 9.0,
        "connections": 4,
        "refused": {"no_backend": 3},
        "cut": {},
    }
    two["services"]["web"]["recent"] = {
        "window_s": 61.0,
        "connections": 2,
        "refused": {"no_backend": 1, "queue_full": 1},
        "cut": {"backend_reset": 1},
    }
    joined = node_status([seen(one), seen(two, "b"), seen(older, "c")], ())
    assert joined["services"]["web"]["recent"] == {
        "window_s": 61.0,
        "connections": 6,
        "refused": {"no_backend": 4, "queue_full": 1},
        "cut": {"backend_reset": 1},
    }


def test_worst_state_is_shown():
    """One data plane that sees a backend down, or has paused a listener, is what an operator must see."""
    joined = node_status(
        [seen(status(backend(health="down"))), seen(status(backend(health="up"), listener="paused"), "b")], ()
    )
    web = joined["services"]["web"]
    assert web["backends"][0]["health"]["state"] == "down"
    assert web["listeners"][0]["state"] == "paused"


def test_of_two_that_are_down_the_unreachable_one_is_worse():
    """A data plane that cannot even connect says more than one whose check is answered wrongly."""
    one, two = backend(health="down"), backend(health="down")
    one["health"]["reachable"], two["health"]["reachable"] = True, False
    for pair in ((one, two), (two, one)):
        node = node_status([seen(status(pair[0])), seen(status(pair[1]), "b")], ())
        assert node["services"]["web"]["backends"][0]["health"]["reachable"] is False


def test_arguments_are_left_alone():
    """Joining makes new values: what was cached stays as it was."""
    one, two = status(backend(active=1)), status(backend(active=1))
    node_status([seen(one), seen(two, "b")], ())
    assert one == status(backend(active=1))


@pytest.mark.parametrize(
    ("dataplanes", "agreed"),
    [
        ([], False),
        ([seen(status())], True),
        ([seen(status()), seen(status(), "b")], True),
        ([seen(status()), seen(status(generation=2), "b")], False),
        ([seen(status()), seen(status(digest="x"), "b")], False),
        ([seen(status()), seen({}, "b", reachable=False)], False),
        ([seen(status(table="t")), seen(status(table="u"), "b")], False),
        ([seen(status(table="t")), seen(status(table="t"), "b")], True),
    ],
)
def test_converged_means_everybody_runs_the_same(dataplanes, agreed):
    """Generation, hash and sticky tables are equal, and everybody answers."""
    assert node_status(dataplanes, (), wanted=(3, "h"))["converged"] is agreed


def test_worker_that_lags_behind_is_no_convergence():
    """A supervisor's word is not enough: each worker's generation counts."""
    body = status(workers=2)
    body["workers"][1] = {**body["workers"][1], "generation": 2}
    assert node_status([seen(body)], (), wanted=(3, "h"))["converged"] is False


def test_without_a_wish_the_newest_that_runs_is_the_measure():
    """A command without a daemon compares the data planes with each other."""
    report = node_status([seen(status(generation=2)), seen(status(generation=3), "b")], ())
    assert (report["generation"], report["converged"]) == (3, False)


def test_unreachable_data_plane_keeps_its_last_known_numbers_and_their_age():
    """What is old is shown as old, not as nothing and not as now."""
    row = node_status([seen(status(), reachable=False, error="gone", age_s=12.34567)], ())["dataplanes"][0]
    assert (row["generation"], row["age_s"], row["reachable"], row["error"]) == (3, 12.346, False, "gone")
    assert row["skew"] == 1.5


def test_overrides_on_record_and_foreign_ones():
    """An override that a data plane runs and nobody has on record is shown too, by nobody."""
    mine = Override("web", "a:1", "state", "drain", "op", SINCE)
    running = {"state": {"value": "drain", "since": SINCE}, "weight": {"value": 9, "since": SINCE}}
    listed = node_status([seen(status(backend(overridden=running)))], [mine])["overrides"]
    assert [(each["field"], each["value"], each["by"]) for each in listed] == [
        ("state", "drain", "op"),
        ("weight", 9, None),
    ]


def test_what_drains_is_no_data_plane():
    """It is listed with what it has left, and neither its services nor its generation count."""
    former = {**status(backend(active=3), generation=2), "draining_since": SINCE, "pid": 9}
    report = node_status([seen(status(backend(active=1))), seen(former, name="x", draining=True)], ())
    assert report["converged"]
    assert report["services"]["web"]["active"] == 1
    assert [each["pid"] for each in report["dataplanes"]] == [7]
    assert report["draining"] == [
        {"name": "a", "socket": "/run/dataplane-x.sock", "pid": 9, "since": SINCE, "connections": 1}
    ]


def test_what_drains_and_does_not_answer_is_left_out():
    """It has ended, or is about to: nothing is wrong with that."""
    report = node_status([seen(status(backend())), Seen("x", "/s", False, draining=True)], ())
    assert (report["converged"], report["draining"]) == (True, [])


def test_the_worst_certificate_of_several_data_planes_is_shown():
    """One that has not taken the new one yet counts; where none has any, nothing is said of them."""

    def shown(*ends):
        bodies = [status(backend()) for _ in ends]
        for body, end in zip(bodies, ends, strict=True):
            if end:
                one = {"place": "tls.certificates[0]", "not_renewed": "", "ends": end}
                body["services"]["web"]["certificates"] = [one]
        joined = node_status([seen(body, str(n)) for n, body in enumerate(bodies)], ())["services"]["web"]
        return [each["ends"] for each in joined.get("certificates", ())]

    late, early = "2026-05-01T00:00:00.000Z", "2026-02-01T00:00:00.000Z"
    assert shown(late, early) == shown(early, late) == [early]
    assert shown(None, late) == [late]
    assert "certificates" not in node_status([seen(status()), seen(status(), "b")], ())["services"]["web"]
