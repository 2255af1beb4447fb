"""How two versions of a service differ, whatever they are made of."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.changes import Compared, differences, listened

A, B = {"id": "a", "weight": 1}, {"id": "b", "weight": 1}
WEB = Compared({"127.0.0.1:80": {}}, {"mode": "rr", "timeouts": {"idle": "5s"}}, {"a": A, "b": B})


def found(old: Compared | None, new: Compared | None) -> list[tuple[Any, ...]]:
    """Return the differences, each by kind, action and name."""
    return [
        (each["kind"], each["action"], each.get("address") or each.get("id"), each.get("fields"))
        for each in differences("web", old, new)
        if each is not None
    ]


def test_what_is_the_same_counts_and_says_nothing() -> None:
    """Whoever works in slices must hear of every member."""
    assert list(differences("web", WEB, WEB)) == [None] * 3


@pytest.mark.parametrize(("old", "new", "action"), [(None, WEB, "add"), (WEB, None, "remove")])
def test_a_service_has_its_members(old: Compared | None, new: Compared | None, action: str) -> None:
    """They come and go with it; its options are no change of their own."""
    assert found(old, new) == [
        ("service", action, None, None),
        ("listener", action, "127.0.0.1:80", None),
        ("backend", action, "a", None),
        ("backend", action, "b", None),
    ]


def test_what_has_gone_comes_first() -> None:
    """Then what came or has changed, in its order; options of options go by their path."""
    new = Compared(
        {"127.0.0.1:80": {"freebind": True}},
        {"mode": "rr", "timeouts": {"idle": "9s"}},
        {"c": B, "b": {**B, "weight": 2}},
    )
    assert found(WEB, new) == [
        ("listener", "change", "127.0.0.1:80", {"freebind": {"from": None, "to": True}}),
        ("option", "change", None, {"timeouts.idle": {"from": "5s", "to": "9s"}}),
        ("backend", "remove", "a", None),
        ("backend", "add", "c", None),
        ("backend", "change", "b", {"weight": {"from": 1, "to": 2}}),
    ]


def test_both_families_are_two_addresses() -> None:
    """Each with the options of the one entry."""
    both = {"address": "[::]:80", "dual_stack": True, "freebind": True}
    assert listened(["127.0.0.1:81", both]) == {
        "127.0.0.1:81": {},
        "[::]:80": {"freebind": True},
        "0.0.0.0:80": {"freebind": True},
    }
