"""Type-length-value fields: what is read, what is written, and what of it a backend is told."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.proxy_protocol.fields import (
    CLIENT_CERT_CONN,
    CLIENT_CERT_SESS,
    CLIENT_SSL,
    Kind,
    Ssl,
    check,
    decode_ssl,
    encode_fields,
    passed_on,
    split,
)
from dataplane.core.proxy_protocol.header import Field, ProxyError
from tests.dataplane.core.proxy_protocol.headers import SSL, tlv

ascii_texts = st.text(st.characters(codec="ascii"), max_size=20)
ssl_values = st.builds(
    Ssl,
    client=st.integers(0, 255),
    verified=st.booleans(),
    version=ascii_texts,
    cn=st.text(max_size=20),
    cipher=ascii_texts,
    sig_alg=ascii_texts,
    key_alg=ascii_texts,
)
fields = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)).map(lambda one: Field(*one)))
TLS = Ssl(
    CLIENT_SSL | CLIENT_CERT_CONN | CLIENT_CERT_SESS, True, "TLSv1.3", "alice", "TLS_AES_128_GCM_SHA256"
)


def test_ssl_looks_as_the_specification_draws_it():
    """Flags, a zero for a certificate that was accepted, and the parts that there are."""
    assert TLS.encode() == (
        b"\x07\0\0\0\0" + tlv(0x21, b"TLSv1.3") + tlv(0x22, b"alice") + tlv(0x23, b"TLS_AES_128_GCM_SHA256")
    )
    assert Ssl().encode() == b"\x01\0\0\0\x01"
    assert Ssl(sig_alg="SHA256", key_alg="RSA2048").encode() == (
        b"\x01\0\0\0\x01" + tlv(0x24, b"SHA256") + tlv(0x25, b"RSA2048")
    )


def test_ssl_is_read_whatever_else_it_says():
    """Parts that nobody knows are skipped."""
    assert decode_ssl(TLS.encode() + tlv(0x7F, b"later")) == TLS
    assert decode_ssl(b"\x01\x80\0\0\0") == Ssl(CLIENT_SSL, False)


@settings(deadline=None)
@given(ssl_values)
def test_ssl_comes_back(ssl):
    """What is written is read."""
    assert decode_ssl(ssl.encode()) == ssl


@settings(deadline=None)
@given(ssl_values, st.data())
def test_a_cut_of_ssl_is_whole_parts_or_nothing(ssl, data):
    """However it is cut, no part is read by half."""
    whole = ssl.encode()
    cut = decode_ssl(whole[: data.draw(st.integers(0, len(whole)))])
    assert cut is None or all(
        part in (whole_part, "") for part, whole_part in zip(cut[2:], ssl[2:], strict=True)
    )


@settings(deadline=None)
@given(fields)
def test_fields_come_back(some):
    """In order, and from anywhere in a buffer."""
    assert split(b"before" + encode_fields(some), 6) == tuple(some)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_hostile_bytes_are_fields_or_nothing(data):
    """Whatever comes either is refused in our words, or is all of what came."""
    found = split(data, 0)
    if found is None:
        return
    assert encode_fields(found) == data
    with suppress(ProxyError):
        check(found, data)
    for field in found:
        ssl = decode_ssl(field.value)
        assert ssl is None or decode_ssl(ssl.encode()) == ssl


def test_unknown_fields_may_come_twice():
    """Clouds do as they like."""
    check((Field(0xEA, b"\xff"), Field(0xEA, b""), Field(Kind.NOOP, b"x"), Field(Kind.NOOP, b"")), b"")


def test_what_is_not_passed_on():
    """A checksum is of the header that it came in, and padding is nothing."""
    said = Field(Kind.UNIQUE_ID, b"7"), Field(0xEA, b"vpce"), Field(0xEA, b"again")
    accepted = (Field(Kind.NOOP, b"xx"), said[0], Field(Kind.CRC32C, bytes(4)), *said[1:])
    assert passed_on(accepted, ()) == said


def test_who_knows_the_client_has_the_word():
    """The balancer in front saw the client's TLS; ours began behind it, and only fills in."""
    theirs = Field(Kind.SSL, TLS.encode()), Field(Kind.AUTHORITY, b"front.example")
    own = Field(Kind.SSL, Ssl().encode()), Field(Kind.AUTHORITY, b"back.example"), Field(Kind.ALPN, b"h2")
    assert set(passed_on(theirs, own)) == {*theirs, own[2]}


@pytest.mark.parametrize("own", [(), (Field(Kind.SSL, TLS.encode()),)])
def test_who_has_seen_no_tls_has_no_word_of_it(own):
    """HAProxy sends an SSL field of a plain connection, too: it yields to the TLS that ended here."""
    plain = Field(Kind.SSL, bytes(5))
    assert passed_on((plain,), own) == (own or (plain,))
    assert passed_on((Field(*split(SSL, 0)[0]),), own) == (split(SSL, 0)[0],)
