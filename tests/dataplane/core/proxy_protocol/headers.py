"""PROXY headers made by hand, and what holds for each of them, right or wrong."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import strategies as st

from dataplane.core.proxy_protocol.checksum import crc32c
from dataplane.core.proxy_protocol.decode import decode
from dataplane.core.proxy_protocol.header import NEED_DATA, Endpoints, Fault, Header, ProxyError

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V4 = Endpoints(("192.0.2.1", 50000), ("198.51.100.7", 443))
V6 = Endpoints(("2001:db8::1", 50000), ("2001:db8::ffff", 443))
V4_BLOCK = bytes.fromhex("c0000201 c6336407 c350 01bb")
V6_BLOCK = bytes.fromhex("20010db8000000000000000000000001 20010db800000000000000000000ffff c350 01bb")

ports = st.integers(0, 65535)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)
mapped = ipv4.map(lambda ip: f"::ffff:{ip}")
payloads = st.binary(max_size=64)


def v2(command=0x21, family=0x11, block=V4_BLOCK, *, size=None):
    """Build a version 2 header by hand, its length too if `size` says so."""
    length = len(block) if size is None else size
    return SIGNATURE + bytes((command, family)) + length.to_bytes(2, "big") + block


def tlv(kind, value):
    """Build a type-length-value field."""
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def with_checksum(*, command=0x21, family=0x11, block=V4_BLOCK, before=b"", after=b"", flip=0):
    """Build a header with a checksum field between others; `flip` is xored into the checksum."""
    blank = v2(command, family, block + before + tlv(3, bytes(4)) + after)
    at = 16 + len(block) + len(before) + 3
    return blank[:at] + (crc32c(blank) ^ flip).to_bytes(4, "big") + blank[at + 4 :]


SSL = tlv(0x20, b"\x07\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"client.example"))
# what would be a wrong checksum, were nested fields looked at
SSL_DECOY = tlv(0x20, b"\x01\0\0\0\0" + tlv(3, b"\1\2\3\4"))
UNIX_BLOCK = b"/run/a.sock".ljust(108, b"\0") + b"/run/b.sock".ljust(108, b"\0")


def plain(ip):
    """Parse an address; a mapped one becomes IPv4."""
    address = ipaddress.ip_address(ip)
    return getattr(address, "ipv4_mapped", None) or address


def check_valid(version: int, header: bytes, endpoints: Endpoints | None) -> None:
    """A header is read with its exact length, whatever stands behind it, from any buffer, and however it is cut."""
    got = decode(header)
    assert isinstance(got, tuple)
    expected = Header(version, endpoints, got[0].fields), len(header)
    for payload in (b"", b"\r\n", header, b"\0" * 300):
        assert decode(header + payload) == expected
    for kind in (bytes, bytearray, memoryview):
        buffer = bytearray(header + b"payload")
        result = decode(kind(buffer))
        buffer.clear()  # it is not held on to
        assert result == expected
    for end in {*range(min(len(header), 400)), len(header) - 1}:
        assert decode(header[:end]) is NEED_DATA, header[:end]


def check_broken(good: bytes, rest: bytes, fault: Fault) -> None:
    """A header is waited for until the byte that breaks it, and refused from there on."""
    for end in range(len(good) + 1):
        assert decode(good[:end]) is NEED_DATA, good[:end]
    for end in range(1, min(len(rest), 200) + 1):
        with pytest.raises(ProxyError):
            decode(good + rest[:end])
    with pytest.raises(ProxyError) as caught:
        decode(good + rest[:1])
    assert caught.value.fault is fault
    with pytest.raises(ProxyError):
        decode(good + rest + b"\r\n" + bytes(300))
