"""The frames of `top`: fit any terminal, name what is wrong, keep the chosen row in sight, and tell old news."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rich.cells import cell_len

from controlplane.cli.topview import SORTS, Model, frame, ordered, plain_lines
from controlplane.cli.words import PLAIN
from controlplane.core.rates import Row
from controlplane.core.report import Seen, node_status
from tests.controlplane.core.test_report import backend, seen, status

NOW = datetime(2026, 1, 1, 0, 3, 5, tzinfo=UTC)
LONG = "a-rather-long-backend-name-that-somebody-chose.example.internal:15432"
SIZES = [(40, 10), (60, 20), (80, 24), (120, 40), (200, 60), (20, 5)]


def row(key, *, health="up", rate: float | None = 3.25, **fields):
    """Make a row."""
    part = {**backend(key, health=health), **fields}
    return Row("web", part, rate, 2048.0, 5e6, 1.0, 1.0, 0.0125, (0.0, 1.0, 2.0))


def model(*rows, **more):
    """Make what a frame is made of."""
    given = node_status([seen(status(*(each.backend for each in rows)))], ())
    return Model(given, rows, NOW, **more)


def shown(given, width=80, height=24):
    """Return the lines of a frame as text."""
    return [line.plain for line in frame(given, width, height)[0]]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("glyphs", ["rich", "plain"])
def test_every_frame_fits(width, height, glyphs):
    """No line is wider than the terminal and none is too many, whatever names are like and however many."""
    rows = [row(LONG, health="down"), row("[2001:db8::1]:5432"), row("unix:/run/x/y.sock"), row("数据库-一")]
    rows += [row(f"b-{number}") for number in range(100)]
    given = model(*rows, message="", error="late: no answer within 2 s" if height == 20 else "")
    given = replace(given, glyphs=PLAIN) if glyphs == "plain" else given
    lines = shown(given, width, height)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width
    if glyphs == "plain":
        assert "…" not in "".join(lines)


def test_row_says_it_all_in_80_columns():
    """Name, health and for how long, state, connections, rates and the pool's share."""
    line = next(each for each in shown(model(row("10.0.0.1:5432", active=12))) if "10.0.0.1" in each)
    assert line.split() == [
        ">",
        *["web/10.0.0.1:5432", "up", "3m", "enabled", "12", "3.2", "2.0k", "5M", "50%"],
    ]


def test_wide_terminal_has_cause_weight_sparkline_and_times():
    """What 80 columns have no room for."""
    ill = row("a", health="down", address="10.0.0.1:1")
    ill.backend["health"]["cause"] = "connection refused"
    lines = shown(model(ill, row("b")), 200, 40)
    titles = next(line for line in lines if "health" in line).split()
    assert titles == [
        "backend",
        "address",
        "health",
        "for",
        "cause",
        "state",
        "wgt",
        "active",
        "conn/s",
        "in/s",
        "out/s",
        "hit",
        "idle",
        "p99",
        "ms",
    ]
    assert any("connection refused" in line and "▁▅█" in line and "10.0.0.1:1" in line for line in lines[3:])


def test_trouble_is_above_the_rows():
    """What is wrong is explained in a line; what there is no room for is counted."""
    lines = shown(model(row("a", health="down"), row("b")))
    assert lines[2].startswith("DOWN")
    assert "web: 1 of 2: a for 3m" in lines[2]
    few = model(row("a", health="down"), row("b", health="down"), row("c", health="ejected"))
    assert any("2 more: lb-control status" in line for line in shown(few, 80, 10))


def test_chosen_row_stays_in_sight():
    """Wherever it is, and whatever was shown before."""
    rows = [row(f"b-{number:03}") for number in range(500)]
    for at in (0, 7, 250, 499):
        given = model(*rows, chosen=("web", f"b-{at:03}"), first=300)
        lines, first, place = frame(given, 80, 24)
        marked = [line.plain for line in lines if line.plain.startswith(">")]
        assert len(marked) == 1
        assert f"b-{at:03}" in marked[0]
        assert first <= at < first + place
        assert f"{first + 1}-{first + place} of 500" in lines[-1].plain


def test_old_news_is_said_to_be():
    """Without an answer the first line says since when and why, and no row has a colour."""
    given = model(row("a"), answered_s=65.0, error="the daemon: nobody listens")
    lines, *_ = frame(given, 80, 24)
    assert lines[0].plain.startswith(" NO ANSWER since 00:02:00 UTC, 1m: the daemon: nobody listens")
    unchosen = model(row("a"), row("b"), answered_s=4.0)
    line = next(each for each in frame(unchosen, 80, 24)[0] if "web/b" in each.plain)
    assert (line.style, line.spans) == ("dim", [])


def test_rows_of_data_planes_that_are_gone_are_old_news():
    """The daemon answers, but what it tells is from before."""
    rows = [row("a"), row("b", rate=None)]
    body = status(*(each.backend for each in rows))
    given = Model(node_status([Seen("a", "/s", False, "nobody listens", 9.0, body)], ()), rows, NOW)
    lines, *_ = frame(given, 80, 24)
    assert lines[2].plain.startswith("UNREACHABLE")
    assert "9s old" in lines[2].plain
    assert next(each for each in lines if "web/b" in each.plain).style == "dim"


def test_pipe_gets_every_row_and_whole_names():
    """Nothing is shortened, nothing is left out, no clock and no key."""
    rows = [row(LONG), *(row(f"b-{number}") for number in range(99))]
    text = "\n".join(line.plain for line in plain_lines(model(*rows, glyphs=PLAIN)))
    assert LONG in text
    assert text.count("web/") == 100
    assert "q: quit" not in text
    assert text.isascii()


def test_no_backends():
    """A node without any says so."""
    assert "no backends" in shown(model())[-2]


def test_orders():
    """Trouble first by health, the busiest first by rate; names decide the rest."""
    rows = [
        row("d", rate=9.0),
        row("c", health="unknown", rate=None),
        row("b", health="ejected", rate=1.0),
        row("a", health="down", rate=0.0),
        row("e", state="drain", rate=2.0),
    ]
    order = {sort: "".join(each.place[1] for each in ordered(rows, sort)) for sort in SORTS}
    assert order["trouble"] == "abecd"
    assert order["connections"] == "debac"
    assert order["name"] == order["active"] == order["bytes"] == "abcde"
