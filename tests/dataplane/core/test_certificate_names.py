"""A certificate and whom it is for."""

from __future__ import annotations

import pytest

from dataplane.core.certificate_names import covers


@pytest.mark.parametrize(
    ("value", "wanted", "is_covered"),
    [
        ("db.example", "db.example", True),
        ("DB.Example", "db.example.", True),
        ("db.example", "db.example.org", False),
        ("db.example", "b.example", False),
        ("*.site.example", "a.site.example", True),
        ("*.site.example", "a.b.site.example", False),
        ("*.site.example", "site.example", False),
        ("*.site.example", ".site.example", False),
        ("*.example", "a.example", False),
        ("a*.site.example", "ab.site.example", False),
        ("*", "a", False),
        ("127.0.0.1", "127.0.0.1", False),
    ],
)
def test_host_names(value: str, wanted: str, *, is_covered: bool) -> None:
    """A star is one whole label, and an address is no name."""
    assert covers([("DNS", value)], wanted) is is_covered


@pytest.mark.parametrize(
    ("value", "wanted", "is_covered"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:DB8:0:0:0:0:0:1\n", "2001:db8::1", True),
        ("10.0.0.1", "db.example", False),
    ],
)
def test_addresses(value: str, wanted: str, *, is_covered: bool) -> None:
    """They are compared as numbers, however they are written."""
    assert covers([("IP Address", value)], wanted) is is_covered


def test_one_of_several_is_enough_and_other_kinds_do_not_count() -> None:
    """A common name is none of them."""
    names = [("DNS", "a.example"), ("IP Address", "10.0.0.1"), ("email", "b.example")]
    assert covers(names, "a.example")
    assert covers(names, "10.0.0.1")
    assert not covers(names, "b.example")
    assert not covers([], "a.example")
