"""What one snapshot changes in another, member by member; what is the same is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dataplane.node.diff import change_steps
from dataplane.node.slices import SLICE
from schemas.snapshot import Service, finish, parse_snapshot

A, B = {"id": "a", "address": "10.0.0.1:1"}, {"id": "b", "address": "10.0.0.2:1"}
WEB: dict[str, Any] = {"listen": "127.0.0.1:80", "backends": [A]}


def services(**given: Mapping[str, Any]) -> Mapping[str, Service]:
    """Return services of a snapshot."""
    return parse_snapshot({"generation": 1, "services": given}).services


def changes(old: Mapping[str, Service], new: Mapping[str, Service]) -> list[dict[str, Any]]:
    """Return the differences."""
    return [dict(each) for each in finish(change_steps(old, new))]


def changed(**options: Any) -> list[dict[str, Any]]:
    """Return what options change in a service, whose name is left out."""
    found = changes(services(web=WEB), services(web={**WEB, **options}))
    assert all(each.pop("service") == "web" for each in found)
    return found


def test_the_same_is_no_change() -> None:
    """However it is written."""
    spelled = {"listen": ["127.0.0.1:80"], "backends": [{**A, "weight": 1}], "mode": "rr"}
    assert changes(services(web=WEB), services(web=spelled)) == []


def test_a_service_comes_and_goes_with_all_its_members() -> None:
    """What goes is said before what comes."""
    old, new = services(old=WEB), services(new={**WEB, "backends": [B]})
    assert [(each["action"], each["kind"], each["service"]) for each in changes(old, new)] == [
        ("remove", "service", "old"),
        ("remove", "listener", "old"),
        ("remove", "backend", "old"),
        ("add", "service", "new"),
        ("add", "listener", "new"),
        ("add", "backend", "new"),
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"backends": [B]},
            [
                {"action": "remove", "kind": "backend", "id": "a"},
                {"action": "add", "kind": "backend", "id": "b"},
            ],
        ),
        (
            {"backends": [{**A, "weight": 3, "state": "drain"}]},
            [
                {
                    "action": "change",
                    "kind": "backend",
                    "id": "a",
                    "fields": {"weight": {"from": 1, "to": 3}, "state": {"from": "enabled", "to": "drain"}},
                }
            ],
        ),
        (
            {"listen": ["127.0.0.1:80", "127.0.0.1:81"]},
            [{"action": "add", "kind": "listener", "address": "127.0.0.1:81"}],
        ),
        (
            {"listen": {"address": "127.0.0.1:80", "freebind": True}},
            [
                {
                    "action": "change",
                    "kind": "listener",
                    "address": "127.0.0.1:80",
                    "fields": {"freebind": {"from": None, "to": True}},
                }
            ],
        ),
        (
            {"mode": "p2c", "pool": {"max_idle": 7}},
            [
                {
                    "action": "change",
                    "kind": "option",
                    "fields": {
                        "mode": {"from": "rr", "to": "p2c"},
                        "pool.max_idle": {"from": 256, "to": 7},
                    },
                }
            ],
        ),
    ],
)
def test_a_change_names_its_fields_before_and_after(
    options: dict[str, Any], expected: list[dict[str, Any]]
) -> None:
    """Options of options by their path; backends by their id, listeners by their address."""
    assert changed(**options) == expected


def test_an_address_that_stays_is_no_change_if_another_one_goes() -> None:
    """Each address of a service is judged alone."""
    old = services(web={**WEB, "listen": ["127.0.0.1:80", "127.0.0.1:81"]})
    assert changes(old, services(web=WEB)) == [
        {"action": "remove", "kind": "listener", "service": "web", "address": "127.0.0.1:81"}
    ]


@pytest.mark.parametrize("same", [True, False])
def test_many_backends_are_compared_in_slices(*, same: bool) -> None:
    """Those that are the same count as well: they take as long."""
    many = [{"id": f"b{number}", "address": f"10.0.0.1:{number}"} for number in range(1, 4 * SLICE + 1)]
    old = services(web={**WEB, "backends": many})
    new = old if same else services(web={**WEB, "backends": [{**each, "weight": 2} for each in many]})
    assert sum(1 for _ in change_steps(old, new)) >= 4
