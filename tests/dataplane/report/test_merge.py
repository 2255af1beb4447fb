"""Many workers' numbers as one."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from dataplane.report.merge import FamilySum, add_report, add_totals, totals_of, whole_services, worst


def backend(number: int, state: str = "up", since: str = "2026-01-01T00:00:00.000Z") -> dict[str, Any]:
    """A backend of which everything is `number`."""
    return {
        "id": "a",
        "health": {"state": state, "cause": state, "since": since},
        "active": number,
        "pooled": number,
        "totals": {
            "connections": number,
            "connect_failures": number,
            "bytes_in": number,
            "bytes_out": number,
            "ejections": number,
            "pool": {"hits": number, "misses": number, "discarded": {"eof": number} if number else {}},
        },
    }


def services(number: int, **of_backend: Any) -> dict[str, Any]:
    """A service of which everything is `number`."""
    return {
        "web": {
            "active": number,
            "queued": number,
            "panic": False,
            "listeners": [{"address": "x", "state": "accepting", "accepted": number}] if number else [],
            "totals": {
                "connections": number,
                "bytes_in": number,
                "bytes_out": number,
                "retries": number,
                "closed": {"client_closed": number} if number else {},
            },
            "recent": {
                "window_s": 60.0 if number else 0.0,
                "connections": number,
                "refused": {"no_backend": number} if number else {},
                "cut": {"backend_reset": number} if number else {},
            },
            "backends": [backend(number, **of_backend)],
        }
    }


def test_reports_add_up() -> None:
    """Every number of every worker is in the sum, once."""
    total = services(0)
    for number in (1, 2):
        add_report(total, services(number), accepting=True)
    assert total == services(3)


def test_a_draining_worker_has_connections_but_no_listeners() -> None:
    """Its closed listeners are not shown; what they accepted counts where the address is still listened on."""
    total = services(0)
    add_report(total, services(1), accepting=False)
    assert total["web"]["listeners"] == []
    assert total["web"]["active"] == 1
    total = services(0)
    add_report(total, services(1), accepting=True)
    add_report(total, services(2), accepting=False)
    assert total["web"]["listeners"] == [{"address": "x", "state": "accepting", "accepted": 3}]


def test_a_listener_is_paused_if_any_worker_has_paused_it() -> None:
    """Whoever is in that worker's queue waits; one that drains has no say."""
    for states in (("accepting", "paused"), ("paused", "accepting")):
        total = services(0)
        for state in states:
            report = services(1)
            report["web"]["listeners"][0]["state"] = state
            add_report(total, report, accepting=True)
        assert total["web"]["listeners"] == [{"address": "x", "state": "paused", "accepted": 2}]
    total = services(0)
    add_report(total, services(1), accepting=True)
    report["web"]["listeners"][0]["state"] = "paused"
    add_report(total, report, accepting=False)
    assert total["web"]["listeners"][0]["state"] == "accepting"


def test_the_gauge_of_a_listener_is_that_of_the_worst_worker() -> None:
    """0 if any worker has paused; and where no worker tells anything, what the supervisor fills in."""

    def accepting(value: float, address: str = "x") -> list[Any]:
        name = "lb_listener_accepting"
        return [("gauge", name, "", [(name, {"address": address}, value)])]

    total = FamilySum()
    for value in (1, 0, 1):
        total.add(accepting(value))
    total.add(accepting(1, "y"))
    for address in "xyz":
        total.fill(accepting(0, address))
    (_, _, _, samples) = total.families()[0]
    assert {labels["address"]: value for _, labels, value in samples} == {"x": 0, "y": 1, "z": 0}


def test_descriptors_are_those_of_the_worker_nearest_to_its_limit() -> None:
    """Sums would hide one that has none left among others that have many."""

    def of(used: float, limit: float) -> list[Any]:
        return [
            ("gauge", name, "", [(name, {}, value)]) for name, value in (("used", used), ("limit", limit))
        ]

    assert worst([of(10, 1000), of(50, 52), of(900, 1000)], "used", "limit") == (50, 52)
    assert worst([], "used", "limit") == (0, 0)


def test_whoever_cannot_connect_is_believed() -> None:
    """Ejected for failed connects by one worker is not reachable, whatever the supervisor's checks say."""
    total = services(0)
    total["web"]["backends"][0]["health"]["reachable"] = True
    theirs = services(1, state="ejected")
    theirs["web"]["backends"][0]["health"]["reachable"] = False
    add_report(total, theirs, accepting=True)
    assert total["web"]["backends"][0]["health"]["reachable"] is False
    joined = FamilySum()
    for value in (1, 0, 1):
        joined.add([("gauge", name, "", [(name, {}, value)]) for name in REACH])
    assert [sample[2] for _, _, _, samples in joined.families() for sample in samples] == [0, 0]


REACH = ("lb_backend_reachable", "lb_backends_serving")


