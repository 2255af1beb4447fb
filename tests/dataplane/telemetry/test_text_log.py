"""The log for people."""

from __future__ import annotations

from typing import Any

from dataplane.telemetry.text_log import text_writer


class Lines:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, line: bytes) -> None:
        """Keep a line."""
        self.written.append(line)


def told(kind: str, **fields: Any) -> str:
    """Return the one line of an event."""
    lines: Any = Lines()
    text_writer(lines, {"panic"})(kind, **fields)
    (line,) = lines.written
    return str(line.decode())


def test_text_is_for_people() -> None:
    """Words and not an object; no colours where there is no terminal."""
    line = told("panic", service="web")
    assert line.split()[1:] == ["[warning", "]", "panic", "service=web"]


def test_half_a_character_is_written_all_the_same() -> None:
    """A name of a file that is not UTF-8 has come as a lone surrogate."""
    assert "udcff" in told("dropped", path="/\udcff")


def test_the_others_are_no_warnings() -> None:
    """Of the kinds that it is told."""
    assert told("backend_up", backend="a").split()[1:] == ["[info", "]", "backend_up", "backend=a"]
