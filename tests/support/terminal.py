"""A program in a terminal: a real pseudo-terminal, and what an xterm would show of what comes out of it."""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from tests.support.programs import require
from tests.support.wait import wait_for

ENDING_S: Final = 10.0
_CODE: Final = re.compile(r"\x1b\[([?>=]?)([0-9;]*)([A-Za-z])")
_READ: Final = 65536


@dataclass(frozen=True, slots=True)
class Cell:
    """One character and how it looks: the parameters of its SGR codes since the last reset."""

    char: str = " "
    style: tuple[int, ...] = ()


class Screen:
    """Understands what our live views write: text, newlines, positions, erasing, styles and modes.

    Args:
        width: Columns.
        height: Lines.
    """

    def __init__(self, width: int, height: int) -> None:
        self.modes: set[int] = set()
        """Private modes that are on; 1049 is the alternate screen, 25 a cursor that shows, from the start."""
        self.modes.add(25)
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """Become this large, and empty."""
        self.width, self.height = width, height
        self.cells = [[Cell()] * width for _ in range(height)]
        self._x = self._y = 0
        self._style: tuple[int, ...] = ()
        self._pending = ""

    @property
    def lines(self) -> list[str]:
        """The text of each line."""
        return ["".join(cell.char for cell in line).rstrip() for line in self.cells]

    def feed(self, text: str) -> None:
        """Show more output, however it was cut."""
        text = self._pending + text
        at = 0
        while at < len(text):
            if text[at] != "\x1b":
                self._put(text[at])
                at += 1
                continue
            code = _CODE.match(text, at)
            if code is None:
                break
            self._obey(code[1], [int(each or 0) for each in code[2].split(";")], code[3])
            at = code.end()
        self._pending = text[at:]

    def _put(self, char: str) -> None:
        if char == "\r":
            self._x = 0
        elif char == "\n":
            if self._y == self.height - 1:
                self.cells = [*self.cells[1:], [Cell()] * self.width]
            else:
                self._y += 1
        else:
            if self._x == self.width:  # the wrap waits for the next character
                self._put("\r")
                self._put("\n")
            self.cells[self._y][self._x] = Cell(char, self._style)
            self._x += 1

    def _obey(self, private: str, numbers: list[int], letter: str) -> None:
        if private:
            (self.modes.update if letter == "h" else self.modes.difference_update)(numbers)
        elif letter == "H":
            row, column = (*numbers, 1, 1)[:2]
            self._y, self._x = min(max(row, 1), self.height) - 1, min(max(column, 1), self.width) - 1
        elif letter == "J":
            self.cells = [[Cell()] * self.width for _ in range(self.height)]
        elif letter == "K":
            # xterm: with a wrap pending the cursor still stands on the last column.
            at = min(self._x, self.width - 1)
            self.cells[self._y][at:] = [Cell()] * (self.width - at)
        elif letter == "m":
            after = [] if 0 in numbers else list(self._style)
            self._style = (*after, *(each for each in numbers if each))


class Terminal:
    """One program in a terminal of its own.

    Args:
        argv: The command.
        environment: The whole environment.
        width: Columns.
        height: Lines.
    """

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], *, width: int = 80, height: int = 24
    ) -> None:
        self.screen = Screen(width, height)
        self.raw = b""
        self._master, self._slave = pty.openpty()
        self.attributes = termios.tcgetattr(self._slave)
        """As they were before the program."""
        self._set_size(width, height)
        self._process = subprocess.Popen(
            [require("setsid"), "--ctty", *argv],  # so that Ctrl-C reaches the program
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={"TERM": "xterm-256color", "LANG": "C.UTF-8", **environment},
        )
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._slave)
        self._reader.join()
        os.close(self._master)

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with contextlib.suppress(OSError):  # the last one has closed the terminal
            while data := os.read(self._master, _READ):
                with self._lock:
                    self.raw += data
                    self.screen.feed(decoder.decode(data))

    def _set_size(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    @property
    def now(self) -> list[Any]:
        """The terminal's attributes now."""
        return termios.tcgetattr(self._slave)

    @property
    def text(self) -> str:
        """What the screen shows."""
        with self._lock:
            return "\n".join(self.screen.lines)

    def cells(self) -> list[list[Cell]]:
        """Return what the screen shows, with styles."""
        with self._lock:
            return [list(line) for line in self.screen.cells]

    def resize(self, width: int, height: int) -> None:
        """Make the window this large; the program is told."""
        with self._lock:
            self.screen.resize(width, height)
        self._set_size(width, height)

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self._master, keys.encode())

    def send_signal(self, number: signal.Signals) -> None:
        """Send the program a signal."""
        self._process.send_signal(number)

    def wait_text(self, wanted: str) -> None:
        """Wait until the screen shows this."""
        try:
            wait_for(lambda: wanted in self.text, f"{wanted!r} on the screen")
        except AssertionError as error:
            msg = f"{error}:\n{self.text}"
            raise AssertionError(msg) from None

    def wait_end(self) -> int:
        """Wait until the program has ended, and return its exit code."""
        return self._process.wait(ENDING_S)
