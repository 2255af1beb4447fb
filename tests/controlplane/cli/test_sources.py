"""Sources for people: what is out of order is said first, and nothing is too long to read."""

from __future__ import annotations

from controlplane.cli.sources import details

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
