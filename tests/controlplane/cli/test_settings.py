"""What the global options say: the token's file, and whether there is a daemon."""

from __future__ import annotations

import socket

import pytest

from controlplane.cli.settings import Settings, token_of
from controlplane.errors import InputError, PlaceError


def test_token_is_the_files_one_line(tmp_path):
    """Blanks and line ends around it are no part of it."""
    file = tmp_path / "token"
    for content in (b" open sesame\n", b"\xef\xbb\xbfopen sesame\r\n"):
        file.write_bytes(content)
        assert token_of("--token-file", file).now() == "open sesame"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory"),
        (b"\n", "is empty"),
        (b"one\ntwo\n", "is not one line"),
        ("schl\u00fcssel".encode(), "is not ASCII"),
    ],
)
def test_what_no_header_can_carry_is_refused(tmp_path, content, why):
    """The message names option and file, and what is wrong with it; the command ends with 2."""
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InputError) as caught:
        token_of("--http-token-file", file)
    assert (str(caught.value), caught.value.exit_code) == (f"--http-token-file {file}: {why}", 2)


def settings_in(directory):
    """Make the settings of a command with these directories."""
    return Settings({}, directory, directory, (), None)


def test_no_daemon(tmp_path):
    """No directory, no socket and a dead one's socket are no daemon."""
    assert settings_in(tmp_path / "missing").daemon() is None
    assert settings_in(tmp_path).daemon() is None
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "control.sock"))
    assert settings_in(tmp_path).daemon() is None


def test_a_daemon_that_does_not_accept(tmp_path, monkeypatch):
    """A daemon whose queue is full is one nevertheless: a command that went past it would be a second writer."""
    monkeypatch.setattr("controlplane.dataplanes.blocking_client._PROBE_S", 0.05)
    path = str(tmp_path / "control.sock")
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as waiting:
        sock.bind(path)
        sock.listen(0)
        waiting.connect(path)
        with pytest.raises(PlaceError, match=f"{path}: "):
            settings_in(tmp_path).daemon()
