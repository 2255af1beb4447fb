"""What both versions say: an error with its bytes, and two addresses of one family in one spelling."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.proxy_protocol.decode import decode
from dataplane.core.proxy_protocol.header import Header, ProxyError
from dataplane.core.proxy_protocol.v1 import encode_v1
from dataplane.core.proxy_protocol.v2 import encode_v2
from tests.dataplane.core.proxy_protocol.headers import ipv4, ipv6, mapped, plain


def test_error_says_who_and_what():
    """The error carries the close reason, whose doing it was, and a short, escaped piece of the bytes."""
    with pytest.raises(ProxyError) as caught:
        decode(b"PROXY TCP4 1.2.3.256 \x1b[2J")
    error = caught.value
    assert str(error) == (
        "invalid PROXY header: malformed address, or one of another family: "
        r"b'PROXY TCP4 1.2.3.256 \x1b[2J'"
    )
    with pytest.raises(ProxyError) as caught:
        decode(b"x" * 5000)
    assert caught.value.head == b"x" * 32


@pytest.mark.parametrize(
    ("source", "destination", "line"),
    [
        ("192.0.2.1", "198.51.100.7", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n"),
        ("2001:db8::1", "::1", b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n"),
        ("::ffff:192.0.2.1", "::ffff:198.51.100.7", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n"),
        ("::ffff:c000:201", "0::FFFF:198.51.100.7", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n"),
        ("::ffff:192.0.2.1", "198.51.100.7", b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\r\n"),
        ("192.0.2.1", "2001:db8::1", b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n"),
        ("2001:db8::1", "192.0.2.1", b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 2\r\n"),
        ("::ffff:192.0.2.1", "::1", b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n"),
        ("::ffff:5", "::ffff:5:1.2.3.4", b"PROXY TCP6 ::ffff:5 ::ffff:5:1.2.3.4 1 2\r\n"),
        ("::ffff:5", "::ffff:6", b"PROXY TCP6 ::ffff:5 ::ffff:6 1 2\r\n"),
        ("fe80::1%eth0", "fe80::2%eth0", b"PROXY TCP6 fe80::1 fe80::2 1 2\r\n"),
    ],
)
def test_the_family_sent_is_that_of_the_pair(source, destination, line):
    """IPv4 if both are IPv4 or mapped, else IPv6 with an IPv4 side mapped; a scope stays at home."""
    ends = ((source, 1), (destination, 2))
    assert encode_v1(*ends) == line
    assert decode(encode_v2(*ends)) == (Header(2, decode(line)[0].endpoints), 52 if b"TCP6" in line else 28)


@settings(deadline=None)
@given(st.one_of(ipv4, ipv6, mapped), st.one_of(ipv4, ipv6, mapped))
def test_both_ends_are_of_one_family(source, destination):
    """Whatever pair is sent, the two ends that arrive are both IPv4 or both IPv6, and IPv4 if they can be."""
    for header in (
        encode_v1((source, 1), (destination, 2)),
        encode_v2((source, 1), (destination, 2)),
    ):
        ends = decode(header)[0].endpoints
        versions = {
            ipaddress.ip_address(ends.source[0]).version,
            ipaddress.ip_address(ends.destination[0]).version,
        }
        both_v4 = plain(source).version == plain(destination).version == 4
        assert versions == {4 if both_v4 else 6}
