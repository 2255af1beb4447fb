"""Reading a header of either version: round trips, and bytes that are none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.proxy_protocol.decode import decode
from dataplane.core.proxy_protocol.header import NEED_DATA, Fault, ProxyError
from dataplane.core.proxy_protocol.v1 import encode_v1
from dataplane.core.proxy_protocol.v2 import encode_v2
from tests.dataplane.core.proxy_protocol.headers import (
    SIGNATURE,
    check_broken,
    ipv4,
    ipv6,
    payloads,
    plain,
    ports,
    v2,
)

NONE = {
    "http": (b"", b"GET / HTTP/1.1\r\n\r\n", Fault.START),
    "tls": (b"", bytes.fromhex("16030100c8010000c40303"), Fault.START),
    "nul": (b"", b"\0", Fault.START),
    "space-first": (b"", b" PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Fault.START),
    "lf-first": (b"", b"\nPROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Fault.START),
    "lower-case": (b"", b"proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n", Fault.START),
}


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_header_is_refused_at_its_first_byte(name):
    """It is another protocol, or none."""
    check_broken(*NONE[name])


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
