"""Version 2: fields and checksums, every kind of broken header that we know of, and the headers that are made."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.proxy_protocol.decode import decode
from dataplane.core.proxy_protocol.fields import Kind
from dataplane.core.proxy_protocol.header import Fault, Field, Header, ProxyError
from dataplane.core.proxy_protocol.v2 import encode_v2, with_fields
from tests.dataplane.core.proxy_protocol.headers import (
    SIGNATURE,
    SSL,
    SSL_DECOY,
    UNIX_BLOCK,
    V4,
    V4_BLOCK,
    V6,
    V6_BLOCK,
    check_broken,
    check_valid,
    payloads,
    tlv,
    v2,
    with_checksum,
)

known_kinds = [kind.value for kind in Kind]
unknown_kinds = st.integers(0, 255).filter(lambda kind: kind not in known_kinds)

VALID = {
    "tcp4": (v2(), V4),
    "tcp6": (v2(0x21, 0x21, V6_BLOCK), V6),
    "tcp6-mapped": (
        v2(
            0x21,
            0x21,
            bytes.fromhex("00000000000000000000ffffc0000201 00000000000000000000ffffc6336407 c350 01bb"),
        ),
        V4,
    ),
    "local": (v2(0x20, 0, b""), None),
    "local-tcp4": (v2(0x20), None),
    "local-tcp4-no-addresses": (v2(0x20, 0x11, b""), None),
    "local-anything": (v2(0x20, 0, b"\x01\xff\xff anything"), None),
    "local-checksum": (with_checksum(command=0x20, family=0, block=b""), None),
    "unspec": (v2(0x21, 0, b""), None),
    "unspec-tlv": (v2(0x21, 0, tlv(4, b"padding")), None),
    "udp4": (v2(0x21, 0x12), None),
    "udp6": (v2(0x21, 0x22, V6_BLOCK), None),
    "unix-stream": (v2(0x21, 0x31, UNIX_BLOCK), None),
    "unix-datagram": (v2(0x21, 0x32, UNIX_BLOCK), None),
    "tlvs": (v2(block=V4_BLOCK + tlv(1, b"h2") + tlv(2, b"www.example.org") + tlv(0xEE, b"")), V4),
    "ssl": (v2(block=V4_BLOCK + SSL), V4),
    "ssl-decoy": (v2(block=V4_BLOCK + SSL_DECOY), V4),
    "checksum": (with_checksum(), V4),
    "checksum-amid": (with_checksum(before=tlv(5, b"id"), after=SSL_DECOY + tlv(4, b"")), V4),
    "checksum-tcp6": (with_checksum(family=0x21, block=V6_BLOCK, before=tlv(5, b"id")), V6),
    "ssl-of-plain-tcp": (v2(block=V4_BLOCK + tlv(0x20, bytes(5))), V4),
    "every-known-field": (
        v2(
            block=V4_BLOCK
            + tlv(1, b"h2")
            + tlv(2, "bücher.example".encode())
            + tlv(5, bytes(128))
            + tlv(0x30, b"blue")
            + SSL
            + tlv(4, b"x") * 2
            + tlv(0xEA, b"a cloud's") * 2
        ),
        V4,
    ),
    "local-ssl-twice": (v2(0x20, 0x11, V4_BLOCK + SSL * 2), None),
    "longest": (v2(block=V4_BLOCK + tlv(4, bytes(0xFFFF - 12 - 3))), V4),
}


def block(header, fault):
    """Name a broken version 2 header that shows only once it is complete."""
    return header[:-1], header[-1:], fault


COMMAND, FAMILY, LENGTH = Fault.COMMAND, Fault.FAMILY, Fault.LENGTH

BROKEN = {
    "empty-line": (b"\r\n", b"GET / HTTP/1.1\r\n", Fault.SIGNATURE),
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
    # fields that are not as the specification has them
    "alpn-twice": block(v2(block=V4_BLOCK + tlv(1, b"h2") * 2), Fault.TLV),
    "alpn-256-bytes": block(v2(block=V4_BLOCK + tlv(1, b"h" * 256)), Fault.TLV),
    "authority-twice": block(v2(block=V4_BLOCK + tlv(2, b"a") + tlv(0xEE, b"") + tlv(2, b"b")), Fault.TLV),
    "authority-256-bytes": block(v2(block=V4_BLOCK + tlv(2, b"a" * 256)), Fault.TLV),
    "authority-latin-1": block(v2(block=V4_BLOCK + tlv(2, b"caf\xe9.example")), Fault.TLV),
    "unique-id-129-bytes": block(v2(block=V4_BLOCK + tlv(5, bytes(129))), Fault.TLV),
    "unique-id-twice": block(v2(block=V4_BLOCK + tlv(5, b"1") + tlv(5, b"2")), Fault.TLV),
    "netns-utf-8": block(v2(block=V4_BLOCK + tlv(0x30, "blå".encode())), Fault.TLV),
    "netns-twice": block(v2(block=V4_BLOCK + tlv(0x30, b"blue") * 2), Fault.TLV),
    "ssl-twice": block(v2(block=V4_BLOCK + SSL * 2), Fault.TLV),
    "ssl-4-bytes": block(v2(block=V4_BLOCK + tlv(0x20, bytes(4))), Fault.TLV),
    "ssl-overrun": block(v2(block=V4_BLOCK + tlv(0x20, bytes(5) + b"\x21\0\x08TLSv1.3")), Fault.TLV),
    "ssl-version-twice": block(
        v2(block=V4_BLOCK + tlv(0x20, bytes(5) + tlv(0x21, b"TLSv1.3") * 2)), Fault.TLV
    ),
    "ssl-cn-latin-1": block(v2(block=V4_BLOCK + tlv(0x20, bytes(5) + tlv(0x22, b"Ren\xe9"))), Fault.TLV),
    "ssl-cipher-utf-8": block(v2(block=V4_BLOCK + tlv(0x20, bytes(5) + tlv(0x23, "Ä".encode()))), Fault.TLV),
    "ssl-unspec": block(v2(family=0, block=tlv(0x20, b"")), Fault.TLV),
    "checksum-local": block(with_checksum(command=0x20, flip=4), Fault.CHECKSUM),
}


@pytest.mark.parametrize("name", VALID)
def test_a_valid_header_is_read(name):
    """With its exact length, from any buffer, however it is cut."""
    check_valid(2, *VALID[name])


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_header_is_refused_at_its_first_wrong_byte(name):
    """It is waited for until the byte that breaks it."""
    check_broken(*BROKEN[name])


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
    st.lists(st.tuples(unknown_kinds, st.binary(max_size=20)), max_size=6),
    st.sampled_from([(0x11, V4_BLOCK, V4), (0x21, V6_BLOCK, V6), (0x31, UNIX_BLOCK, None), (0, b"", None)]),
    st.booleans(),
    payloads,
)
def test_any_fields_are_read(fields, kind, checksummed, payload):
    """Well-formed fields of types that nobody knows come out as they are, with and without a checksum among them."""
    family, addresses, endpoints = kind
    tlvs = b"".join(tlv(*field) for field in fields)
    if checksummed:
        header = with_checksum(family=family, block=addresses, before=tlvs)
    else:
        header = v2(0x21, family, addresses + tlvs)
    got = decode(header + payload)
    assert isinstance(got, tuple)
    assert got == (Header(2, endpoints, got[0].fields), len(header))
    assert [field for field in got[0].fields if field.kind != Kind.CRC32C] == fields


@pytest.mark.parametrize("ends", [(None, None), (None, ("192.0.2.1", 1)), (("192.0.2.1", 1), None)])
def test_without_addresses_the_header_says_so(ends):
    """A client or listener without an IP address makes LOCAL."""
    assert encode_v2(*ends) == SIGNATURE + b"\x20\x00\x00\x00"


def test_a_header_looks_as_the_specification_draws_it():
    """Byte by byte."""
    assert encode_v2(V4.source, V4.destination) == SIGNATURE + b"\x21\x11\x00\x0c" + V4_BLOCK
    assert encode_v2(V6.source, V6.destination) == SIGNATURE + b"\x21\x21\x00\x24" + V6_BLOCK


def test_fields_stand_behind_the_addresses():
    """Byte by byte, and the length counts them."""
    made = with_fields(encode_v2(V4.source, V4.destination), [Field(1, b"h2"), Field(2, b"a.example")])
    assert made == v2(block=V4_BLOCK + tlv(1, b"h2") + tlv(2, b"a.example"))


def test_without_fields_a_header_is_what_it_was():
    """No length is changed and no command."""
    for header in (encode_v2(V4.source, V4.destination), encode_v2(None, None)):
        assert with_fields(header, []) == header


def test_a_checksum_is_the_last_field_and_holds():
    """It covers what stands before it; a LOCAL header stays one."""
    made = with_fields(encode_v2(V6.source, V6.destination), [Field(2, b"a.example")], checksum=True)
    assert made == with_checksum(family=0x21, block=V6_BLOCK, before=tlv(2, b"a.example"))
    local = with_fields(encode_v2(None, None), [], checksum=True)
    assert local == with_checksum(command=0x20, family=0, block=b"")


def test_fields_of_a_client_without_an_address_are_read():
    """Behind LOCAL nobody would look at them, so the header is one of an unspecified family."""
    made = with_fields(encode_v2(None, None), [Field(2, b"a.example")])
    assert decode(made) == (Header(2, None, (Field(2, b"a.example"),)), len(made))


@pytest.mark.parametrize("checksum", [False, True])
def test_what_a_header_cannot_hold_is_left_out_from_the_end(checksum):
    """The first fields arrive whole, and the header is valid."""
    long = Field(0xEE, bytes(40_000))
    made = with_fields(encode_v2(V6.source, V6.destination), [long, long, Field(1, b"h2")], checksum=checksum)
    got = decode(made)
    assert isinstance(got, tuple)
    assert [field for field in got[0].fields if field.kind != Kind.CRC32C] == [long]


@settings(deadline=None)
@given(
    st.lists(st.tuples(unknown_kinds, st.binary(max_size=300)).map(lambda one: Field(*one))), st.booleans()
)
def test_what_is_written_behind_the_addresses_is_read(fields, checksum):
    """Fields of any kind come back in order."""
    made = with_fields(encode_v2(V4.source, V4.destination), fields, checksum=checksum)
    got = decode(made + b"payload")
    assert isinstance(got, tuple)
    assert (got[0].endpoints, got[1]) == (V4, len(made))
    assert [field for field in got[0].fields if field.kind != Kind.CRC32C] == fields
