"""Figures of several processes as one."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

from dataplane.report.figures import (
    BackendFigures,
    BackendView,
    Figures,
    ListenerFigures,
    ProcessFigures,
    RecentFigures,
    ServiceFigures,
    ServiceView,
    Sight,
    Sights,
    total,
)

VIEW = BackendView("x", 1, 0, "enabled", {}, None, False, "up", "ok", 10.0, True, True)
WEB = ServiceView("sticky", "01", 0, False, 3, 2)


def backend(first: int, **view: Any) -> BackendFigures[BackendView]:
    """Return one that has counted from `first` on."""
    numbers = count(first)
    plain: dict[str, Any] = {name: next(numbers) for name in BackendFigures.__slots__[1:]}
    plain["discarded"] = (next(numbers), next(numbers))
    plain["connect"], plain["first_byte"] = (next(numbers), next(numbers) / 4), (next(numbers),)
    return BackendFigures(replace(VIEW, **view), **plain)


def service(first: int, recent: RecentFigures | None = None, **view: Any) -> ServiceFigures:
    """Return one that has counted from `first` on."""
    numbers = count(first)
    plain: dict[str, Any] = {name: next(numbers) for name in ServiceFigures.__slots__[2:]}
    for name in ("closed", "session", "queue"):
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


def test_the_first_says_how_it_is_configured() -> None:
    """Where processes differ, they are about to be told of a change."""
    both = backend(1, weight=5, state="drain", draining_since=3.0) + backend(1)
    assert (both.view.weight, both.view.state, both.view.draining) == (5, "drain", True)
    assert (service(1, tier=1) + service(1, tier=0)).view.tier == 1


def test_any_ejection_shows_but_not_over_down() -> None:
    """Ejected by one worker is ejected, since the first did it; what active checks found down stays down."""
    both = backend(1)
    for since in (30.0, 20.0, 40.0):
        both += backend(1, health="ejected", cause=f"at {since}", since=since)
    assert (both.view.health, both.view.cause, both.view.since) == ("ejected", "at 20.0", 20.0)
    both = backend(1, health="down", cause="refused") + backend(1, health="ejected")
    assert (both.view.health, both.view.cause) == ("down", "refused")


def test_whoever_cannot_connect_is_believed() -> None:
    """Neither reachable nor usable is what one process says is not."""
    both = backend(1) + backend(1, reachable=False, usable=False, health="ejected") + backend(1)
    assert not both.view.reachable
    assert not both.view.usable
    both = service(1) + service(1, usable=1, serving=1, panic=True) + service(1)
    assert (both.view.usable, both.view.serving, both.view.panic) == (1, 1, True)


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


def test_of_a_crowd_too_what_is_seen_is_the_worst() -> None:
    """Two workers that have ejected one backend each have ejected two; `down` says more; who drains sees nothing."""
    up = Sight(1, usable=True, reachable=True, draining_since=None, health="up")
    ejected = up._replace(usable=False, health="ejected")
    down = up._replace(usable=False, reachable=False, health="down")
    both = crowd(a=up, b=up, c=down) + crowd(a=ejected, b=up, c=ejected) + crowd(a=up, b=ejected, c=up, d=up)
    assert both.view == {"a": ejected, "b": ejected, "c": down, "d": up}
    assert (both.active, both.discarded) == (3, (30, 33))
    past = crowd(a=down).past()
    assert (past + crowd(a=up)).view == (crowd(a=up) + past).view == {"a": up}
    assert (past.active, past.pooled, past.connections) == (0, 0, 3)


def test_histograms_that_were_not_read_add_nothing() -> None:
    """A service is a crowd in the one process, and not yet in the other."""
    read, unread = backend(1), replace(backend(1), connect=())
    assert (read + unread).connect == (unread + read).connect == read.connect
