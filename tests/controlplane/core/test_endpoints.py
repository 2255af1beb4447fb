from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.endpoints import EndpointRules, RefusedEndpoint, endpoint

STRICT = EndpointRules()
NAMES = EndpointRules(allow_hostnames=True)
json_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.0.0.1", "10.0.0.1:80"),
        ("127.0.0.1", "127.0.0.1:80"),
        ("2001:DB8::1", "[2001:db8::1]:80"),
        ("::1", "[::1]:80"),
    ],
)
def test_unicast_addresses_are_taken(host, expected):
    """An IP address of one host is taken, in one normal form."""
    assert endpoint(host, 80, STRICT) == expected


@pytest.mark.parametrize("port", [70000, 65536, 0, -5, "80", 80.0, True, None])
def test_ports_that_are_none(port):
    """A port is a whole number from 1 to 65535 and nothing else."""
    with pytest.raises(RefusedEndpoint, match="port"):
        endpoint("10.0.0.1", port, STRICT)


@pytest.mark.parametrize("rules", [STRICT, NAMES])
@pytest.mark.parametrize(
    "host",
    [
        "",
        None,
        7,
        "not a host; rm -rf",
        "a\nb",
        "10.0.0",
        "256.1.1.1",
        "10.0.0.1%eth0",
        "fe80::1%eth0",
        "-a",
        "a..b",
        "2852039166",
        "0xa9fea9fe",
        "0xa9.0xfe.169.254",
        "0251.0376.0251.0376",
        "x" * 300,
        "a:b",
        "[::1]",
        "10.0.0.1:80",
    ],
)
def test_hosts_that_are_none(host, rules):
    """What is no host is refused, and so is a number that a resolver would read as an address."""
    with pytest.raises(RefusedEndpoint):
        endpoint(host, 80, rules)


def test_names_need_permission():
    """A DNS name is taken only where the operator allows names, in lower case and without a final dot."""
    with pytest.raises(RefusedEndpoint, match="only IP addresses"):
        endpoint("db.internal", 80, STRICT)
    assert endpoint("DB.internal.", 80, NAMES) == "db.internal:80"


METADATA = [
    "169.254.169.254",
    "fe80::1",
    "fd00:ec2::254",
    "100.100.100.200",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
]


@pytest.mark.parametrize("host", METADATA)
def test_link_local_and_metadata_need_permission(host):
    """Link-local and metadata addresses are refused in every spelling, unless they are allowed."""
    with pytest.raises(RefusedEndpoint, match="link-local"):
        endpoint(host, 80, STRICT)
    assert endpoint(host, 80, EndpointRules(allow_link_local=True))


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"]
)
def test_addresses_of_nobody(host):
    """Unspecified, multicast and broadcast addresses are refused whatever is allowed."""
    with pytest.raises(RefusedEndpoint, match="no single host"):
        endpoint(host, 80, EndpointRules(allow_link_local=True, allow_hostnames=True))


@settings(deadline=None)
@given(host=json_values, port=json_values | st.integers(1, 65535))
def test_any_value_is_taken_or_refused(host, port):
    """Whatever a catalogue holds, the answer is an address without blanks or the one refusal."""
    try:
        found = endpoint(host, port, NAMES)
    except RefusedEndpoint as refusal:
        found = str(refusal).replace(" ", "-")
    assert found.isprintable()
    assert " " not in found


@settings(deadline=None)
@given(address=st.ip_addresses(), port=st.integers(1, 65535))
def test_addresses_survive(address, port):
    """What is accepted is the same address and port that was registered."""
    try:
        found = endpoint(str(address), port, STRICT)
    except RefusedEndpoint:
        return
    host, _, found_port = found.rpartition(":")
    assert ipaddress.ip_address(host.strip("[]")) == address
    assert int(found_port) == port
