"""The terminal while a live view has it, in this process: frames, keys, and everything as before. Ctrl-Z: tests/integration/test_top.py."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import termios
import threading
from types import SimpleNamespace

import pytest
from rich.console import Console
from rich.text import Text

from controlplane.cli import screen as module
from controlplane.cli.screen import Screen, keys_of, possible
from tests.support.terminal import Screen as Shown

WIDTH, HEIGHT = 20, 4
MARK = b"#"


class Terminal:
    """A pseudo-terminal that is this process's input and output."""

    def __init__(self, master, slave, stdin, stdout):
        self.master, self.slave = master, slave
        self.stdin, self.stdout = stdin, stdout
        self.shown = Shown(WIDTH, HEIGHT)

    def console(self, **environment):
        """Return what writes to it."""
        environment = {"TERM": "xterm", **environment}
        return Console(file=self.stdout, width=WIDTH, height=HEIGHT, _environ=environment)

    def written(self):
        """Return what was written since the last time; it is shown, too."""
        os.write(self.slave, MARK)
        data = b""
        while not data.endswith(MARK):
            data += os.read(self.master, 65536)
        data = data.removesuffix(MARK)
        self.shown.feed(data.decode())
        return data.decode()

    def press(self, keys):
        """Type."""
        os.write(self.master, keys)


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 20 columns and 4 lines."""
    master, slave = pty.openpty()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, slave)
        stdin = stack.enter_context(os.fdopen(os.dup(slave)))
        stdout = stack.enter_context(os.fdopen(os.dup(slave), "w"))
        # Not those of the whole process: pytest puts its own there before each test.
        monkeypatch.setattr(module, "sys", SimpleNamespace(stdin=stdin, stdout=stdout))
        yield Terminal(master, slave, stdin, stdout)
        with contextlib.suppress(OSError):
            os.close(master)


@pytest.fixture
def screen(terminal):
    """The terminal, taken."""
    with Screen(terminal.console()) as screen:
        terminal.written()
        yield screen


def lines(*texts):
    """Make a frame."""
    return [Text(each) for each in texts]


def test_keys_that_come_together_are_told_apart():
    """Three bytes of an arrow are one key, in both modes of the keypad."""
    assert keys_of(b"j\x1b[A\x1bOBq\x1b[5~\x1b") == [b"j", b"\x1b[A", b"\x1bOB", b"q", b"\x1b[5~", b"\x1b"]


def test_only_what_differs_is_written(terminal, screen):
    """In one synchronised update; the same frame again writes nothing."""
    screen.show(lines("one", "two", "three"))
    first = terminal.written()
    assert (first.count("\x1b[?2026h"), first.endswith("\x1b[?2026l")) == (1, True)
    assert terminal.shown.lines == ["one", "two", "three", ""]
    screen.show(lines("one", "TWO", "three"))
    assert [word in terminal.written() for word in ("one", "three")] == [False, False]
    assert terminal.shown.lines == ["one", "TWO", "three", ""]
    screen.show(lines("one", "TWO", "three"))
    assert terminal.written() == ""


def test_a_shorter_frame_leaves_nothing_behind(terminal, screen):
    """Neither lines nor the end of one."""
    screen.show(lines("a long line", "two", "three"))
    screen.show(lines("short"))
    terminal.written()
    assert terminal.shown.lines == ["short", "", "", ""]


def test_what_does_not_fit_is_left_out(terminal, screen):
    """A line that just fits is whole, its last column included."""
    full = "x" * WIDTH
    screen.show(lines(full, full + "y", "3", "4", "5"))
    terminal.written()
    assert terminal.shown.lines == [full, full, "3", "4"]


def test_a_new_size_is_noticed_and_filled_again(terminal, screen):
    """Whoever waits for keys is woken, and what the terminal has made of the old frame is erased."""
    screen.show(lines("one"))
    terminal.written()
    screen._console.size = (WIDTH + 5, HEIGHT + 1)
    terminal.shown.resize(WIDTH + 5, HEIGHT + 1)
    signal.raise_signal(signal.SIGWINCH)
    assert screen.wait(20.0) == []
    assert screen.size == (WIDTH + 5, HEIGHT + 1)
    screen.show(lines("one"))
    assert "\x1b[2J" in terminal.written()
    assert terminal.shown.lines[0] == "one"


def test_keys_come_as_they_are_pressed(terminal, screen):
    """Without a line's end, and nothing is shown of them; without a key the time passes."""
    assert screen.wait(0.0) == []
    terminal.press(b"j\x1b[A")
    assert screen.wait(20.0) == [b"j", b"\x1b[A"]
    assert terminal.written() == ""


def test_another_thread_wakes_who_waits(screen):
    """Once for all that it has to tell."""
    thread = threading.Thread(target=lambda: [screen.wake() for _ in range(3)])
    thread.start()
    thread.join()
    assert screen.wait(20.0) == []
    assert screen.wait(0.0) == []


def test_nobody_is_left_to_press_a_key(terminal, screen):
    """The terminal was closed: that is no wait without end, and no error at the end."""
    os.close(terminal.master)
    assert screen.wait(20.0) is None


def test_the_terminal_is_as_before(terminal):
    """The usual screen, a cursor, keys that echo, and the signals of whoever had them."""
    attributes = termios.tcgetattr(terminal.slave)
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH, signal.SIGTSTP)
    handlers = [signal.getsignal(number) for number in numbers]
    with Screen(terminal.console()) as screen:
        terminal.written()
        assert terminal.shown.modes == {1049}
        assert termios.tcgetattr(terminal.slave) != attributes
        assert [signal.getsignal(number) for number in numbers] != handlers
    terminal.written()
    assert terminal.shown.modes == {25}
    assert termios.tcgetattr(terminal.slave) == attributes
    assert [signal.getsignal(number) for number in numbers] == handlers
    assert signal.set_wakeup_fd(-1) == -1
    screen.wake()  # a thread that is late wakes nobody


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(terminal, number):
    """With the exit code of a program that was ended so."""
    attributes = termios.tcgetattr(terminal.slave)
    with pytest.raises(SystemExit) as caught, Screen(terminal.console()):
        signal.raise_signal(number)
    assert caught.value.code == 128 + number
    terminal.written()
    assert terminal.shown.modes == {25}
    assert termios.tcgetattr(terminal.slave) == attributes


def test_where_it_can_be(terminal, monkeypatch, tmp_path):
    """A terminal that can be written to in place, and keys read from; a pipe on either side is none."""
    assert possible(terminal.console())
    assert not possible(terminal.console(TERM="dumb"))
    with (tmp_path / "file").open("w+") as file:
        assert not possible(Console(file=file))
        for side in ("stdin", "stdout"):
            with monkeypatch.context() as patched:
                patched.setattr(module.sys, side, file)
                assert not possible(terminal.console())
