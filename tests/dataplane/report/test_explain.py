"""What a client would get."""

from __future__ import annotations

import pytest

from dataplane.core.client_hello import ClientHello
from dataplane.errors import Refused
from dataplane.report.explain import explain, routed
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


SHARED = {
    "a": {"listen": ["unix:/x", "unix:/y"], "match": {"sni": ["a.example"]}},
    "b": {"listen": "unix:/x", "match": {"sni": ["*.example"], "alpn": ["h2"]}},
    "rest": {"listen": "unix:/y"},
    "alone": {"listen": "unix:/z"},
}


@pytest.mark.parametrize(
    ("service", "hello", "expected"),
    [
        ("", ClientHello("a.example"), {"unix:/x": "a", "unix:/y": "a"}),
        ("", ClientHello("c.example", ("h2",)), {"unix:/x": "b", "unix:/y": "rest"}),
        ("", ClientHello("c.example"), {"unix:/x": None, "unix:/y": "rest"}),
        ("b", ClientHello("a.example"), {"unix:/x": "a"}),
    ],
)
async def test_where_a_name_leads(service: str, hello: ClientHello, expected: dict[str, str | None]) -> None:
    """At each address that several services share, and no other."""
    node = await make_node(0, services=SHARED)
    assert {one["address"]: one["service"] for one in routed(node, service, "::1", hello)} == expected


@pytest.mark.parametrize(
    ("service", "client", "status", "text"),
    [
        ("no", "::1", 404, "there is no service no"),
        ("alone", "::1", 404, "nothing is routed by name to alone"),
        ("b", "::1", 404, "no service takes this client on unix:/x"),
        ("b", "localhost", 422, "client"),
    ],
)
async def test_names_that_lead_nowhere(service: str, client: str, status: int, text: str) -> None:
    """Each is refused with what is wrong."""
    node = await make_node(0, services=SHARED)
    with pytest.raises(Refused, match=text) as refused:
        routed(node, service, client, ClientHello("x.y.example"))
    assert refused.value.status == status
