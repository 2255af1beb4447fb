"""What a client would get."""

from __future__ import annotations

import pytest

from dataplane.errors import Refused
from dataplane.report.explain import explain
from tests.dataplane.report.counted import NOW, SERVICES, make_node


async def test_candidates_come_first_and_the_others_have_a_reason() -> None:
    """Ejected, drained, without weight: each is named."""
    backends = [
        {"id": "a", "address": "unix:/a", "state": "drain"},
        {"id": "b", "address": "unix:/b", "weight": 0},
        "unix:/c",
    ]
    services = {**SERVICES, "big": {"listen": "unix:/big", "backends": backends}}
    node = await make_node(0, ("web", "b", NOW - 7), services=services)
    told = explain(node, "big", "127.0.0.1")
    assert [each["id"] for each in told["candidates"]] == ["unix:/c"]
    assert {each["id"]: each["reason"] for each in told["skipped"]} == {
        "a": "drain",
        "b": "weight_zero",
    }
    web = explain(node, "web", "::1")
    assert [each["id"] for each in web["candidates"]] == ["a"]
    assert web["skipped"] == [{"id": "b", "reason": "ejected"}]


@pytest.mark.parametrize(("service", "client", "status"), [("no", "::1", 404), ("web", "localhost", 422)])
async def test_what_cannot_be_asked_is_refused(service: str, client: str, status: int) -> None:
    """A service that is not there; a client that is no address."""
    node = await make_node(0)
    with pytest.raises(Refused) as refused:
        explain(node, service, client)
    assert refused.value.status == status
