"""Version 1: every kind of broken line that we know of, and the lines that are made."""

from __future__ import annotations

import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataplane.core.proxy_protocol.decode import decode
from dataplane.core.proxy_protocol.header import NEED_DATA, Endpoints, Fault, ProxyError
from dataplane.core.proxy_protocol.v1 import encode_v1
from tests.dataplane.core.proxy_protocol.headers import V4, V6, check_broken, check_valid

VALID = {
    "tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n", V4),
    "tcp4-longest": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        Endpoints(("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    ),
    "tcp4-zeros": (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Endpoints(("0.0.0.0", 0), ("0.0.0.0", 0))),
    "tcp6": (b"PROXY TCP6 2001:db8::1 2001:db8::ffff 50000 443\r\n", V6),
    "tcp6-upper": (b"PROXY TCP6 2001:DB8::1 2001:Db8::FFFF 50000 443\r\n", V6),
    "tcp6-long": (b"PROXY TCP6 2001:0db8:0:0:0:0:0:1 2001:db8:0::ffff 50000 443\r\n", V6),
    "tcp6-longest": (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % ((b":".join([b"ffff"] * 8),) * 2),
        Endpoints((":".join(["ffff"] * 8), 65535), (":".join(["ffff"] * 8), 65535)),
    ),
    "tcp6-any": (b"PROXY TCP6 :: 1:2:3:4:5:6:7:: 1 2\r\n", Endpoints(("::", 1), ("1:2:3:4:5:6:7:0", 2))),
    "tcp6-dotted": (
        b"PROXY TCP6 64:ff9b::192.0.2.1 1:2:3:4:5:6:1.2.3.4 1 2\r\n",
        Endpoints(("64:ff9b::c000:201", 1), ("1:2:3:4:5:6:102:304", 2)),
    ),
    "tcp6-mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:c633:6407 50000 443\r\n", V4),
    "tcp6-one-mapped": (
        b"PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n",
        Endpoints(("::ffff:192.0.2.1", 1), ("2001:db8::1", 2)),
    ),
    "unknown": (b"PROXY UNKNOWN\r\n", None),
    "unknown-space": (b"PROXY UNKNOWN \r\n", None),
    "unknown-anything": (b"PROXY UNKNOWN 999.1.1.1 %eth0 \xff\0 -1  x y\r\n", None),
    "unknown-longest": (
        b"PROXY UNKNOWN %b %b 65535 65535\r\n" % ((b":".join([b"ffff"] * 8),) * 2),
        None,
    ),
}


def line(good, rest, fault):
    """Name a broken version 1 line: its longest beginning that could still be right, and the rest."""
    return b"PROXY " + good, rest, fault


LONG = b"PROXY UNKNOWN ".ljust(105, b"x")
ADDRESS, PORT, KEYWORD, FIELDS = Fault.ADDRESS, Fault.PORT, Fault.KEYWORD, Fault.FIELDS
LINE_END = Fault.LINE_END

