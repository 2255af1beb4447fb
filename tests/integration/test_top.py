"""`lb-control top` and `status --watch` in a real terminal, with a real daemon and a real data plane."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.backends import LineServer
from tests.support.clients import dial
from tests.support.dataplane import DataPlane, command
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.terminal import Terminal
from tests.support.wait import wait_for

pytestmark = pytest.mark.needs("setsid")

CHECKED = {"active": {"type": "tcp", "interval": "200ms", "timeout": "200ms", "fall": 1, "rise": 1}}
ALTERNATE = 1049
CURSOR = 25
CTRL_C = "\x03"
CTRL_Z = "\x1a"


@pytest.fixture
def address() -> Iterator[str]:
    """An address to listen on."""
    with HeldPort() as port:
        yield port.address


@pytest.fixture
def control(tmp_path_factory) -> Control:
    """Commands in directories of their own."""
    return Control(tmp_path_factory.mktemp("d"))


@pytest.fixture
def plane(control) -> Iterator[DataPlane]:
    """One data plane."""
    with DataPlane(name="a", runtime_dir=control.runtime_dir) as plane:
        yield plane


@contextlib.contextmanager
def daemon(control: Control, content: object) -> Iterator[Daemon]:
    """Run the daemon until it has applied this."""
    with Daemon(control, control.write(content)) as running:
        control.wait_status(lambda status: status["converged"] and status["generation"] >= 1)
        yield running


def top(control: Control, *arguments: str, width: int = 100, **environment: str) -> Terminal:
    """Start `lb-control top`, or another command, in a terminal."""
    argv = [command("lb-control"), *(arguments or ("top",))]
    return Terminal(argv, {**control.environment, **environment}, width=width, height=24)


def in_order(terminal: Terminal) -> None:
    """Check that the terminal is as it was before."""
    assert terminal.now == terminal.attributes
    assert terminal.screen.modes == {CURSOR}


def test_refused_clients_are_the_first_thing(control, address, plane):
    """What clients met in the last minute is said, though every backend looks well."""
    with daemon(control, document(address, "127.0.0.1:1")), top(control) as shown:
        shown.wait_text("1 of 1 serving")
        for _ in range(3):
            with dial(address) as client:
                assert client.recv(1) == b""
        shown.wait_text("NOT SERVED")
        shown.wait_text("web: 3 of 3 clients in the last minute were refused: connect_failed")


def test_what_changes_is_shown(control, address, plane):
    """Traffic, and health with its cause."""
    with LineServer("one") as one, LineServer("two") as two, contextlib.ExitStack() as stack:
        backends = [{"id": each.name, "address": each.address} for each in (one, two)]
        stack.enter_context(daemon(control, document(address, *backends, health=CHECKED)))
        shown = stack.enter_context(top(control))
        shown.wait_text("2 of 2 serving")
        assert ALTERNATE in shown.screen.modes
        assert CURSOR not in shown.screen.modes
        with Load(address, rate=50, flows=2):
            shown.wait_text("kB/s in")
            shown.wait_text("█")
        two.stop()
        shown.wait_text("DOWN          web: 1 of 2: two")
        shown.wait_text("connection refused")


def test_operator_drains_and_enables_by_key(control, address, plane):
    """The question before a drain says whom it hits; the choice stays with its backend when the order changes."""

    def chosen(name: str) -> None:
        wait_for(lambda: any(line.startswith(f"> web/{name}") for line in shown.screen.lines), "the choice")

    backends = [{"id": key, "address": f"127.0.0.1:{port}"} for key, port in (("one", 1), ("two", 2))]
    with daemon(control, document(address, *backends)), top(control) as shown:
        shown.wait_text("web/two")
        shown.press("j")
        chosen("two")
        shown.press("d")
        shown.wait_text("1 other serves")
        shown.press("n")
        shown.wait_text("q: quit")
        assert plane.backend("web", "two")["state"] == "enabled"
        shown.press("dy")
        shown.wait_text("drain*")
        assert plane.backend("web", "two")["state"] == "drain"
        chosen("two")
        shown.press("jd")
        shown.wait_text("NO OTHER SERVES")
        shown.press("nke")
        wait_for(lambda: plane.backend("web", "two")["state"] == "enabled", "the backend to be enabled")
        shown.press("s")
        shown.wait_text("web/two: enabled")
        shown.press("q")
        assert shown.wait_end() == 0
        in_order(shown)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda shown: shown.press(CTRL_C), 0),
        (lambda shown: shown.send_signal(signal.SIGTERM), 128 + signal.SIGTERM),
        (lambda shown: shown.send_signal(signal.SIGHUP), 128 + signal.SIGHUP),
    ],
    ids=["ctrl-c", "sigterm", "sighup"],
)
@pytest.mark.parametrize("arguments", [("top",), ("status", "--watch")], ids=["top", "watch"])
def test_terminal_is_as_before_however_it_ends(control, address, plane, arguments, end, code):
    """The usual screen, a cursor, and keys that echo."""
    with daemon(control, document(address, "127.0.0.1:1")), top(control, *arguments) as shown:
        shown.wait_text("converged")
        end(shown)
        assert shown.wait_end() == code
        in_order(shown)


@pytest.mark.needs("bash")
def test_stopped_view_gives_the_terminal_back_and_takes_it_again(control, address, plane):
    """Ctrl-Z shows the shell's screen; `fg` the view. Only a shell with job control lets a program stop."""
    script = f"{command('lb-control')} top; echo stopped; read -r _; fg"
    shell = Terminal(["bash", "-mc", script], control.environment)
    with daemon(control, document(address, "127.0.0.1:1")), shell as shown:
        shown.wait_text("converged")
        shown.press(CTRL_Z)
        shown.wait_text("stopped")
        in_order(shown)
        shown.press("\r")
        wait_for(lambda: ALTERNATE in shown.screen.modes, "the view again")
        shown.wait_text("converged")
        shown.press("q")
        assert shown.wait_end() == 0
        in_order(shown)


