"""The terminal while a live view has it: whole frames in, keys out, and everything as before at the end.

Theory of operation:

1. A frame is a list of lines. Only those that differ from the last frame are written, in one write, between the
   marks of a synchronised update (terminals that do not know them ignore them): nothing flickers.
2. The alternate screen, the hidden cursor and the unbuffered keys are taken together and given back together: at
   the end, however it comes, and while the program is stopped (Ctrl-Z).
3. SIGTERM and SIGHUP end the program the usual way, by an exception, so that 2 holds. What only has to be
   noticed (a new size, a stop, a result from elsewhere) writes to a pipe that `wait` watches.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[2J"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_BEGIN: Final = "\x1b[?2026h"
_END: Final = "\x1b[?2026l"
_KEYS: Final = re.compile(rb"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|.", re.DOTALL)
_BLANK: Final = "\x1b[K"
_READ: Final = 4096
_FATAL: Final[tuple[int, ...]] = (signal.SIGTERM, signal.SIGHUP)


def possible(console: Console) -> bool:
    """Tell whether there is a terminal that can be written to in place, and read keys from."""
    return console.is_terminal and not console.is_dumb_terminal and sys.stdin.isatty() and sys.stdout.isatty()


def keys_of(raw: bytes) -> list[bytes]:
    """Split what a terminal sent into keys; an arrow is three bytes."""
    return _KEYS.findall(raw)


class Screen:
    """The whole terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[str] = []
        self._size = (0, 0)
        self._stop = False
        self._handlers: dict[int, Any] = {}
        self._attributes: list[Any] = []
        self._wake_read, self._wake_write = -1, -1
        self._wakeup_before = -1

    def __enter__(self) -> Self:
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._attributes = termios.tcgetattr(sys.stdin)
        self._wakeup_before = signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        handlers: dict[int, Any] = dict.fromkeys(_FATAL, _ended)
        # Of a new size only the wake-up counts.
        handlers |= {signal.SIGWINCH: lambda *_: None, signal.SIGTSTP: self._on_stop}
        self._handlers = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        for number in _FATAL:  # what comes twice must not end this half way
            signal.signal(number, signal.SIG_IGN)
        self._give_back()
        signal.set_wakeup_fd(self._wakeup_before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._wake_write = -1

    def wake(self) -> None:
        """Make `wait` return; from any thread."""
        with contextlib.suppress(OSError):  # full: it will return anyway; closed: nobody waits
            os.write(self._wake_write, b"\0")

    def wait(self, timeout_s: float) -> list[bytes] | None:
        """Wait for keys, a wake-up, a new size, or that long; None: there is nobody to press a key any more."""
        ready, _, _ = select.select([sys.stdin, self._wake_read], [], [], max(0.0, timeout_s))
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, _READ)
        if self._stop:
            self._pause()
            return []
        if sys.stdin not in ready:
            return []
        raw = os.read(sys.stdin.fileno(), _READ)
        return keys_of(raw) if raw else None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        return self._console.size

    def show(self, lines: Sequence[Text]) -> None:
        """Show a frame; what is more than the terminal holds is left out."""
        width, height = self.size
        out = []
        if (width, height) != self._size:
            self._size = (width, height)
            self._shown = []
            out.append("\x1b[2J")
        texts = [self._rendered(line, width) for line in lines[:height]]
        texts += [""] * (len(self._shown) - len(texts))
        for number, text in enumerate(texts):
            if number >= len(self._shown) or self._shown[number] != text:
                out.append(f"\x1b[{number + 1};1H{text or _BLANK}")
        self._shown = texts
        if out:
            self._write(_BEGIN + "".join(out) + _END)

    def _rendered(self, line: Text, width: int) -> str:
        with self._console.capture() as captured:
            self._console.print(line, end="", no_wrap=True, overflow="crop", crop=True, width=width)
        # After a full line the cursor still stands on its last column: erasing would take that away.
        return captured.get() + ("\x1b[0m\x1b[K" if line.cell_len < width else "\x1b[0m")

    def _write(self, text: str) -> None:
        data = text.encode(sys.stdout.encoding, "replace")
        while data:
            data = data[os.write(sys.stdout.fileno(), data) :]

    def _take(self) -> None:
        tty.setcbreak(sys.stdin)
        self._size = (0, 0)
        self._write(_ENTER)

    def _give_back(self) -> None:
        with contextlib.suppress(OSError, termios.error):  # a terminal that was closed needs nothing back
            self._write(_LEAVE)
            termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, self._attributes)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def _pause(self) -> None:
        """Stop, as Ctrl-Z asks, with the shell's own screen in place."""
        self._stop = False
        self._give_back()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._take()


def _ended(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
