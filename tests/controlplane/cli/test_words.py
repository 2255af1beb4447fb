"""Words and figures on a terminal: short, and never wider than their column."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from controlplane.cli import words
from controlplane.cli.words import PLAIN, RICH


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (math.inf, "-"),
        (0.0, "0"),
        (3.24, "3.2"),
        (9.96, "10"),
        (999.4, "999"),
        (999.6, "1.0k"),
        (1000, "1k"),
        (12345, "12k"),
        (5e6, "5M"),
        (999.6e6, "1.0G"),
    ],
)
def test_figures(value, text):
    """Thousands have a letter; what is unknown is a dash."""
    assert words.figure(value) == text


@settings(deadline=None)
@given(st.floats(min_value=0, max_value=1e15))
def test_figure_has_at_most_four_characters(value):
    """Columns hold."""
    assert len(words.figure(value)) <= 4


def test_percent_is_not_rounded_up():
    """All is only said of all."""
    assert [words.percent(each) for each in (None, 0.999, 1.0)] == ["-", "99%", "100%"]


def test_shortened_names_keep_both_ends():
    """Where names begin alike, their ends tell them apart."""
    assert words.shorten("database-primary/replica-7", 15) == "databas…plica-7"
    assert words.shorten("short", 5) == "short"
    assert words.shorten("database", 5, PLAIN) == "da~se"


@settings(deadline=None)
@given(st.text(st.characters(categories=("L", "N", "P"))), st.integers(0, 30), st.sampled_from([RICH, PLAIN]))
def test_shortened_text_fits(text, width, glyphs):
    """Wide characters included."""
    assert cell_len(words.shorten(text, width, glyphs)) <= width or cell_len(text) <= width


def test_sparkline_is_from_zero_to_its_peak():
    """The newest is at the right; something is never drawn as nothing; without the glyphs there is none."""
    assert words.spark([9, 0, 0.1, 8], 3) == "▁▂█"
    assert words.spark([0, 0], 4) == "  ▁▁"
    assert words.spark([1], 4, PLAIN) == ""


@settings(deadline=None)
@given(st.lists(st.floats(min_value=0, max_value=1e15), min_size=1), st.integers(1, 30))
def test_sparkline_draws_any_rates(values, width):
    """The peak is the highest bar, however it divides."""
    drawn = words.spark(values, width)
    assert len(drawn) == width
    assert drawn[-1 - values[::-1].index(max(values[-width:]))] == ("█" if max(values[-width:]) > 0 else "▁")


def test_bad_stands_out_without_colour():
    """Capitals say it too."""
    assert (words.label("bad", "down"), words.label("warn", "held")) == ("DOWN", "held")