def test_any_ejection_shows_but_not_over_down() -> None:
    """Ejected by one worker is ejected, since the first did it; what active checks found down stays down."""
    total = services(0)
    add_report(total, services(1), accepting=True)
    for since in ("2026-01-03", "2026-01-02", "2026-01-04"):
        add_report(total, services(1, state="ejected", since=since), accepting=True)
    assert total["web"]["backends"][0]["health"] == {
        "state": "ejected",
        "cause": "ejected",
        "since": "2026-01-02",
    }
    total = services(0, state="down")
    add_report(total, services(1, state="ejected"), accepting=True)
    assert total["web"]["backends"][0]["health"]["state"] == "down"


def test_what_only_a_worker_knows_is_shown() -> None:
    """A removed service or backend that still has connections somewhere is in the sum."""
    total: dict[str, Any] = {}
    add_report(total, services(1), accepting=True)
    add_report(total, services(1), accepting=True)
    assert total == services(2)
    total = services(0)
    total["web"]["backends"] = []
    add_report(total, services(1), accepting=True)
    assert total["web"]["backends"] == [backend(1)]


def test_ended_workers_leave_totals_and_nothing_else() -> None:
    """What they had counted is added, what they held is not, and what is gone stays gone."""
    past = totals_of(services(4))
    total = services(1)
    add_totals(total, {**past, "gone": deepcopy(past["web"])})
    expected = services(5)
    expected["web"]["active"] = expected["web"]["queued"] = 1
    expected["web"]["recent"] = services(1)["web"]["recent"]
    expected["web"]["backends"][0]["active"] = expected["web"]["backends"][0]["pooled"] = 1
    assert total == expected


def test_parts_of_a_report_are_put_together() -> None:
    """The backends of a service come in as many parts as it takes."""
    whole = services(1)
    head = {key: value for key, value in whole["web"].items() if key != "backends"}
    parts = [("web", head, []), ("web", None, [backend(1)]), ("web", None, [backend(2)])]
    assert whole_services(parts) == {"web": {**whole["web"], "backends": [backend(1), backend(2)]}}


def test_metrics_are_joined_by_what_they_mean() -> None:
    """Counters and counts add up; a state is the node's if all agree, ejected if anybody says so."""

    def families(lag: float, ejected: float, total: float) -> list[Any]:
        states = {"ejected": ejected, "up": 1 - ejected}
        return [
            ("counter", "lb_connections", "", [("lb_connections_total", {"service": "web"}, total)]),
            ("gauge", "lb_loop_lag_seconds", "", [("lb_loop_lag_seconds", {}, lag)]),
            (
                "gauge",
                "lb_backend_health",
                "",
                [("lb_backend_health", {"state": state}, value) for state, value in states.items()],
            ),
        ]

    total = FamilySum()
    total.add(families(0.1, 0, 5))
    total.add(families(0.3, 1, 7))
    total.add(families(0.9, 0, 100), ended=True)
    samples = {
        (sample, *labels.values()): value
        for _, _, _, all_ in total.families()
        for sample, labels, value in all_
    }
    assert samples == {
        ("lb_connections_total", "web"): 112,
        ("lb_loop_lag_seconds",): 0.3,
        ("lb_backend_health", "ejected"): 1,
        ("lb_backend_health", "up"): 0,
    }
    assert not any(samples for *_, samples in total.families(lambda labels: False))


def test_metrics_of_a_worker_that_drains_are_what_it_carries() -> None:
    """Nobody tells it of changes and of health any more: its counts are the node's, its opinions are not."""

    def families(usable: float) -> list[Any]:
        return [
            ("counter", "lb_connections", "", [("lb_connections_total", {"service": "web"}, 5)]),
            ("gauge", "lb_connections_active", "", [("lb_connections_active", {"service": "web"}, 2)]),
            ("gauge", "lb_backend_usable", "", [("lb_backend_usable", {"backend": "a"}, usable)]),
            ("gauge", "lb_backend_health", "", [("lb_backend_health", {"state": "up"}, usable)]),
            ("gauge", "lb_loop_lag_seconds", "", [("lb_loop_lag_seconds", {}, 1 - usable)]),
        ]

    total = FamilySum()
    total.add(families(0), leaving=True)
    total.add(families(1))
    assert {name: list(sums.values()) for name, (_, _, sums) in total._families.items()} == {
        "lb_connections": [10],
        "lb_connections_active": [4],
        "lb_backend_usable": [1],
        "lb_backend_health": [1],
        "lb_loop_lag_seconds": [1],
    }


def test_what_the_supervisor_counts_itself_is_added() -> None:
    """Its part of a counter joins the workers', and one of its own is a counter like theirs."""
    total = FamilySum()
    total.add([("counter", "lb_log_lines_dropped", "", [("lb_log_lines_dropped_total", {}, 3)])])
    total.count("lb_log_lines_dropped", "", [({}, 4)])
    total.count("lb_worker_ends", "", [({"cause": "died"}, 1)])
    text = {sample: (kind, value) for kind, _, _, all_ in total.families() for sample, _, value in all_}
    assert text == {"lb_log_lines_dropped_total": ("counter", 7), "lb_worker_ends_total": ("counter", 1)}
