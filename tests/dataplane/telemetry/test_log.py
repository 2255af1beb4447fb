"""One event, one line: at the level that it deserves, with nothing in it that writes to a terminal by itself."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataplane.telemetry.log import WARNINGS, event_writer


class Lines:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, line: bytes) -> None:
        """Keep a line."""
        self.written.append(line)


@pytest.fixture
def lines() -> Lines:
    """A sink."""
    return Lines()


def told(lines: Any, form: str, kind: str, **fields: Any) -> str:
    """Return the one line of an event."""
    event_writer(lines, form)(kind, **fields)
    (line,) = lines.written
    assert line.endswith(b"\n")
    return str(line.decode())


@pytest.mark.parametrize(("kind", "level"), [("backend_down", "warning"), ("backend_up", "info")])
def test_an_event_is_one_object_with_its_level_and_time(lines: Lines, kind: str, level: str) -> None:
    """What somebody should look at is a warning."""
    said = json.loads(told(lines, "json", kind, backend="a"))
    assert (said.pop("at")[-1], said) == ("Z", {"event": kind, "level": level, "backend": "a"})


@pytest.mark.parametrize("form", ["json", "text"])
def test_no_field_writes_lines_or_colours(lines: Lines, form: str) -> None:
    """What a client or backend has said cannot end the line or move a cursor."""
    line = told(lines, form, "unhandled", said="a\nb\x1b[31m")
    assert line.count("\n") == 1
    assert "\x1b" not in line


def test_warnings_are_events() -> None:
    """Each is one word as the log writes it."""
    assert all(kind.replace("_", "").isalpha() and kind.islower() for kind in WARNINGS)
