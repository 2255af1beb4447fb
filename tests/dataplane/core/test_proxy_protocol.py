"""The PROXY protocol codec: round trips, every cut, and every kind of broken header that we know of."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataplane.core.proxy_protocol import (
    NEED_DATA,
    Endpoints,
    Fault,
    Header,
    ProxyError,
    crc32c,
    decode,
    encode_v1,
    encode_v2,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V4 = Endpoints(("192.0.2.1", 50000), ("198.51.100.7", 443))
V6 = Endpoints(("2001:db8::1", 50000), ("2001:db8::ffff", 443))
V4_BLOCK = bytes.fromhex("c0000201 c6336407 c350 01bb")
V6_BLOCK = bytes.fromhex("20010db8000000000000000000000001 20010db800000000000000000000ffff c350 01bb")


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

VALID = {
    "v1-tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n", V4),
    "v1-tcp4-longest": (
        b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
        Endpoints(("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    ),
    "v1-tcp4-zeros": (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Endpoints(("0.0.0.0", 0), ("0.0.0.0", 0))),
    "v1-tcp6": (b"PROXY TCP6 2001:db8::1 2001:db8::ffff 50000 443\r\n", V6),
    "v1-tcp6-upper": (b"PROXY TCP6 2001:DB8::1 2001:Db8::FFFF 50000 443\r\n", V6),
    "v1-tcp6-long": (b"PROXY TCP6 2001:0db8:0:0:0:0:0:1 2001:db8:0::ffff 50000 443\r\n", V6),
    "v1-tcp6-longest": (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % ((b":".join([b"ffff"] * 8),) * 2),
        Endpoints((":".join(["ffff"] * 8), 65535), (":".join(["ffff"] * 8), 65535)),
    ),
    "v1-tcp6-any": (b"PROXY TCP6 :: 1:2:3:4:5:6:7:: 1 2\r\n", Endpoints(("::", 1), ("1:2:3:4:5:6:7:0", 2))),
    "v1-tcp6-dotted": (
        b"PROXY TCP6 64:ff9b::192.0.2.1 1:2:3:4:5:6:1.2.3.4 1 2\r\n",
        Endpoints(("64:ff9b::c000:201", 1), ("1:2:3:4:5:6:102:304", 2)),
    ),
    "v1-tcp6-mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:c633:6407 50000 443\r\n", V4),
    "v1-tcp6-one-mapped": (
        b"PROXY TCP6 ::ffff:c000:201 2001:db8::1 1 2\r\n",
        Endpoints(("::ffff:192.0.2.1", 1), ("2001:db8::1", 2)),
    ),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1-unknown-space": (b"PROXY UNKNOWN \r\n", None),
    "v1-unknown-anything": (b"PROXY UNKNOWN 999.1.1.1 %eth0 \xff\0 -1  x y\r\n", None),
    "v1-unknown-longest": (
        b"PROXY UNKNOWN %b %b 65535 65535\r\n" % ((b":".join([b"ffff"] * 8),) * 2),
        None,
    ),
    "v2-tcp4": (v2(), V4),
    "v2-tcp6": (v2(0x21, 0x21, V6_BLOCK), V6),
    "v2-tcp6-mapped": (
        v2(
            0x21,
            0x21,
            bytes.fromhex("00000000000000000000ffffc0000201 00000000000000000000ffffc6336407 c350 01bb"),
        ),
        V4,
    ),
    "v2-local": (v2(0x20, 0, b""), None),
    "v2-local-tcp4": (v2(0x20), None),
    "v2-local-tcp4-no-addresses": (v2(0x20, 0x11, b""), None),
    "v2-local-anything": (v2(0x20, 0, b"\x01\xff\xff anything"), None),
    "v2-local-checksum": (with_checksum(command=0x20, family=0, block=b""), None),
    "v2-unspec": (v2(0x21, 0, b""), None),
    "v2-unspec-tlv": (v2(0x21, 0, tlv(4, b"padding")), None),
    "v2-udp4": (v2(0x21, 0x12), None),
    "v2-udp6": (v2(0x21, 0x22, V6_BLOCK), None),
    "v2-unix-stream": (v2(0x21, 0x31, UNIX_BLOCK), None),
    "v2-unix-datagram": (v2(0x21, 0x32, UNIX_BLOCK), None),
    "v2-tlvs": (v2(block=V4_BLOCK + tlv(1, b"h2") + tlv(2, b"www.example.org") + tlv(0xEE, b"")), V4),
    "v2-ssl": (v2(block=V4_BLOCK + SSL), V4),
    "v2-ssl-decoy": (v2(block=V4_BLOCK + SSL_DECOY), V4),
    "v2-checksum": (with_checksum(), V4),
    "v2-checksum-amid": (with_checksum(before=SSL, after=SSL_DECOY + tlv(4, b"")), V4),
    "v2-checksum-tcp6": (with_checksum(family=0x21, block=V6_BLOCK, before=tlv(5, b"id")), V6),
    "v2-longest": (v2(block=V4_BLOCK + tlv(4, bytes(0xFFFF - 12 - 3))), V4),
}
SHORT = {name: case for name, case in VALID.items() if name != "v2-longest"}


def line(good, rest, fault):
    """Name a broken version 1 line: its longest beginning that could still be right, and the rest."""
    return b"PROXY " + good, rest, fault


def block(header, fault):
    """Name a broken version 2 header that shows only once it is complete."""
    return header[:-1], header[-1:], fault


LONG = b"PROXY UNKNOWN ".ljust(105, b"x")
ADDRESS, PORT, KEYWORD, FIELDS = Fault.ADDRESS, Fault.PORT, Fault.KEYWORD, Fault.FIELDS
LINE_END, COMMAND, FAMILY, LENGTH = Fault.LINE_END, Fault.COMMAND, Fault.FAMILY, Fault.LENGTH

BROKEN = {
    # what is no header at all
    "empty-line": (b"\r\n", b"GET / HTTP/1.1\r\n", Fault.SIGNATURE),
    "http": (b"", b"GET / HTTP/1.1\r\n\r\n", Fault.START),
    "post": (b"P", b"OST / HTTP/1.1\r\n\r\n", KEYWORD),
    "tls": (b"", bytes.fromhex("16030100c8010000c40303"), Fault.START),
    "nul": (b"", b"\0", Fault.START),
    "space-first": (b"", b" PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Fault.START),
    "lf-first": (b"", b"\nPROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Fault.START),
    # version 1: keywords
    "lower-case": (b"", b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Fault.START),
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
    # version 2: the first 16 bytes
    "signature-lf": (SIGNATURE[:2], b"\n", Fault.SIGNATURE),
    "signature-nul": (SIGNATURE[:4], b"\r\nQUIT\n\0", Fault.SIGNATURE),
    "signature-lower-case": (SIGNATURE[:7], b"quit\n\x21\x11\0\0", Fault.SIGNATURE),
    "signature-crlf": (SIGNATURE[:11], b"\r\n\x21\x11\0\0", Fault.SIGNATURE),
    "version-0": (SIGNATURE, v2(0x01)[12:], COMMAND),
    "version-1": (SIGNATURE, v2(0x11)[12:], COMMAND),
    "version-3": (SIGNATURE, v2(0x31)[12:], COMMAND),
    "version-15": (SIGNATURE, v2(0xF1)[12:], COMMAND),
    "command-2": (SIGNATURE, v2(0x22)[12:], COMMAND),
    "command-15": (SIGNATURE, v2(0x2F)[12:], COMMAND),
    "family-4": (v2()[:13], v2(family=0x41)[13:], FAMILY),
    "family-15": (v2()[:13], v2(family=0xF1)[13:], FAMILY),
    "transport-3": (v2()[:13], v2(family=0x13)[13:], FAMILY),
    "transport-15": (v2()[:13], v2(family=0x2F)[13:], FAMILY),
    "transport-without-family": (v2()[:13], v2(family=0x01)[13:], FAMILY),
    "family-without-transport": (v2()[:13], v2(family=0x10)[13:], FAMILY),
    "family-6-without-transport": (v2()[:13], v2(family=0x20)[13:], FAMILY),
    "unix-without-transport": (v2()[:13], v2(family=0x30)[13:], FAMILY),
    "local-family-4": (v2(0x20)[:13], v2(0x20, 0x41)[13:], FAMILY),
    "tcp4-no-addresses": (v2()[:15], b"\0", LENGTH),
    "tcp4-11-bytes": (v2()[:15], b"\x0b" + V4_BLOCK, LENGTH),
    "udp4-11-bytes": (v2(family=0x12)[:15], b"\x0b" + V4_BLOCK, LENGTH),
    "tcp6-12-bytes": (v2(family=0x21)[:15], b"\x0c" + V4_BLOCK, LENGTH),
    "tcp6-35-bytes": (v2(family=0x21)[:15], b"\x23" + V6_BLOCK, LENGTH),
    "udp6-35-bytes": (v2(family=0x22)[:15], b"\x23" + V6_BLOCK, LENGTH),
    "unix-215-bytes": (v2(family=0x31)[:15], b"\xd7" + UNIX_BLOCK, LENGTH),
    "unix-datagram-0-bytes": (v2(family=0x32)[:15], b"\0" + UNIX_BLOCK, LENGTH),
    # version 2: type-length-value fields
    "tlv-1-byte": block(v2(block=V4_BLOCK + b"\x01"), Fault.TLV),
    "tlv-2-bytes": block(v2(block=V4_BLOCK + b"\x01\0"), Fault.TLV),
    "tlv-overrun-by-1": block(v2(block=V4_BLOCK + b"\x01\0\x03h2"), Fault.TLV),
    "tlv-overrun-far": block(v2(block=V4_BLOCK + b"\x04\xff\xffxx"), Fault.TLV),
    "tlv-overrun-second": block(v2(block=V4_BLOCK + tlv(1, b"h2") + b"\x02\0\x09example"), Fault.TLV),
    "tlv-overrun-ssl": block(v2(block=V4_BLOCK + SSL[:-1]), Fault.TLV),
    "tlv-overrun-tcp6": block(v2(family=0x21, block=V6_BLOCK + b"\x01\0\x01"), Fault.TLV),
    "tlv-overrun-unspec": block(v2(family=0, block=b"\x01\0\x01"), Fault.TLV),
    "tlv-overrun-unix": block(v2(family=0x31, block=UNIX_BLOCK + b"\x01"), Fault.TLV),
    "checksum-3-bytes": block(v2(block=V4_BLOCK + tlv(3, bytes(3))), Fault.TLV),
    "checksum-5-bytes": block(v2(block=V4_BLOCK + tlv(3, bytes(5))), Fault.TLV),
    "checksum-twice": block(v2(block=V4_BLOCK + tlv(3, bytes(4)) * 2), Fault.TLV),
    "checksum-zero": block(v2(block=V4_BLOCK + tlv(3, bytes(4))), Fault.CHECKSUM),
    "checksum-one-bit": block(with_checksum(flip=1), Fault.CHECKSUM),
    "checksum-high-bit": block(with_checksum(before=SSL, flip=1 << 31), Fault.CHECKSUM),
    "checksum-tcp6": block(with_checksum(family=0x21, block=V6_BLOCK, flip=2), Fault.CHECKSUM),
    "checksum-unix": block(with_checksum(family=0x31, block=UNIX_BLOCK, flip=2), Fault.CHECKSUM),
    "checksum-local": block(with_checksum(command=0x20, flip=4), Fault.CHECKSUM),
}

ports = st.integers(0, 65535)
ipv4 = st.ip_addresses(v=4).map(str)
ipv6 = st.ip_addresses(v=6).map(str)
mapped = ipv4.map(lambda ip: f"::ffff:{ip}")
payloads = st.binary(max_size=64)


@pytest.mark.parametrize("name", VALID)
def test_valid_header_is_read_and_what_follows_is_left_alone(name):
    """A valid header is accepted with its exact length, whatever stands behind it."""
    header, endpoints = VALID[name]
    version = 1 if header.startswith(b"P") else 2
    for payload in (b"", b"\r\n", header, b"\0" * 300):
        assert decode(header + payload) == (Header(version, endpoints), len(header))


@pytest.mark.parametrize("name", VALID)
def test_every_beginning_of_a_valid_header_asks_for_more(name):
    """A valid header is waited for however it is cut, never refused early, never accepted early."""
    header, _ = VALID[name]
    for end in {*range(min(len(header), 400)), len(header) - 1}:
        assert decode(header[:end]) is NEED_DATA, header[:end]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("name", SHORT)
def test_any_buffer_will_do(name, kind):
    """The bytes may stand in any buffer, and a buffer is not held on to."""
    header, endpoints = SHORT[name]
    buffer = bytearray(header + b"payload")
    result = decode(kind(buffer))
    buffer.clear()
    assert result == (Header(1 if header.startswith(b"P") else 2, endpoints), len(header))


def test_the_table_of_broken_headers_is_long_enough():
    """At least 60 kinds of broken headers are known by name."""
    assert len(BROKEN) >= 60


@pytest.mark.parametrize("name", BROKEN)
def test_broken_header_is_refused_at_its_first_wrong_byte(name):
    """A broken header is waited for until the byte that breaks it, and refused from there on."""
    good, rest, fault = BROKEN[name]
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


def test_addresses_that_are_valid_but_do_not_fit_into_107_bytes_are_refused():
    """Two addresses of 45 characters make a line too long, though each is what inet_pton accepts."""
    address = b":".join([b"ffff"] * 6) + b":255.255.255.255"
    head = b"PROXY TCP6 " + address + b" " + address
    assert decode((head + b" 65535 65535\r\n")[:105]) is NEED_DATA
    with pytest.raises(ProxyError) as caught:
        decode(head + b" 65535 65535\r\n")
    assert caught.value.fault is Fault.TOO_LONG


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


def test_crc32c_has_the_published_value():
    """The checksum is CRC-32C: the check value of the nine digits, and RFC 3720's 32 bytes of zeros."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"") == 0


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


