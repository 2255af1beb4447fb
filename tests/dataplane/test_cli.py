"""The command line of a data plane: where things are unless it is said, and what a TAB offers."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from dataplane import cli
from dataplane.worker import fork_server


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Start from an environment that says nothing, as nobody in particular."""
    for name in ("LB_RUNTIME_DIR", "XDG_RUNTIME_DIR", "LB_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", "/home/somebody")


RUNTIME = ("LB_RUNTIME_DIR", "/run/lb", "XDG_RUNTIME_DIR", "")
STATE = ("LB_STATE_DIR", "/var/lib/lb", "XDG_STATE_HOME", ".local/state")


def test_what_the_environment_says_comes_first(monkeypatch):
    """Then what is root's, then what the desktop says, then the home directory."""
    assert cli._directory(*STATE) == Path("/home/somebody/.local/state/lb")
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    assert cli._directory(*STATE) == Path("/xdg/lb")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli._directory(*STATE) == Path("/var/lib/lb")
    monkeypatch.setenv("LB_STATE_DIR", "/said")
    assert cli._directory(*STATE) == Path("/said")


def test_a_socket_needs_a_directory_that_is_said():
    """A home directory is no place for one; the message names the options."""
    with pytest.raises(click.UsageError, match="--runtime-dir"):
        cli._directory(*RUNTIME)


def test_a_contradiction_is_a_usage_error(tmp_path):
    """Exit code 2, and the words of the option."""
    arguments = ["--runtime-dir", str(tmp_path), "--state-dir", str(tmp_path), "--workers", "many"]
    answer = CliRunner().invoke(cli.main, arguments)
    assert (answer.exit_code, "'many' is neither auto nor a number" in answer.output) == (2, True)


def test_what_was_begun_for_workers_ends_with_a_contradiction(tmp_path, monkeypatch):
    """A process that was forked for nothing is gone before the message is."""
    dismissed = []
    begun = SimpleNamespace(dismiss=lambda: dismissed.append(True))
    monkeypatch.setattr(fork_server, "begin", lambda: begun)
    arguments = ["--runtime-dir", str(tmp_path), "--workers", "2", "--name", "a b"]
    answer = CliRunner().invoke(cli.main, arguments)
    assert (answer.exit_code, dismissed) == (2, [True]), answer.output


def test_a_tab_offers_what_there_is(tmp_path):
    """Names of data planes in the directory, and numbers of workers up to the cores."""
    for name in ("main", "core-0"):
        (tmp_path / f"dataplane-{name}.sock").touch()
    context = click.Context(cli.main)
    context.params = {"runtime_dir": tmp_path}
    assert cli._names(context, None, "") == ["core-0", "main"]
    assert cli._names(context, None, "m") == ["main"]
    context.params = {}
    assert cli._names(context, None, "") == []
    assert cli._counts(context, None, "a") == ["auto"]
    assert "1" in cli._counts(context, None, "")
