from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.instances import InstanceRules
from controlplane.core.track import Trust
from controlplane.discovery.consul.client import Reply
from controlplane.discovery.consul.query import Query, Selection, trust_of
from controlplane.discovery.consul.settings import ConsulError, SettingsError

WEB = Selection(Query(service="web"))


@pytest.mark.parametrize("name", ["", "a/b", "..", ".", "a\nb", "x" * 256])
def test_names_that_are_none(name):
    """A name that would be read as a path is refused."""
    with pytest.raises(SettingsError):
        Query(service=name)


def test_paths():
    """A service is asked for at its health, a prepared query at its execution."""
    assert Query(service="web").path() == "/v1/health/service/web"
    assert Query(prepared="near").path() == "/v1/query/near/execute"


def test_the_whole_of_a_service():
    """A query narrowed by tags or a filter has a wider one, in the same place; others show all that there is."""
    narrow = Query(service="web", tags=("x",), filter="a == b", near="n", datacenter="dc2", namespace="team")
    assert narrow.whole() == Query(service="web", datacenter="dc2", namespace="team")
    assert Query(service="web", near="n").whole() is None
    assert Query(prepared="web").whole() is None


def test_failover_asks_each_datacenter():
    """Each datacenter of a list is a query of its own, and its name goes in front of its ids."""
    both = replace(WEB, datacenters=("dc1", "dc2"))
    assert [query.datacenter for query in both.queries()] == ["dc1", "dc2"]
    assert both.rules_for(1).datacenter == "dc2"
    assert WEB.rules_for(0).datacenter == ""


def test_keys_tell_selections_apart():
    """Two selections have one key only if they are equal."""
    others = [
        WEB,
        Selection(Query(prepared="web")),
        Selection(Query(service="web", tags=("a",))),
        Selection(Query(service="web", tags=("a", "b"))),
        Selection(Query(service="web", filter="a")),
        Selection(Query(service="web", near="a")),
        Selection(Query(service="web", namespace="a")),
        Selection(Query(service="web", partition="a")),
        Selection(Query(service="web"), datacenters=("dc1",)),
        Selection(Query(service="web"), datacenters=("dc1", "dc2")),
        Selection(Query(service="web"), datacenters=("dc2", "dc1")),
        Selection(Query(service="web"), rules=InstanceRules(port=1)),
        Selection(Query(service="web"), rules=InstanceRules(address_source="node")),
        Selection(Query(service="web"), rules=InstanceRules(keep_critical=True)),
        Selection(Query(service="web"), rules=InstanceRules(allow_hostnames=True)),
        Selection(Query(service="web"), rules=InstanceRules(allow_link_local=True)),
    ]
    assert len({item.key() for item in others}) == len(others)
    assert Selection(Query(service="web")).key() == WEB.key()


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_body_is_entries_or_an_error(raw):
    """Whatever an answer holds, it is a list of entries or our error."""
    for query in (Query(service="web"), Query(prepared="web")):
        try:
            found = query.entries(Reply(200, {}, raw))
        except ConsulError as error:
            found = [error.kind]
        assert isinstance(found, list)


@pytest.mark.parametrize(
    ("headers", "from_leader", "trust"),
    [
        ({"X-Consul-KnownLeader": "true", "X-Consul-LastContact": "0"}, False, Trust()),
        ({"X-Consul-KnownLeader": "true", "X-Consul-LastContact": "20000"}, False, Trust(doubted=True)),
        ({"X-Consul-KnownLeader": "false", "X-Consul-LastContact": "0"}, False, Trust(doubted=True)),
        ({}, False, Trust(doubted=True)),
        ({}, True, Trust(confirmed=True)),
        ({"X-Consul-KnownLeader": "true"}, True, Trust(confirmed=True)),
        ({"X-Consul-KnownLeader": "false"}, True, Trust()),
        ({"X-Consul-Results-Filtered-By-ACLs": "true"}, True, Trust(confirmed=True, denied=True)),
        ({"X-Consul-KnownLeader": "true", "X-Consul-LastContact": "9" * 30}, False, Trust()),
    ],
)
def test_trust(headers, from_leader, trust):
    """A leader's answer confirms, an answer without a leader is doubted, one with hidden entries is denied."""
    assert trust_of(headers, from_leader=from_leader) == trust
