"""How results look: safe to print, one line for each change, 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from controlplane.cli import output
from controlplane.cli.status import view as status_view
from controlplane.cli.top import Selection, connect_buckets, key_action
from controlplane.cli.top import view as top_view
from controlplane.core.rates import Row
from controlplane.core.report import Seen, node_status
from tests.controlplane.core.test_report import backend, status


def printed(renderable):
    """Print something on 80 columns."""
    console = Console(file=io.StringIO(), width=80, highlight=False, markup=False)
    console.print(renderable)
    return console.file.getvalue()


def test_control_characters_are_shown_and_not_obeyed():
    """An error message from elsewhere cannot rewrite the terminal."""
    assert output.plain("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"action": "add", "kind": "service", "service": "web"}, "+ service web"),
        (
            {"action": "remove", "kind": "listener", "service": "web", "address": "127.0.0.1:1"},
            "- listener web 127.0.0.1:1",
        ),
        (
            {
                "action": "change",
                "kind": "backend",
                "service": "web",
                "id": "a",
                "fields": {"weight": {"from": 1, "to": 2}, "state": {"from": "enabled", "to": "drain"}},
            },
            "~ backend web/a  weight: 1 -> 2, state: enabled -> drain",
        ),
    ],
)
def test_change_is_one_line(change, line):
    """Sign, kind, place, and the fields with their values before and after."""
    assert output.change_line(change) == line


def test_status_fits_80_columns_and_says_what_is_wrong():
    """Long names wrap; what is old, refused or held is in plain sight."""
    long = "a-rather-long-backend-name-that-somebody-chose.example.internal:15432"
    seen = [
        Seen("a", "/run/a.sock", True, status=status(backend(long, health="down"), backend("b:1"))),
        Seen("b", "/run/b.sock", False, "unreachable: nobody listens", 75.0, status()),
    ]
    source = {"name": "file lb.yaml", "state": "error", "since": None, "last_error": "line 3: nonsense"}
    error = {
        "path": "lb.yaml",
        "message": "line 3: nonsense",
        "details": [],
        "since": "2026-01-01T00:00:00.000Z",
    }
    text = printed(status_view(node_status(seen, (), sources=[source], config_error=error)))
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("NOT CONVERGED", "75 s ago", "nobody", "listens", "CONFIG ERROR", "down"):
        assert expected in text


def test_top_shows_rates_and_marks_the_chosen_row():
    """One row for each backend, within 80 columns."""
    row = Row("web", "10.0.0.1:5432", "enabled", "up", 12, 3.25, 2048.0, 5e6, 0.5, 0.0125)
    lines = printed(top_view([row, row], Selection(index=1))).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith(">")
    assert lines[1].split() == [
        "web/10.0.0.1:5432",
        "enabled",
        "up",
        "12",
        "3.2",
        "2k",
        "4.77M",
        "50%",
        "12.5",
    ]


def test_top_moves_within_its_rows():
    """The choice stops at both ends, also when rows vanish."""
    chosen = Selection().moved("up", 3)
    assert chosen.index == 0
    for _ in range(5):
        chosen = chosen.moved("down", 3)
    assert chosen.index == 2
    assert chosen.moved("", 1).index == 0
    assert chosen.moved("down", 0).index == 0


def test_top_knows_its_keys():
    """Arrows and letters; anything else does nothing."""
    assert [key_action(key) for key in (b"\x1b[A", b"j", b"d", b"e", b"q", b"x")] == [
        "up",
        "down",
        "drain",
        "enabled",
        "quit",
        None,
    ]


def test_times_to_connect_are_added_up_over_data_planes():
    """Buckets of the same backend are summed bound by bound; other metrics are none of ours."""
    text = (
        "# TYPE lb_connect_seconds histogram\n"
        'lb_connect_seconds_bucket{service="web",backend="a",le="0.001"} 1\n'
        'lb_connect_seconds_bucket{service="web",backend="a",le="+Inf"} 3\n'
        'lb_connect_seconds_count{service="web",backend="a"} 3\n'
        'lb_connect_seconds_sum{service="web",backend="a"} 0.1\n'
        "# TYPE lb_pool_idle gauge\nlb_pool_idle 4\n"
    )
    assert connect_buckets([text, text]) == {("web", "a"): [(0.001, 2.0), (float("inf"), 6.0)]}
