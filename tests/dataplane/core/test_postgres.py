"""PostgreSQL's requests before TLS."""

from __future__ import annotations

import pytest

from dataplane.core.postgres import GSSENC_REQUEST, REQUEST_BYTES, SSL_REQUEST, read_request


@pytest.mark.parametrize("request_", [SSL_REQUEST, GSSENC_REQUEST])
def test_a_request_is_found_whatever_follows(request_: bytes) -> None:
    """Cut anywhere it may still become one, and what follows it is no part of it."""
    for size in range(1, len(request_)):
        assert read_request(request_[:size]) == REQUEST_BYTES
    assert read_request(request_) == request_
    assert read_request(request_ + b"\x16\x03\x01") == request_


@pytest.mark.parametrize(
    "data",
    [b"", b"\x16\x03\x01", b"\x00\x00\x00\x08\x04\xd2\x16\x2e", b"\x00\x00\x00\x09", b"GET / HTTP/1.1"],
)
def test_what_is_none(data: bytes) -> None:
    """TLS itself, a request to cancel (80877102), and whatever else there is."""
    assert read_request(data) == b""
