"""Durations and shares in text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.quantities import format_duration, format_percent, parse_duration, parse_percent


@pytest.mark.parametrize(
    ("text", "seconds", "normal"),
    [
        ("250ms", 0.25, "250ms"),
        ("5s", 5.0, "5s"),
        ("3m", 180.0, "3m"),
        ("1h", 3600.0, "1h"),
        ("1m30s", 90.0, "90s"),
        ("1.5s", 1.5, "1500ms"),
        ("10000ms", 10.0, "10s"),
        ("600s", 600.0, "10m"),
        ("0", 0.0, "0s"),
        ("0s", 0.0, "0s"),
        (0, 0.0, "0s"),
        ("1h0m0.5s", 3600.5, "3600500ms"),
    ],
)
def test_durations_are_read_and_written(text, seconds, normal):
    """A duration is seconds inside, and has one spelling outside."""
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        5,
        5.0,
        "5 s",
        "s",
        "-5s",
        "+5s",
        "5S",
        "1d",
        "1e3s",
        "\u0665s",
        "5s\n",
        ".5s",
        "5.s",
        None,
        True,
        False,
        [],
        "9" * 50 + "s",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    """A number without a unit is as wrong as a word, and the message shows what is right."""
    with pytest.raises(ValueError, match='such as "250ms"'):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "reason"), [("1.0005s", "milliseconds"), ("0.1ms", "milliseconds"), ("99999h", "ten years")]
)
def test_durations_have_a_resolution_and_an_end(text, reason):
    """What no timer here could keep is refused rather than rounded."""
    with pytest.raises(ValueError, match=reason):
        parse_duration(text)


@settings(deadline=None)
@given(st.integers(0, 10 * 365 * 24 * 3_600_000))
def test_every_duration_survives_a_round_trip(milliseconds):
    """Written and read again, a duration is the same number, so digests agree."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(
    ("text", "share"), [("0%", 0.0), ("10%", 0.1), ("12.5%", 0.125), ("100%", 1.0), ("0.25%", 0.0025)]
)
def test_shares_are_read_and_written(text, share):
    """A share is a fraction inside, and per cent outside."""
    assert parse_percent(text) == share
    assert format_percent(share) == text


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_every_share_survives_a_round_trip(basis_points):
    """Written and read again, a share is the same number."""
    assert parse_percent(format_percent(basis_points / 10_000)) == basis_points / 10_000


@pytest.mark.parametrize(
    "text", ["", "10", 10, 0.1, "10 %", "-1%", "%", "1e1%", "1.234%", None, True, "10%\n"]
)
def test_what_is_no_share_is_refused_with_an_example(text):
    """A number alone could mean a fraction or per cent."""
    with pytest.raises(ValueError, match='such as "10%"'):
        parse_percent(text)


@pytest.mark.parametrize("text", ["100.01%", "101%", "999%"])
def test_no_share_is_above_the_whole(text):
    """More than all is a mistake."""
    with pytest.raises(ValueError, match="at most 100%"):
        parse_percent(text)
