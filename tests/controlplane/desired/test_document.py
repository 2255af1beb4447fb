"""An lb.yaml that a command is given: a file, a pipe or standard input; whoever writes has a deadline and a limit."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.desired import document
from controlplane.desired.document import (
    MAX_BYTES,
    STDIN,
    Given,
    Proposal,
    check_everywhere,
    parse_path,
    placed,
    read_given,
)
from controlplane.errors import InputError, UnidentifiedError, UnreadableError
from schemas.errors import format_path
from schemas.variables import Known, Variables

TEXT = b"version: 1\nservices: {}\n"


@contextlib.contextmanager
def pipe_with(data: bytes, *, closed: bool = True) -> Iterator[Path]:
    """A pipe that holds some bytes, as a shell names it."""
    reader, writer = os.pipe()
    try:
        os.write(writer, data)
        if closed:
            os.close(writer)
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)
        if not closed:
            os.close(writer)


@pytest.fixture
def stdin(monkeypatch):
    """Make a descriptor standard input, for what reads an lb.yaml."""

    def give(handle: int) -> None:
        monkeypatch.setattr(document, "_STDIN", handle)

    return give


def test_a_file(tmp_path):
    """Relative paths in it count from its folder."""
    path = tmp_path / "lb.yaml"
    path.write_bytes(TEXT)
    assert read_given(path) == Given(TEXT, str(path), tmp_path)


def test_a_pipe():
    """What a shell makes of `<(...)`; relative paths count from where the command was started."""
    with pipe_with(TEXT) as path:
        assert read_given(path) == Given(TEXT, str(path), Path())


def test_standard_input(stdin, tmp_path):
    """A pipe, a socket or a file there; all are called `-`."""
    reader, writer = os.pipe()
    os.write(writer, TEXT)
    os.close(writer)
    stdin(reader)
    assert read_given(STDIN) == Given(TEXT, "-", Path())
    os.close(reader)

    near, far = socket.socketpair()
    with near, far:
        far.sendall(TEXT)
        far.shutdown(socket.SHUT_WR)
        stdin(near.fileno())
        assert read_given(STDIN) == Given(TEXT, "-", Path())

    (tmp_path / "lb.yaml").write_bytes(TEXT)
    with (tmp_path / "lb.yaml").open("rb") as file:
        stdin(file.fileno())
        assert read_given(STDIN) == Given(TEXT, "-", Path())
        stdin(file.fileno() + 1000)
    with pytest.raises(InputError, match=r"^-: standard input is closed$"):
        read_given(STDIN)


def test_a_pipe_whose_writer_is_not_there_yet(tmp_path, monkeypatch):
    """A FIFO's end is that of what was written into it, not that nobody writes yet."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    opened = threading.Event()
    real = os.fstat

    def look(handle: int) -> os.stat_result:
        opened.set()
        return real(handle)

    monkeypatch.setattr(document.os, "fstat", look)

    def write() -> None:
        opened.wait()
        path.write_bytes(TEXT)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert read_given(path) == Given(TEXT, str(path), Path())
    finally:
        writer.join()


def test_a_writer_that_is_never_done():
    """Nobody is waited for without end, whether he has written something or nothing."""
    for data in (b"", TEXT):
        with (
            pipe_with(data, closed=False) as path,
            pytest.raises(InputError, match=f"^{path}: has no end after 0.05 s"),
        ):
            read_given(path, deadline_s=0.05)


def test_a_writer_that_has_too_much():
    """More than 1 MiB is not taken in, however much there is."""
    reader, writer = os.pipe()

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            while True:
                os.write(writer, b"#" * 65536)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with pytest.raises(InputError, match="is larger than 1 MiB"):
            read_given(Path(f"/dev/fd/{reader}"))
    finally:
        os.close(reader)
        thread.join()
        os.close(writer)


def test_the_largest_that_is_taken(tmp_path):
    """1 MiB is."""
    path = tmp_path / "lb.yaml"
    path.write_bytes(b"#" * MAX_BYTES)
    assert len(read_given(path).raw) == MAX_BYTES


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device(path):
    """It has no end, or nothing."""
    with pytest.raises(InputError, match=f"^{path}: is neither a file nor a pipe$"):
        read_given(Path(path))


def test_a_terminal(stdin):
    """Who forgot the pipe is told, and not waited for."""
    leader, terminal = os.openpty()
    stdin(terminal)
    with pytest.raises(InputError, match=r"^-: is a terminal"):
        read_given(STDIN)
    os.close(leader)
    os.close(terminal)


def test_what_cannot_be_read(tmp_path):
    """A directory is none, and a missing file is said as the system says it."""
    with pytest.raises(InputError, match="is a directory"):
        read_given(tmp_path)
    with pytest.raises(UnreadableError, match="no such file"):
        read_given(tmp_path / "none")


