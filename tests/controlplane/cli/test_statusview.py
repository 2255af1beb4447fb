"""What `status` shows: trouble first with the next command, everything in every width."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from controlplane.cli import output
from controlplane.cli.statusview import details, view
from controlplane.core.merge import Override
from controlplane.core.report import Seen, node_status
from tests.controlplane.core.test_report import SINCE, backend, seen, status

NOW = datetime(2026, 1, 1, 0, 3, 5, tzinfo=UTC)
LONG = "a-rather-long-backend-name-that-somebody-chose.example.internal:15432"


def printed(report, width=80, **more):
    """Return what is printed on so many columns."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    console.print(view(report, width, NOW, **more))
    return console.file.getvalue()


def troubled():
    """Make a node where much is wrong."""
    down = backend(LONG, health="down")
    down["health"]["cause"] = "connection refused"
    planes = [
        Seen("a", "/run/a.sock", True, status=status(down, backend("b:1"))),
        Seen("b", "/run/b.sock", False, "unreachable: nobody listens", 75.0, status()),
    ]
    source = {"name": "file lb.yaml", "state": "error", "since": None, "last_error": "line 3: nonsense"}
    problem = {"path": "services", "message": "nonsense", "line": 3, "column": 1}
    error = {"path": "lb.yaml", "message": "line 3: nonsense", "details": [problem], "since": SINCE}
    words = [Override("web", "b:1", "weight", 7, "anna", SINCE)]
    return node_status(planes, words, sources=[source], config_error=error)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_every_width_says_everything(width):
    """Long names have lines of their own; what is old, refused or held is in plain sight."""
    text = printed(troubled(), width)
    assert max(map(len, text.splitlines())) <= width
    flat = text.replace("\n", "").replace(" ", "")
    for expected in (
        "NOT CONVERGED",
        "CONFIG ERROR",
        "UNREACHABLE",
        "75 s ago",
        "DOWN",
        LONG,
        "connection refused",
        "b:1",
        "weight 7",
        "anna",
        "$ lb-control validate lb.yaml",
    ):
        assert expected.replace(" ", "") in flat


def test_trouble_comes_before_what_is_well():
    """First the sentence with its command below; then the troubled service and in it the troubled backend."""
    body = status(backend("a:1"), backend("z:1", health="down"))
    body["services"] = {"quiet": status(backend("q:1"))["services"]["web"], **body["services"]}
    lines = printed(node_status([seen(body)], ())).splitlines()
    assert lines[1].split()[:3] == ["DOWN", "web:", "1"]
    assert lines[2].strip() == "$ nc -zvw 3 z 1"
    order = [
        line.split()[0]
        for line in lines
        if line.split()[:1] in (["web"], ["quiet"], ["a:1"], ["z:1"], ["q:1"])
    ]
    assert order == ["web", "z:1", "a:1", "quiet", "q:1"]


def test_commands_are_whole_lines(capsys):
    """What is there to be copied is not broken, however long the path and narrow the terminal."""
    place = "/" + "a-long-directory/" * 8 + "lb.yaml"
    error = {"path": place, "message": "a: cannot listen", "details": [], "since": SINCE}
    report = node_status([seen(status(backend()))], (), config_error=error)
    output.render(view(report, 80, NOW))
    assert f"              $ lb-control plan {place}\n" in capsys.readouterr().out
    # On a screen that is written again it would be cut instead.
    lines = printed(report, 80, narrow=True).splitlines()
    assert max(map(len, lines)) <= 80
    assert place in "".join(line.strip() for line in lines)


def test_what_is_wrong_is_said_once():
    """The tables refer to the sentence above them: an error in a narrow column would be cut into pieces."""
    text = printed(troubled())
    assert text.count("nobody listens") == 1
    assert text.count("nonsense") == 1
    assert text.count("see above") == 2


@pytest.mark.parametrize(("workers", "shown"), [((1, 1), False), ((1, 2), True)])
def test_skew_is_a_column_where_there_are_several_workers(workers, shown):
    """One worker has all connections: there is nothing to be skewed."""
    planes = [seen(status(backend(), workers=count), name) for count, name in zip(workers, "ab", strict=True)]
    text = printed(node_status(planes, ()))
    assert ("skew" in text, "1.50" in text) == (shown, shown)


def test_figures_of_all_services_are_in_one_set_of_columns():
    """Whatever the lengths of names, the word for health begins in one column."""
    body = status(backend("a:1"), backend("a-longer-name:1"))
    body["services"]["mail"] = status(backend("m:1"))["services"]["web"]
    lines = [line for line in printed(node_status([seen(body)], ())).splitlines() if " up " in line]
    assert len({line.index(" up ") for line in lines}) == 1
    assert len(lines) == 3


def test_all_is_well():
    """A quiet node says so."""
    assert "nothing needs attention" in printed(node_status([seen(status(backend()))], ()))


def test_without_a_daemon_it_is_said_who_answered():
    """What a daemon would know is missing then."""
    assert "no daemon runs" in printed(node_status([seen(status(backend()))], ()), direct=True)