def test_window_that_changes_is_filled_again(control, address, plane):
    """From 100 columns to 60 and back: columns go and come."""
    with daemon(control, document(address, "127.0.0.1:1")), top(control) as shown:
        shown.wait_text("in/s")
        shown.resize(60, 15)
        wait_for(lambda: "conn/s" in shown.text and "in/s" not in shown.text, "the narrow view")
        shown.resize(120, 30)
        shown.wait_text("p99 ms")
        shown.press("q")
        assert shown.wait_end() == 0


def test_nothing_is_written_twice(control, address, plane):
    """A frame writes the lines that differ, so that nothing flickers; the screen is erased once."""
    with daemon(control, document(address, "127.0.0.1:1", "127.0.0.1:2")), top(control) as shown:
        shown.wait_text("web/127.0.0.1:2")
        begun = shown.raw.count(b"\x1b[?2026h")
        wait_for(lambda: shown.raw.count(b"\x1b[?2026h") > begun + 2, "three more frames")
        assert shown.raw.count(b"\x1b[2J") == 2  # when the screen was taken, and before the first frame
        frames = shown.raw.split(b"\x1b[?2026h")[2:]
        assert all(b"q: quit" not in each for each in frames[1:])


def test_old_news_is_told_from_new(control, address, plane):
    """A data plane that hangs is named with the age of its figures; so is a daemon that does."""
    with daemon(control, document(address, "127.0.0.1:1")) as running, top(control) as shown:
        shown.wait_text("converged")
        plane.send_signal(signal.SIGSTOP)
        try:
            shown.wait_text("UNREACHABLE")
            shown.wait_text("its figures are")
        finally:
            plane.send_signal(signal.SIGCONT)
        wait_for(lambda: "UNREACHABLE" not in shown.text, "the data plane")
        running.send_signal(signal.SIGSTOP)
        try:
            shown.wait_text("NO ANSWER since")
            shown.press("s")
            shown.wait_text("sort (connections)")
        finally:
            running.send_signal(signal.SIGCONT)
        wait_for(lambda: "NO ANSWER" not in shown.text, "the daemon")


def test_without_a_daemon_the_data_planes_are_asked(control, address, plane):
    """The view says so, and goes on through the end of a daemon."""
    with daemon(control, document(address, "127.0.0.1:1")) as running, top(control) as shown:
        shown.wait_text("converged")
        assert "no daemon" not in shown.text
        running.stop()
        shown.wait_text("no daemon: asking directly")
        plane.stop()
        shown.wait_text("NO ANSWER since")
        shown.press("q")
        assert shown.wait_end() == 0


def test_in_a_pipe_and_on_a_dumb_terminal_it_shows_everything_once(control, address, plane):
    """Every backend with its whole name, no escape codes, exit 0."""
    names = [f"a-backend-with-a-rather-long-name.example.internal:{number}" for number in range(1, 40)]
    with daemon(control, document(address, *({"id": each, "address": f"{each}"} for each in names))):
        piped = control("top")
        assert (piped.code, piped.err) == (0, "")
        assert all(each in piped.out for each in names)
        assert "\x1b" not in piped.out
        with top(control, TERM="dumb", width=300) as shown:
            assert shown.wait_end() == 0
            wait_for(lambda: names[-1] in shown.text, "the last backend")
            assert b"\x1b" not in shown.raw


def test_no_color(control, address, plane):
    """NO_COLOR leaves bold, dim and reverse; nothing has a colour."""
    with daemon(control, document(address, "127.0.0.1:1")), top(control, NO_COLOR="1") as shown:
        shown.wait_text("no backend" if "no backend" in shown.text else "converged")
        shown.wait_text("web/127.0.0.1:1")
        styles = {code for line in shown.cells() for cell in line for code in cell.style}
        assert styles
        assert not any(code >= 30 for code in styles)


def test_nobody_answers(control):
    """At the start that is an error, not a view."""
    done = control("top")
    assert done.code == 1
    assert "no data plane found" in done.err