def test_headers_look_as_the_specification_draws_them():
    """Both versions, byte by byte."""
    assert encode_v1(V4.source, V4.destination) == b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n"
    assert encode_v2(V4.source, V4.destination) == SIGNATURE + b"\x21\x11\x00\x0c" + V4_BLOCK
    assert encode_v2(V6.source, V6.destination) == SIGNATURE + b"\x21\x21\x00\x24" + V6_BLOCK
    assert encode_v2(None, None) == SIGNATURE + b"\x20\x00\x00\x00"


@pytest.mark.parametrize("ends", [(None, None), (None, ("192.0.2.1", 1)), (("192.0.2.1", 1), None)])
def test_without_addresses_the_header_says_so(ends):
    """A client or listener without an IP address makes UNKNOWN or LOCAL."""
    assert encode_v1(*ends) == b"PROXY UNKNOWN\r\n"
    assert encode_v2(*ends) == encode_v2(None, None)


@settings(deadline=None)
@given(st.one_of(st.tuples(ipv4, ipv4), st.tuples(ipv6, ipv6)), ports, ports, payloads)
def test_what_is_encoded_is_decoded(ips, source_port, destination_port, payload):
    """Both versions carry any pair of one family to the other side, at any cut, up to the payload."""
    ends = (ips[0], source_port), (ips[1], destination_port)
    for version, header in ((1, encode_v1(*ends)), (2, encode_v2(*ends))):
        got, used = decode(header + payload)
        assert used == len(header)
        assert got.version == version
        for (ip, port), (sent_ip, sent_port) in zip(
            (got.endpoints.source, got.endpoints.destination), ends, strict=True
        ):
            assert plain(ip) == plain(sent_ip)
            assert port == sent_port
        assert all(decode(header[:end]) is NEED_DATA for end in range(len(header)))


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