BROKEN = {
    "post": (b"P", b"OST / HTTP/1.1\r\n\r\n", KEYWORD),
    # version 1: keywords
    "mixed-case": (b"P", b"roxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", KEYWORD),
    "lower-case-family": line(b"", b"tcp4 1.2.3.4 5.6.7.8 1 2\r\n", KEYWORD),
    "lower-case-unknown": line(b"", b"unknown\r\n", KEYWORD),
    "proxy-alone": (b"PROXY", b"\r\n", KEYWORD),
    "no-family": line(b"", b"1.2.3.4 5.6.7.8 1 2\r\n", KEYWORD),
    "family-missing-digit": line(b"TCP", b" 1.2.3.4 5.6.7.8 1 2\r\n", KEYWORD),
    "tcp5": line(b"TCP", b"5 1.2.3.4 5.6.7.8 1 2\r\n", KEYWORD),
    "tcp46": line(b"TCP4", b"6 1.2.3.4 5.6.7.8 1 2\r\n", KEYWORD),
    "udp4": line(b"U", b"DP4 1.2.3.4 5.6.7.8 1 2\r\n", KEYWORD),
    "unix": line(b"UN", b"IX /a /b\r\n", KEYWORD),
    "unknown-longer": line(b"UNKNOWN", b"S\r\n", KEYWORD),
    "unknown-tab": line(b"UNKNOWN", b"\t1.2.3.4\r\n", KEYWORD),
    "tab-after-proxy": (b"PROXY", b"\tTCP4 1.2.3.4 5.6.7.8 1 2\r\n", KEYWORD),
    "two-spaces-after-proxy": line(b"", b" TCP4 1.2.3.4 5.6.7.8 1 2\r\n", KEYWORD),
    # version 1: IPv4 addresses
    "octet-256": line(b"TCP4 1.2.3.25", b"6 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-first-256": line(b"TCP4 25", b"6.2.3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-300": line(b"TCP4 1.30", b"0.3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-four-digits": line(b"TCP4 1.100", b"0.3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "octets-three": line(b"TCP4 1.2.3", b" 5.6.7.8 1 2\r\n", ADDRESS),
    "octets-one": line(b"TCP4 1", b" 5.6.7.8 1 2\r\n", ADDRESS),
    "octets-five": line(b"TCP4 1.2.3.4", b".5 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-empty": line(b"TCP4 1.", b".3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-leading-zero": line(b"TCP4 1.0", b"2.3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-two-zeros": line(b"TCP4 0", b"0.2.3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-plus": line(b"TCP4 ", b"+1.2.3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-minus": line(b"TCP4 1.", b"-2.3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-hexadecimal": line(b"TCP4 0", b"x7f.0.0.1 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-letter": line(b"TCP4 1.2.3.", b"a 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-superscript": line(b"TCP4 1.2.3.", b"\xb2 5.6.7.8 1 2\r\n", ADDRESS),
    "octet-nul": line(b"TCP4 1.2.3.4", b"\0 5.6.7.8 1 2\r\n", ADDRESS),
    "address-network": line(b"TCP4 1.2.3.4", b"/8 5.6.7.8 1 2\r\n", ADDRESS),
    "address-name": line(b"TCP4 ", b"localhost 5.6.7.8 1 2\r\n", ADDRESS),
    "destination-wrong": line(b"TCP4 1.2.3.4 5.6.7", b" 1 2\r\n", ADDRESS),
    "destination-256": line(b"TCP4 1.2.3.4 25", b"6.6.7.8 1 2\r\n", ADDRESS),
    # version 1: families mixed
    "tcp4-v6-v6": line(b"TCP4 200", b"1:db8::1 2001:db8::2 1 2\r\n", ADDRESS),
    "tcp4-v4-v6": line(b"TCP4 1.2.3.4 ", b"::1 1 2\r\n", ADDRESS),
    "tcp6-v4-v4": line(b"TCP6 1", b".2.3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "tcp6-v6-v4": line(b"TCP6 ::1 5", b".6.7.8 1 2\r\n", ADDRESS),
    # version 1: IPv6 addresses
    "scope": line(b"TCP6 fe80::1", b"%eth0 ::1 1 2\r\n", ADDRESS),
    "scope-empty": line(b"TCP6 fe80::1", b"% ::1 1 2\r\n", ADDRESS),
    "brackets": line(b"TCP6 ", b"[::1] ::1 1 2\r\n", ADDRESS),
    "v6-five-digits": line(b"TCP6 2001", b"1::1 ::1 1 2\r\n", ADDRESS),
    "v6-three-colons": line(b"TCP6 1::", b":2 ::1 1 2\r\n", ADDRESS),
    "v6-colons-twice": line(b"TCP6 1::2:", b":3 ::1 1 2\r\n", ADDRESS),
    "v6-one-colon-first": line(b"TCP6 :", b"1:2:3:4:5:6:7 ::1 1 2\r\n", ADDRESS),
    "v6-one-colon-last": line(b"TCP6 1:2:3:4:5:6:7:", b" ::1 1 2\r\n", ADDRESS),
    "v6-seven-groups": line(b"TCP6 1:2:3:4:5:6:7", b" ::1 1 2\r\n", ADDRESS),
    "v6-nine-groups": line(b"TCP6 1:2:3:4:5:6:7:8", b":9 ::1 1 2\r\n", ADDRESS),
    "v6-colons-for-nothing": line(b"TCP6 1::2:3:4:5:6:7", b":8 ::1 1 2\r\n", ADDRESS),
    "v6-letter": line(b"TCP6 2001:", b"gb8::1 ::1 1 2\r\n", ADDRESS),
    "v6-dotted-256": line(b"TCP6 ::ffff:1.2.3.25", b"6 ::1 1 2\r\n", ADDRESS),
    "v6-dotted-three": line(b"TCP6 ::ffff:1.2.3", b" ::1 1 2\r\n", ADDRESS),
    "v6-dotted-leading-zero": line(b"TCP6 ::ffff:1.2.3.0", b"4 ::1 1 2\r\n", ADDRESS),
    "v6-dotted-hexadecimal": line(b"TCP6 ::ffff:a", b".2.3.4 ::1 1 2\r\n", ADDRESS),
    "v6-dotted-first": line(b"TCP6 1", b".2.3.4::1 ::1 1 2\r\n", ADDRESS),
    "v6-dotted-too-many": line(b"TCP6 1:2:3:4:5:6:7:1", b".2.3.4 ::1 1 2\r\n", ADDRESS),
    # version 1: ports
    "port-65536": line(b"TCP4 1.2.3.4 5.6.7.8 6553", b"6 2\r\n", PORT),
    "port-99999": line(b"TCP4 1.2.3.4 5.6.7.8 9999", b"9 2\r\n", PORT),
    "port-six-digits": line(b"TCP4 1.2.3.4 5.6.7.8 10000", b"0 2\r\n", PORT),
    "port-leading-zero": line(b"TCP4 1.2.3.4 5.6.7.8 0", b"80 2\r\n", PORT),
    "port-plus": line(b"TCP4 1.2.3.4 5.6.7.8 ", b"+1 2\r\n", PORT),
    "port-minus": line(b"TCP4 1.2.3.4 5.6.7.8 ", b"-1 2\r\n", PORT),
    "port-hexadecimal": line(b"TCP4 1.2.3.4 5.6.7.8 0", b"x50 2\r\n", PORT),
    "port-underscore": line(b"TCP4 1.2.3.4 5.6.7.8 1", b"_0 2\r\n", PORT),
    "port-letter": line(b"TCP4 1.2.3.4 5.6.7.8 1 ", b"http\r\n", PORT),
    "port-v6-65536": line(b"TCP6 ::1 ::1 1 6553", b"6\r\n", PORT),
    "port-destination-65536": line(b"TCP4 1.2.3.4 5.6.7.8 1 6553", b"6\r\n", PORT),
    "port-empty": line(b"TCP4 1.2.3.4 5.6.7.8 1 ", b"\r\n", PORT),
    # version 1: fields and spaces
    "no-fields": line(b"TCP4", b"\r\n", KEYWORD),
    "one-port": line(b"TCP4 1.2.3.4 5.6.7.8 1", b"\r\n", FIELDS),
    "no-port": line(b"TCP4 1.2.3.4 5.6.7.8", b"\r\n", FIELDS),
    "one-address": line(b"TCP4 1.2.3.4", b"\r\n", FIELDS),
    "fifth-field": line(b"TCP4 1.2.3.4 5.6.7.8 1 2", b" 3\r\n", FIELDS),
    "space-last": line(b"TCP4 1.2.3.4 5.6.7.8 1 2", b" \r\n", FIELDS),
    "tab-last": line(b"TCP4 1.2.3.4 5.6.7.8 1 2", b"\t\r\n", PORT),
    "two-spaces-first": line(b"TCP4 ", b" 1.2.3.4 5.6.7.8 1 2\r\n", ADDRESS),
    "two-spaces-between": line(b"TCP4 1.2.3.4 ", b" 5.6.7.8 1 2\r\n", ADDRESS),
    "two-spaces-port": line(b"TCP4 1.2.3.4 5.6.7.8 ", b" 1 2\r\n", PORT),
    "two-spaces-last": line(b"TCP4 1.2.3.4 5.6.7.8 1 ", b" 2\r\n", FIELDS),
    "tab-between": line(b"TCP4 1.2.3.4", b"\t5.6.7.8 1 2\r\n", ADDRESS),
    "comma-between": line(b"TCP4 1.2.3.4", b",5.6.7.8,1,2\r\n", ADDRESS),
    # version 1: the end of the line
    "lf-alone": line(b"TCP4 1.2.3.4 5.6.7.8 1 2", b"\n", LINE_END),
    "lf-alone-then-crlf": line(b"TCP4 1.2.3.4 5.6.7.8 1 2", b"\nGET / HTTP/1.0\r\n", LINE_END),
    "cr-alone": line(b"TCP4 1.2.3.4 5.6.7.8 1 2\r", b"GET", LINE_END),
    "cr-twice": line(b"TCP4 1.2.3.4 5.6.7.8 1 2\r", b"\r\n", LINE_END),
    "lf-cr": line(b"TCP4 1.2.3.4 5.6.7.8 1 2", b"\n\r", LINE_END),
    "nul-last": line(b"TCP4 1.2.3.4 5.6.7.8 1 2", b"\0\r\n", PORT),
    "unknown-lf": line(b"UNKNOWN", b"\n", LINE_END),
    "unknown-lf-later": line(b"UNKNOWN ::1 ::1 1 2", b"\nx\r\n", LINE_END),
    "unknown-cr-amid": line(b"UNKNOWN x\r", b"y\r\n", LINE_END),
    "unknown-108-bytes": (LONG, b"x\r\n", Fault.TOO_LONG),
    "unknown-endless": (LONG, b"x" * 4096, Fault.TOO_LONG),
}


@pytest.mark.parametrize("name", VALID)
def test_a_valid_line_is_read(name):
    """With its exact length, from any buffer, however it is cut."""
    check_valid(1, *VALID[name])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_refused_at_its_first_wrong_byte(name):
    """It is waited for until the byte that breaks it."""
    check_broken(*BROKEN[name])


def test_the_table_of_broken_lines_is_long_enough():
    """At least 60 kinds of broken headers are known by name: most of them are lines."""
    assert len(BROKEN) >= 60


def test_addresses_that_are_valid_but_do_not_fit_into_107_bytes_are_refused():
    """Two addresses of 45 characters make a line too long, though each is what inet_pton accepts."""
    address = b":".join([b"ffff"] * 6) + b":255.255.255.255"
    head = b"PROXY TCP6 " + address + b" " + address
    assert decode((head + b" 65535 65535\r\n")[:105]) is NEED_DATA
    with pytest.raises(ProxyError) as caught:
        decode(head + b" 65535 65535\r\n")
    assert caught.value.fault is Fault.TOO_LONG


@pytest.mark.parametrize("ends", [(None, None), (None, ("192.0.2.1", 1)), (("192.0.2.1", 1), None)])
def test_without_addresses_the_line_says_so(ends):
    """A client or listener without an IP address makes UNKNOWN."""
    assert encode_v1(*ends) == b"PROXY UNKNOWN\r\n"


def test_a_line_looks_as_the_specification_draws_it():
    """Byte by byte."""
    assert encode_v1(V4.source, V4.destination) == b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n"
    assert encode_v1(V6.source, V6.destination) == b"PROXY TCP6 2001:db8::1 2001:db8::ffff 50000 443\r\n"


@settings(deadline=None, max_examples=300)
@given(st.text("0123456789abcdefABCDEF:.% ", max_size=46))
@example("1:2:3:4:5:6:7::")
@example("::1.2.3.4")
@example("1::2:3:4:5:6:7:8")
@example("::")
@example("fe80::1%eth0")
def test_addresses_are_those_of_inet_pton(text):
    """A line is accepted if and only if inet_pton accepts its address."""
    for family, name in ((socket.AF_INET, "TCP4"), (socket.AF_INET6, "TCP6")):
        try:
            socket.inet_pton(family, text)
            expected = True
        except OSError:
            expected = False
        other = "::1" if family is socket.AF_INET6 else "127.0.0.1"
        try:
            decode(f"PROXY {name} {text} {other} 1 2\r\n".encode())
            accepted = True
        except ProxyError:
            accepted = False
        assert accepted is expected
