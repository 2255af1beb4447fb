"""Names as a header may carry them."""

from __future__ import annotations

import pytest

from schemas.http.headers import name_in_header


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
