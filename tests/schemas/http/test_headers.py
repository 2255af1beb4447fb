"""Names and tokens as a header may carry them."""

from __future__ import annotations

import pytest

from schemas.http.headers import TokenError, name_in_header, parse_token


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("root", "root"),
        ("/etc/lb.yaml", "/etc/lb.yaml"),
        ("a\nb\x00", "a?b?"),
        ("\udcff", "?"),
        ("", "unknown"),
        ("x" * 300 + "/lb.yaml", "x" * 247 + "/lb.yaml"),
    ],
)
def test_whatever_is_in_a_name(text: str, written: str) -> None:
    """It is written: without what ends a header, and of a long path the end, which tells most."""
    assert name_in_header(text) == written


@pytest.mark.parametrize("raw", [b"secret", b" secret\r\n", b"\xef\xbb\xbfsecret\n", b"\xef\xbb\xbf\nsecret"])
def test_token(raw):
    """Blanks, line ends and a byte order mark around it are no part of it."""
    assert parse_token(raw) == "secret"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"one\ntwo", "is not one line"),
        (b"one\x00two", "is not one line"),
        ("schl\u00fcssel".encode(), "is not ASCII"),
        (b"secret\xef\xbb\xbf", "is not ASCII"),
        ("secret".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("secret".encode("utf-16-be"), "is not one line"),
    ],
)
def test_no_token(raw, why):
    """What no header can carry is refused, with a reason that says nothing of it."""
    with pytest.raises(TokenError) as caught:
        parse_token(raw)
    assert str(caught.value) == why