def test_nothing_stays_open(tmp_path):
    """Neither a file nor a directory that was refused."""
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - names are what is compared
    (tmp_path / "lb.yaml").write_bytes(TEXT)
    read_given(tmp_path / "lb.yaml")
    with pytest.raises(InputError):
        read_given(tmp_path)
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208 - the same


def test_messages_name_it(stdin):
    """A problem has the line of what came through the pipe."""
    reader, writer = os.pipe()
    os.write(writer, b"version: 1\nservices:\n  web: {}\n")
    os.close(writer)
    stdin(reader)
    with pytest.raises(InputError, match=r"^-:3:"):
        Proposal.of_file(STDIN)
    os.close(reader)


# --- what differs from node to node -------------------------------------------------------------------

EVERYWHERE = b"""\
version: 1
services:
  web:
    listen: ${NODE_IP}:443
    backends: []
  admin: {listen: ":${NODE_PORT}", backends: []}
"""


def test_a_proposal_keeps_the_variables():
    """What is written down and sent has them; what it is here, with whose values, stands beside it."""
    known = {"NODE_IP": Known("10.0.0.1", "a"), "NODE_PORT": Known("80", "b"), "NODE_X": Known("x", "c")}
    asked = []

    def look(names, consul):
        asked.append((names, consul))
        return Variables(known)

    made = Proposal.of_text(EVERYWHERE + b"consul: {token_file: t}\n", "lb.yaml", Path("/etc"), look)
    assert made.document["services"]["web"]["listen"] == "${NODE_IP}:443"
    assert made.desired.services["web"].listen == ("10.0.0.1:443",)
    assert set(made.variables) == {"NODE_IP", "NODE_PORT"}
    assert asked == [({"NODE_IP", "NODE_PORT"}, {"token_file": "/etc/t"})]
    assert Proposal.of_text(TEXT, "lb.yaml", Path(), look).variables == {}
    assert len(asked) == 1, "a file without variables has somebody asked"


@pytest.mark.parametrize(
    ("more", "passing", "kind"),
    [
        ("", True, UnidentifiedError),
        ("mode: fastest", True, InputError),
        ("", False, InputError),
    ],
)
def test_what_may_be_known_later(more, passing, kind):
    """Only a file that is right otherwise is worth another try, and only if somebody may know more then."""
    text = EVERYWHERE.replace(b"backends: []\n", f"backends: []\n    {more}\n".encode(), 1)
    with pytest.raises(InputError) as refused:
        Proposal.of_text(text, "lb.yaml", Path(), lambda *_: Variables(why="away", passing=passing))
    assert type(refused.value) is kind


def test_each_node_is_checked_with_what_it_has():
    """Who has a problem is named, and with which value; nothing is wrong without nodes."""
    given = Given(EVERYWHERE, "lb.yaml", Path())
    good = {"NODE_IP": "10.0.0.1", "NODE_PORT": "80"}
    assert check_everywhere(given, {}).desired.services.keys() == {"web", "admin"}
    assert check_everywhere(given, {"lb1": good, "lb2": {**good, "NODE_IP": "10.0.0.2"}})
    bad = {"NODE_IP": "10.0.0.256", "NODE_PORT": "80"}
    with pytest.raises(InputError) as refused:
        check_everywhere(
            given, {"lb1": good, "lb2": bad, "lb3": {"NODE_IP": "10.0.0.3"}, "lb4": {"NODE_IP": "10.0.0.4"}}
        )
    assert str(refused.value).splitlines() == [
        'lb.yaml:4:13: services.web.listen: node lb2: must have four numbers from 0 to 255 without leading zeros, such as 10.0.0.1, not "10.0.0.256"; ${NODE_IP} is "10.0.0.256" (as the node says)',
        "lb.yaml:6:19: services.admin.listen: node lb3, lb4: has ${NODE_PORT}, which is not known: the node has no such variable",
    ]


def test_a_mistake_for_all_names_no_node():
    """It is in the file."""
    with pytest.raises(InputError, match=r"^lb.yaml:2:1: services: must be a mapping, not a list$"):
        check_everywhere(Given(b"version: 1\nservices: []\n", "lb.yaml", Path()), {"lb1": {}})


def test_what_a_daemon_found_has_the_lines_of_the_file():
    """It was sent JSON; whoever reads the message has the file."""
    told = InputError("", [{"path": "services.admin.listen", "message": "no", "line": 1, "column": 70}])
    assert (
        str(placed(told, Given(EVERYWHERE, "lb.yaml", Path()))) == "lb.yaml:6:19: services.admin.listen: no"
    )


@pytest.mark.parametrize("path", [(), ("a",), ("services", "a.b", "listen", 3), ("x", 'q"uo]te', 0, "y-_9")])
def test_a_path_as_messages_write_it(path):
    """Is read as it was."""
    assert parse_path(format_path(path)) == path
