"""Instances as backends of a snapshot, and as what the state directory keeps of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controlplane.core.instances import Classified, Condition, Instance
from controlplane.core.weights import MAX_WEIGHT
from controlplane.discovery.consul.backends import backend_of, only_backends, packed, unpacked

SEEN = Instance("n1/web-1", "10.0.0.1:80", 2, 1)


@pytest.mark.parametrize(
    ("condition", "state"), [(Condition.PASSING, "enabled"), (Condition.MAINTENANCE, "drain")]
)
def test_maintenance_is_a_drain(condition: Condition, state: str) -> None:
    """Whoever is there takes clients otherwise; the weight is the one that fits its neighbours'."""
    made = backend_of(replace(SEEN, condition=condition), 3)
    assert (made.state, made.weight, made.address) == (state, 3, "10.0.0.1:80")


def test_what_a_snapshot_has_no_place_for_is_rejected_with_its_reason() -> None:
    """The others stay, and what was rejected before."""
    wrong = replace(SEEN, id="b", address="10.0.0.1:0")
    left = only_backends(Classified((SEEN, wrong), ()))
    assert left.instances == (SEEN,)
    (remark,) = left.rejected
    assert remark.id == "b"
    assert "port" in remark.why


def test_a_large_weight_is_no_reason() -> None:
    """It is divided later."""
    heavy = replace(SEEN, weight=MAX_WEIGHT * 100)
    assert only_backends(Classified((heavy,), ())).instances == (heavy,)


def test_what_was_kept_comes_back() -> None:
    """Through JSON, whole."""
    assert unpacked(json.loads(json.dumps(packed(SEEN)))) == SEEN


@pytest.mark.parametrize(
    "change", [{"condition": "asleep"}, {"address": "x"}, {"weight": "heavy"}, {"id": None}]
)
def test_a_state_file_is_input_like_any_other(change: dict[str, Any]) -> None:
    """What is none, or lacks something, is left out; what is more than known is ignored."""
    assert unpacked({**packed(SEEN), **change}) is None
    assert unpacked({**packed(SEEN), "later": 1}) == SEEN
    for name in packed(SEEN):
        assert unpacked({key: value for key, value in packed(SEEN).items() if key != name}) is None
    assert unpacked("x") is None
