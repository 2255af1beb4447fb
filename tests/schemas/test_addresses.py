from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.addresses import (
    HostPort,
    UnixPath,
    normal_backend_address,
    normal_cidr,
    normal_listen_address,
    split_address,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        ("[2001:DB8:0:0::1]:65535", "[2001:db8::1]:65535"),
        ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80"),
        ("[::ffff:a00:1]:80", "[::ffff:10.0.0.1]:80"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("Host.Name:80", "host.name:80"),
        ("db_1:5432", "db_1:5432"),
        ("host.name.:80", "host.name.:80"),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
    ],
)
def test_backend_addresses_have_one_normal_form(text, normal):
    """Two spellings of an address are the same backend."""
    assert normal_backend_address(text) == normal


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (":4000", "0.0.0.0:4000"),
        ("*:4000", "0.0.0.0:4000"),
        ("127.0.0.1:4000", "127.0.0.1:4000"),
        ("[::]:4000", "[::]:4000"),
        ("[0:0::0]:4000", "[::]:4000"),
    ],
)
def test_listen_addresses_may_leave_the_host_out(text, normal):
    """An empty host and a star are all IPv4 addresses."""
    assert normal_listen_address(text) == normal


BAD_EVERYWHERE = [
    ("", "with a port"),
    ("127.0.0.1", "with a port"),
    ("[::1]", "with a port"),
    ("127.0.0.1:0", "1 to 65535"),
    ("127.0.0.1:65536", "1 to 65535"),
    ("127.0.0.1:080", "1 to 65535"),
    ("127.0.0.1:+80", "1 to 65535"),
    ("127.0.0.1:8O", "1 to 65535"),
    ("127.0.0.1:80 ", "1 to 65535"),
    ("127.0.0.1:\u0668\u0660", "1 to 65535"),
    ("127.0.0.1:80\n", "1 to 65535"),
    ("127.0.0.256:80", "0 to 255"),
    ("127.0.0.01:80", "0 to 255"),
    ("127.0.1:80", "0 to 255"),
    ("1:80", "0 to 255"),
    ("::1:80", "brackets"),
    ("[::g]:80", "between the brackets"),
    ("[127.0.0.1]:80", "between the brackets"),
    ("[]:80", "between the brackets"),
    ("[fe80::1]:80", "must name the network interface"),
    ("[::1%eth0]:80", "must not name a network interface"),
    ("[fe80::1%]:80", "between the brackets"),
    (" 127.0.0.1:80", "0 to 255"),
    ("a b:80", "IP address"),
    ("a\tb:80", "IP address"),
    ("http://a:80", "brackets"),
    ("-a:80", "IP address"),
    ("a..b:80", "IP address"),
    ("é:80", "IP address"),
    ("x" * 64 + ":80", "IP address"),
    (4000, "not 4000"),
    (None, "not nothing"),
    (True, "not true"),
]


@pytest.mark.parametrize(("text", "reason"), BAD_EVERYWHERE)
@pytest.mark.parametrize("normal", [normal_backend_address, normal_listen_address])
def test_what_is_no_address_is_refused_with_the_reason(normal, text, reason):
    """Strictly: another reader could take a lax address for another host."""
    with pytest.raises(ValueError, match=reason):
        normal(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (":80", "name a host"),
        ("*:80", "host name"),
        ("unix:run/x", "absolute"),
        ("unix:", "absolute"),
        ("unix:@name", "absolute"),
        ("unix:/" + "x" * 107, "107 bytes"),
        ("unix:/run/\x00", "control"),
        ("a." * 125 + "a:80", "host name"),
    ],
)
def test_backends_need_a_host_or_a_socket(text, reason):
    """A backend is somewhere in particular."""
    with pytest.raises(ValueError, match=reason):
        normal_backend_address(text)


def test_listeners_are_no_names():
    """A name may stand for several addresses, and nothing is resolved to find out."""
    with pytest.raises(ValueError, match="address"):
        normal_listen_address("localhost:4000")


def test_a_listener_may_be_a_unix_socket():
    """A path is as good as a port."""
    assert normal_listen_address("unix:/run/x.sock") == "unix:/run/x.sock"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("10.1.2.3", "10.1.2.3/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:DB8::1/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1/128"),
    ],
)
def test_networks_are_normalised(text, normal):
    """Host bits are cleared, and a plain address is a network of one."""
    assert normal_cidr(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.0/33",
        "10.0.0.0/255.0.0.0",
        "10.0.0.0/08",
        "10.0.0/8",
        "010.0.0.0/8",
        "a/8",
        "fe80::1%eth0",
        10,
        None,
        "10.0.0.0/",
        "/8",
    ],
)
def test_what_is_no_network_is_refused(text):
    """Netmasks, zones and leading zeros have more than one meaning."""
    with pytest.raises(ValueError, match="network"):
        normal_cidr(text)


def test_splitting_takes_the_brackets_off():
    """Sockets want an IPv6 address without brackets."""
    assert split_address("[::1]:80") == HostPort("::1", 80)
    assert split_address("10.0.0.1:80") == HostPort("10.0.0.1", 80)
    assert split_address("unix:/run/a:b") == UnixPath("/run/a:b")


@settings(deadline=None)
@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_address_survives(address, port):
    """The normal form of an address names that address, and is its own normal form."""
    if address.version == 6 and address.is_link_local:
        address = ipaddress.ip_address(f"{address}%eth0")
    host = f"[{address}]" if address.version == 6 else str(address)
    normal = normal_backend_address(f"{host}:{port}")
    split = split_address(normal)
    assert isinstance(split, HostPort)
    assert (ipaddress.ip_address(split.host), split.port) == (address, port)
    assert normal_backend_address(normal) == normal
    assert normal_listen_address(normal) == normal


@settings(deadline=None)
@given(st.text(alphabet="0123456789abcf.:[]/%*-_ \n\x00unixé", max_size=30))
def test_hostile_text_is_refused_or_has_a_stable_form(text):
    """Nothing but ValueError comes out, and what is accepted is normal at the first attempt."""
    for normal in (normal_backend_address, normal_listen_address, normal_cidr):
        try:
            once = normal(text)
        except ValueError:
            continue
        assert normal(once) == once
