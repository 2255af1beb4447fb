"""`lb-control run`: what the daemon is told of a command line, and what keeps it from being one."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.cli.run import home_of
from controlplane.cli.run import run as command
from controlplane.cli.settings import Settings
from controlplane.daemon import daemon
from controlplane.dataplanes.endpoint import endpoint_of
from controlplane.errors import InputError
from tests.controlplane.cli.given import run


@pytest.fixture
def told(monkeypatch):
    """What daemons are told that would have been run."""
    daemons = []
    monkeypatch.setattr(daemon, "run", daemons.append)
    return daemons


def settings(directory, **more):
    """Make the global options of a command."""
    return Settings(
        environ={},
        given_runtime_dir=directory / "run",
        given_state_dir=directory / "state",
        **{"dataplanes": (), "token_file": None, **more},
    )


def test_nothing_has_to_be_said(tmp_path, told):
    """It watches no file and serves no page; where things are say the global options."""
    assert run(command, settings(tmp_path)).exit_code == 0
    (one,) = told
    assert (one.home, one.http, one.http_token, one.http_hosts) == (None, None, None, ())
    assert (one.runtime_dir, one.state_dir, one.token) == (tmp_path / "run", tmp_path / "state", None)


def test_data_planes_are_listed_whenever_it_looks(tmp_path, told):
    """Those that are named; without a name, those that there are by then."""
    run(command, settings(tmp_path, dataplanes=("/a.sock", "http://b:1")))
    assert told[0].find() == (endpoint_of("/a.sock"), endpoint_of("http://b:1"))
    assert told[0].find_draining() == ()
    run(command, settings(tmp_path))
    assert told[1].find() == ()


@pytest.mark.parametrize(
    ("where", "name", "folder"),
    [("etc/lb.yaml", "file etc/lb.yaml", Path("etc")), ("consul-kv:lb/edge", "consul-kv:lb/edge", None)],
)
def test_what_it_watches(tmp_path, told, where, name, folder):
    """A file, or a key."""
    run(command, settings(tmp_path), where)
    assert (told[0].home.name, told[0].home.folder) == (name, folder)


def test_what_cannot_be_watched(tmp_path, told):
    """Standard input has one content; the command that takes it is named."""
    done = run(command, settings(tmp_path), "-")
    assert (done.exit_code, told) == (2, [])
    assert "lb-control apply -" in " ".join(done.stderr.split())


def test_a_page(tmp_path, told):
    """The token is read now, and whenever it has changed; names are compared in lower case."""
    file = tmp_path / "token"
    file.write_text("one\n")
    run(
        command,
        settings(tmp_path),
        *("--http", ":7700", "--http-token-file", str(file)),
        *("--http-host", "LB.example.", "--http-host", "other"),
    )
    (one,) = told
    assert (one.http, one.http_hosts, one.http_token.now()) == (":7700", ("lb.example", "other"), "one")


def test_a_token_that_cannot_be_read(tmp_path, told):
    """A page without it would be open: there is no daemon then."""
    with pytest.raises(InputError, match=f"--http-token-file {tmp_path}/none: No such file"):
        run(command, settings(tmp_path), "--http", ":7700", "--http-token-file", str(tmp_path / "none"))
    with pytest.raises(InputError, match=f"--token-file {tmp_path}/none: No such file"):
        run(command, settings(tmp_path, token_file=tmp_path / "none"))
    assert told == []


def test_a_name_for_no_page(tmp_path, told):
    """Somebody has forgotten to say where the page is."""
    done = run(command, settings(tmp_path), "--http-host", "lb.example.com")
    assert (done.exit_code, told) == (2, [])
    assert "--http-host needs --http" in done.stderr


def test_a_file_that_cannot_be_looked_at():
    """It is no usage error and no traceback: the daemon says why it cannot be read, and tries again."""
    name = (
        "x" * 300
    )  # longer than a file's name may be: stat fails, as it does in a folder that may not be searched
    assert home_of(name).place == name