def plain(ip):
    """Parse an address; a mapped one becomes IPv4."""
    address = ipaddress.ip_address(ip)
    return getattr(address, "ipv4_mapped", None) or address


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


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=200).map(lambda tail: SIGNATURE + tail),
        st.binary(max_size=300).map(lambda tail: v2(size=min(len(tail), 40)) + tail),
        st.text("PROXYTCUNKW46 0123456789.:\r\n", max_size=120).map(lambda text: b"PROXY" + text.encode()),
    )
)
def test_hostile_bytes_meet_a_verdict_that_stays(data):
    """Any bytes are accepted, refused or waited for; once there is a verdict, more bytes do not change it."""
    verdict = None
    for end in range(len(data) + 1):
        try:
            now = decode(data[:end])
        except ProxyError as error:
            now = type(error)
        if verdict is None:
            if now is not NEED_DATA:
                verdict = now
        else:
            assert now == verdict
    if isinstance(verdict, tuple):
        assert 0 < verdict[1] <= len(data)


@pytest.mark.parametrize("position", range(16, 28))
def test_a_checksum_guards_every_bit_of_the_addresses(position):
    """One flipped bit of an address or port is refused if there is a checksum."""
    header = with_checksum(before=SSL, after=tlv(4, b"padding"))
    for bit in range(8):
        changed = bytearray(header)
        changed[position] ^= 1 << bit
        with pytest.raises(ProxyError) as caught:
            decode(changed)
        assert caught.value.fault is Fault.CHECKSUM


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=20)), max_size=6
    ),
    st.sampled_from([(0x11, V4_BLOCK, V4), (0x21, V6_BLOCK, V6), (0x31, UNIX_BLOCK, None), (0, b"", None)]),
    st.booleans(),
    payloads,
)
def test_any_fields_are_skipped(fields, kind, checksummed, payload):
    """Well-formed fields of any type are skipped, with and without a checksum among them."""
    family, addresses, endpoints = kind
    tlvs = b"".join(tlv(*field) for field in fields)
    if checksummed:
        header = with_checksum(family=family, block=addresses, before=tlvs)
    else:
        header = v2(0x21, family, addresses + tlvs)
    assert decode(header + payload) == (Header(2, endpoints), len(header))
