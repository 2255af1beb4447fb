"""Figures of several processes as one."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

from dataplane.report.figures import (
    BackendFigures,
    Figures,
    ListenerFigures,
    ProcessFigures,
    RecentFigures,
    ServiceFigures,
    total,
)
from dataplane.report.views import BackendView, Sight, Sights
from tests.dataplane.report.test_views import VIEW, WEB


def backend(first: int, **view: Any) -> BackendFigures[BackendView]:
    """Return one that has counted from `first` on."""
    numbers = count(first)
    plain: dict[str, Any] = {name: next(numbers) for name in BackendFigures.__slots__[1:]}
    plain["discarded"] = (next(numbers), next(numbers))
    plain["connect"], plain["first_byte"] = (next(numbers), next(numbers) / 4), (next(numbers),)
    plain["tls"] = (next(numbers),)
    return BackendFigures(replace(VIEW, **view), **plain)


def service(first: int, recent: RecentFigures | None = None, **view: Any) -> ServiceFigures:
    """Return one that has counted from `first` on."""
    numbers = count(first)
    plain: dict[str, Any] = {name: next(numbers) for name in ServiceFigures.__slots__[2:]}
    for name in ("closed", "session", "queue", "tls"):
        plain[name] = (next(numbers), next(numbers))
    return ServiceFigures(replace(WEB, **view), recent or RecentFigures(), **plain)


def numbers_of(figures: Any) -> list[Any]:
    """Return all that is counted."""
    flat: list[Any] = []
    for name in figures.__slots__:
        value = getattr(figures, name)
        if isinstance(value, tuple):
            flat += value
        elif isinstance(value, int | float):
            flat.append(value)
    return flat


def test_each_number_is_in_the_sum_once() -> None:
    """Of a service and of a backend, each field is the sum of that field."""
    for make in (service, backend):
        one, other = make(1000), make(50000)  # type: ignore[operator] # both take a number
        both = one + other
        assert numbers_of(both) == [a + b for a, b in zip(numbers_of(one), numbers_of(other), strict=True)]
        assert len(set(numbers_of(one))) == len(numbers_of(one)), "all different"


def test_who_drains_counts_and_sees_nothing() -> None:
    """Nobody tells it of changes and checks any more: its counts are the node's, what it sees is not."""
    told = Figures(
        ProcessFigures(lag_s=2.0, watched=90, limit=100),
        {"web": service(1, panic=True, usable=0)},
        {("web", "x"): ListenerFigures(5, "paused")},
        {("web", "a"): backend(1, health="ejected", usable=False)},
    )
    told.silence()
    node = Figures(
        ProcessFigures(lag_s=1.0, watched=10, limit=100),
        {"web": service(100)},
        {("web", "x"): ListenerFigures(7, "accepting")},
        {("web", "a"): backend(100)},
    )
    for figures in ((told, node), (node, told)):
        both = Figures()
        for one in figures:
            both.add(one)
        assert both.process == ProcessFigures(lag_s=2.0, watched=10, limit=100)
        assert both.services["web"].view == WEB
        assert both.services["web"].active == service(1).active + service(100).active
        assert both.listeners["web", "x"] == ListenerFigures(12, "accepting")
        assert both.backends["web", "a"].view == VIEW


def test_a_listener_is_paused_if_any_worker_has_paused_it() -> None:
    """Whoever is in that worker's queue waits."""
    one, other = ListenerFigures(1, "accepting"), ListenerFigures(2, "paused")
    assert one + other == other + one == ListenerFigures(3, "paused")


def test_descriptors_are_those_of_the_process_nearest_to_its_limit() -> None:
    """Sums would hide one that has none left among others that have many."""
    both = ProcessFigures()
    for watched, limit in ((10, 1000), (50, 52), (900, 1000)):
        both += ProcessFigures(watched=watched, limit=limit)
    assert (both.watched, both.limit) == (50, 52)
    assert ProcessFigures(limit=7) + ProcessFigures() == ProcessFigures(limit=7)


def test_ended_workers_leave_totals_and_nothing_else() -> None:
    """What they had counted is part of the sum, what they held and saw is not."""
    told = Figures(
        ProcessFigures(3.0, 90, 100, dropped_lines=4, exported_spans=5, dropped_spans=6),
        {"web": service(100, RecentFigures(60.0, 5, {"no_backend": 2}, {}), panic=True)},
        {("web", "x"): ListenerFigures(5, "accepting")},
        {("web", "a"): backend(100, usable=False)},
    )
    past = told.past()
    assert past.process == ProcessFigures(dropped_lines=4, exported_spans=5, dropped_spans=6)
    web, one = past.services["web"], past.backends["web", "a"]
    assert (web.active, web.queued, web.recent) == (0, 0, RecentFigures())
    assert (one.active, one.pooled) == (0, 0)
    assert web.connections == told.services["web"].connections
    assert one.first_byte == told.backends["web", "a"].first_byte
    assert past.listeners["web", "x"] == ListenerFigures(5, None)
    assert (service(1) + web).view == WEB
    assert (backend(1) + one).view == VIEW


def test_what_clients_met_lately_adds_up() -> None:
    """The window is the longest; each reason is counted once."""
    one = RecentFigures(10.0, 1, {"no_backend": 2}, {"backend_reset": 3})
    other = RecentFigures(60.0, 10, {"no_backend": 20, "queue_full": 40}, {})
    assert one + other == RecentFigures(60.0, 11, {"no_backend": 22, "queue_full": 40}, {"backend_reset": 3})


async def test_parts_are_added_and_stay_as_they_are() -> None:
    """Adding makes new figures: what a worker has told is needed again when it has ended."""
    parts = [Figures(backends={("web", "a"): backend(first)}) for first in (1, 100)]
    kept = [replace(part, backends=dict(part.backends)) for part in parts]
    assert (await total(parts)).backends == {("web", "a"): backend(1) + backend(100)}
    assert parts == kept


def crowd(**seen: Sight) -> BackendFigures[Sights]:
    """Return one whose backends are seen so."""
    return BackendFigures(Sights(seen), 1, 2, 3, 4, 5, 6, 7, 8, 9, (10, 11), (), ())


def test_a_crowd_adds_up_as_its_backends_would() -> None:
    """Its sums are summed, and of two processes what is seen is joined; one that has ended sees nothing."""
    up = Sight(1, usable=True, reachable=True, draining_since=None, health="up")
    down = up._replace(usable=False, reachable=False, health="down")
    both = crowd(a=up) + crowd(a=down, b=up)
    assert both.view == Sights(a=up) + Sights(a=down, b=up)
    assert (both.active, both.discarded) == (2, (20, 22))
    past = crowd(a=down).past()
    assert (past + crowd(a=up)).view == (crowd(a=up) + past).view == {"a": up}
    assert (past.active, past.pooled, past.connections) == (0, 0, 3)


def test_histograms_that_were_not_read_add_nothing() -> None:
    """A service is a crowd in the one process, and not yet in the other."""
    read, unread = backend(1), replace(backend(1), connect=())
    assert (read + unread).connect == (unread + read).connect == read.connect
