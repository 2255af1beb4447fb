from __future__ import annotations

import pytest

from schemas.discovery import Consul, ConsulQuery, Guard
from schemas.reading.findings import check_all


def problems(model, value):
    """Return the problems of a refusal."""
    findings, _ = check_all(model, value)
    return {".".join(map(str, finding.path)): finding.message for finding in findings}


def test_queries_have_defaults():
    """The least that can be said is the name of a service."""
    query = ConsulQuery.model_validate({"service": "redis"})
    assert query.passing
    assert (query.address_source, query.datacenter, query.tags, query.port) == ("service", (), (), None)
    assert not query.allow_hostnames
    assert not query.allow_link_local


def test_one_datacenter_needs_no_list():
    """Several are an order of preference, and stay in it."""
    assert ConsulQuery.model_validate({"service": "a", "datacenter": "dc1"}).datacenter == ("dc1",)
    assert ConsulQuery.model_validate({"service": "a", "datacenter": ["z", "a"]}).datacenter == ("z", "a")


@pytest.mark.parametrize("source", ["service", "node", "tagged:lan", "tagged:wan_ipv4"])
def test_addresses_come_from_where_consul_keeps_them(source):
    """Consul knows several addresses of an instance."""
    assert ConsulQuery.model_validate({"service": "a", "address_source": source}).address_source == source


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({}, ""),
        ({"service": "a", "prepared_query": "b"}, ""),
        ({"service": "a/b"}, "service"),
        ({"service": ""}, "service"),
        ({"service": ".."}, "service"),
        ({"service": "."}, "service"),
        ({"service": "a\x7f"}, "service"),
        ({"service": "x" * 256}, "service"),
        ({"prepared_query": "a/b"}, "prepared_query"),
        ({"service": "a\n"}, "service"),
        ({"service": "a", "tags": "primary"}, "tags"),
        ({"service": "a", "tags": [""]}, "tags.0"),
        ({"service": "a", "address_source": "tagged:"}, "address_source"),
        ({"service": "a", "address_source": "lan"}, "address_source"),
        ({"service": "a", "port": 70000}, "port"),
        ({"service": "a", "passing": "maybe"}, "passing"),
        ({"service": "a", "filtr": "x"}, "filtr"),
        ({"prepared_query": "a", "filter": "x"}, "filter"),
        ({"prepared_query": "a", "tags": ["x"]}, "tags"),
    ],
)
def test_queries_that_cannot_be_asked_are_refused(value, path):
    """A mistake is found when the file is read, not when Consul answers."""
    assert list(problems(ConsulQuery, value)) == [path]


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:8500", "https://consul.example:8501", "http://[::1]:8500/", "unix:///run/consul.sock"],
)
def test_agents_are_reached_by_tcp_or_socket(address):
    """The address says how."""
    assert Consul.model_validate({"address": address}).address == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "127.0.0.1:8500",
        "ftp://a",
        "http://",
        "http://a/b",
        "http://a?token=x",
        "http://u:p@a",
        "unix://run/x",
        "unix://",
        "http://a:99999",
        "http://a:0",
        "http://a b",
        5,
    ],
)
def test_other_addresses_are_refused(address):
    """Credentials in an address would end up in logs, a path would be dropped unseen."""
    assert list(problems(Consul, {"address": address})) == ["address"]


def test_files_of_an_agent_fit_together():
    """A key belongs to a certificate, and certificates to TLS."""
    assert list(problems(Consul, {"address": "https://a", "key_file": "k"})) == ["key_file"]
    assert list(problems(Consul, {"ca_file": "c"})) == ["ca_file"]
    assert problems(Consul, {"address": "https://a", "ca_file": "a", "cert_file": "b", "key_file": "c"}) == {}


def test_registration_is_a_switch():
    """Off unless asked for, in any of YAML's words."""
    assert not Consul().register_services
    assert Consul.model_validate({"register": "yes"}).register_services
    assert list(problems(Consul, {"registr": True})) == ["registr"]


def test_the_guard_has_its_defaults():
    """Half may go at once, nothing goes to zero, and doubts last 15 seconds."""
    guard = Guard()
    assert (guard.max_shrink, guard.allow_empty, guard.hold, guard.min_backends, guard.absent_ttl) == (
        0.5,
        False,
        15.0,
        0,
        300.0,
    )
    assert problems(Guard, {"max_shrink": "100%", "allow_empty": "yes", "hold": "0s"}) == {}
