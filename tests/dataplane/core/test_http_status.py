"""What an HTTP/1 response begins with."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.http_status import http_status


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 099 x",
        b"HTTP/1.1 600 x",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 200 a\x00b",
        b"http/1.1 200 OK",
        b"HTTP/1.2 200 OK",
        b" HTTP/1.1 200 OK",
        b"",
        b"HTTP/1.1 200 OK\n",
    ],
)
def test_malformed_status_line_is_none(line):
    """A status line is taken strictly."""
    assert http_status(line + b"\r\n\r\n") == 0


@settings(deadline=None)
@given(
    informational=st.lists(st.sampled_from((100, 102, 103)), max_size=3),
    status=st.sampled_from((101, 200, 204, 301, 404, 503, 599)),
    reason=st.sampled_from(("", " ", " OK", " Not Found")),
)
def test_status_is_found_at_its_line_end_and_not_before(informational, status, reason):
    """However the response is cut, nothing is said before the final status line is complete, and then the same."""
    head = "".join(f"HTTP/1.1 {code} x\r\nA: b\r\n\r\n" for code in informational)
    complete = f"{head}HTTP/1.1 {status}{reason}\r\n".encode()
    for cut in range(len(complete)):
        assert http_status(complete[:cut]) is None
    assert http_status(complete) == status
    assert http_status(complete + b"A: b\r\n\r\nbody") == status