def test_names_cannot_rewrite_the_terminal():
    """Control characters of discovery are shown."""
    assert "\x1b" not in printed(
        node_status([seen(status(backend("\x1b[2Jx", health="down"), backend()))], ())
    )


WATCH = {
    "name": "consul:web",
    "services": ["web", "api"],
    "last_error": None,
    "index": 42,
    "age_s": 1.6,
    "source": "consul",
    "counts": {"passing": 3, "critical": 0, "rejected": 1},
    "rejected": [{"id": "n1/bad", "why": "port 70000"}],
    "warnings": [],
    "held": None,
}


def test_a_watch():
    """Counts, index, age, and each rejected instance with its reason."""
    assert list(details(WATCH)) == [
        "3 passing, 1 rejected, for web, api",
        "index 42, answered 2 s ago",
        "rejected n1/bad: port 70000",
    ]


def test_what_is_held_and_why():
    """A hold names what is missing, the reason and its end."""
    held = {"why": "shrink", "missing": ["n1/a", "n1/b"], "count": 2, "seen": 1, "ends_in_s": 12.4}
    line = next(details({**WATCH, "held": held}))
    assert line == "held for 12 s more: 2 missing (too many vanished at once): n1/a, n1/b"
    many = [f"n1/{number}" for number in range(20)]
    line = next(details({**WATCH, "held": {**held, "missing": many, "count": 120, "ends_in_s": None}}))
    assert line.startswith("held until somebody says --force: 120 missing")
    assert line.endswith("n1/7 and 112 more")


def test_errors_come_first():
    """The last error is the first line; a saved set says that nobody has confirmed it."""
    lines = list(details({**WATCH, "last_error": "unreachable: x", "source": "saved", "age_s": None}))
    assert lines[:2] == [
        "unreachable: x",
        "not confirmed yet: what was known before the daemon started",
    ]
    assert "index 42, never answered" in lines


def test_long_lists_end():
    """Of many rejected instances some are named, and the rest counted."""
    many = [{"id": f"n{number}", "why": "no"} for number in range(11)]
    lines = list(details({**WATCH, "rejected": many}))
    assert lines[-2:] == ["rejected n7: no", "3 more rejected"]


def test_other_sources():
    """A file has its note; registration its names."""
    assert list(details({"last_error": None, "note": "so"})) == ["so"]
    assert list(details({"last_error": None, "registered": []})) == ["registered: nothing"]
    assert list(details({"last_error": None, "registered": ["a", "b"]})) == ["registered: a, b"]
    left_out = [{"service": "web", "address": "127.0.0.1:4000", "why": "why"}]
    assert list(details({"last_error": None, "registered": ["a"], "left_out": left_out})) == [
        "registered: a",
        "not registered: web on 127.0.0.1:4000: why",
    ]


def test_limits_that_nodes_share():
    """As they are written, by how many they are divided, what is left here; a number that is not known is said to be so."""
    limits = {
        "web": {
            "connections": {"limit": 1_000_000, "here": 333_333},
            "client_rate": {"limit": 2.5, "here": 1.0},
        }
    }
    report = node_status([seen(status(backend("b:1")))], ()) | {"share": {"nodes": 3, "limits": limits}}
    lines = [line.split() for line in printed(report).splitlines()]
    assert ["web", "connections", "1000000", "3", "333333"] in lines
    assert ["web", "client_rate", "2.5", "3", "1"] in lines
    assert "not known yet" in printed(report | {"share": {"nodes": None, "limits": limits}})


def test_certificates_stand_below_their_service():
    """Whom they are for, when they end, and whether the newest is in use."""
    body = status(backend("a:1"))
    common = {"cert": "/a.pem", "key_type": "ecdsa", "key_readable_by_all": False, "not_renewed": ""}
    body["services"]["web"]["certificates"] = [
        {**common, "place": "tls.certificates[0]", "names": ["a.example"], "ends": "2026-02-01T00:03:05Z"},
        {
            **common,
            "place": "backend_tls",
            "names": ["us.example"],
            "ends": "2026-01-03T00:03:05Z",
            "not_renewed": "/k is no good",
        },
    ]
    lines = printed(node_status([seen(body)], ())).splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("web  "))
    assert lines[at + 1] == "  certificate a.example  ends in 31d  ecdsa  tls.certificates[0]"
    assert lines[at + 2] == "  certificate us.example  ends in 2d  NOT RENEWED  ecdsa  backend_tls"


def test_which_clients_of_a_shared_listener_a_service_takes():
    """Names, protocols and networks, of which many are cut short; a service for everybody says nothing."""
    report = node_status([Seen("a", "/run/a.sock", True, status=status(backend("b:1")))], [])
    service = report["services"]["web"]
    assert "  rr  127.0.0.1:1  1 active" in printed(report, 200)
    service["match"] = {
        "sni": ["a.example", "b.example", "c.example", "d.example"],
        "alpn": ["h2"],
        "source": [],
    }
    assert " for a.example, b.example, c.example, ... offering h2  " in printed(report, 200)
