"""The command line as a whole: what is loaded when, what global options reach, and how a command ends. Help: tests/tools/test_help.py."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from controlplane.cli import entry


@pytest.fixture
def loaded(monkeypatch):
    """The modules that are loaded from here on, as they are asked for."""
    asked = []

    def load(name):
        asked.append(name)
        return importlib.__import__(name, fromlist=["x"])

    monkeypatch.setattr(entry.importlib, "import_module", load)
    return asked


def test_help_loads_no_command(loaded):
    """It has to be there at once."""
    done = CliRunner().invoke(entry.cli, ["--help"])
    assert done.exit_code == 0
    assert "Check an lb.yaml" in done.output
    assert loaded == []


def test_a_command_loads_its_module_and_no_other(loaded):
    """What others need is not waited for."""
    assert CliRunner().invoke(entry.cli, ["drain", "--help"]).exit_code == 0
    assert set(loaded) == {"controlplane.cli.operate"}


@pytest.mark.parametrize("name", entry.cli.list_commands(click.Context(entry.cli)))
def test_each_command_is_where_the_table_says(name):
    """And is called what one types for it."""
    command = entry.cli.get_command(click.Context(entry.cli), name)
    assert isinstance(command, click.Command)
    assert command.name == name


def main(monkeypatch, capsys, *words):
    """Run the program in this process; return its exit code, and what it says on either side."""
    monkeypatch.setattr(sys, "argv", ["lb-control", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        entry.main()
    said = capsys.readouterr()
    return caught.value.code or 0, said.out, said.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["validate", "{0}/lb.yaml"], 2, "{0}/lb.yaml: no such file or directory\n"),
        (
            ["--runtime-dir", "{0}", "--state-dir", "{0}", "status"],
            1,
            "no data plane found: looked for {0}/dataplane-*.sock\n",
        ),
        (["--dataplane", "{0}/x.sock", "ready"], 1, "x: not ready: unreachable: "),
    ],
    ids=["invalid", "nobody", "unreachable"],
)
def test_what_goes_wrong_is_one_message(monkeypatch, capsys, tmp_path, words, code, said):
    """On standard error, without a traceback, and with the exit code of its kind; global options are heard."""
    got = main(monkeypatch, capsys, *(each.format(tmp_path) for each in words))
    assert got[:2] == (code, "")
    assert said.format(tmp_path) in got[2]
    assert "Traceback" not in got[2]


def test_what_goes_well(monkeypatch, capsys, tmp_path):
    """Exit 0."""
    file = tmp_path / "lb.yaml"
    file.write_text("version: 1\nservices: {}\n")
    code, _, err = main(monkeypatch, capsys, "validate", file)
    assert (code, err) == (0, "")


def test_an_unknown_command_is_a_usage_error(monkeypatch, capsys):
    """Exit 2, as for every wrong command line."""
    code, _, err = main(monkeypatch, capsys, "no-such-thing")
    assert code == 2
    assert "no-such-thing" in err


@pytest.mark.parametrize("words", [["--help"], ["no-such-thing"]], ids=["output", "error"])
def test_a_reader_that_has_gone_is_told_nothing(monkeypatch, words):
    """Exit 1 and silence: neither an error in the place of an error, nor one at the very end."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "argv", ["lb-control", *words])
    with os.fdopen(writer, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        monkeypatch.setattr(sys, "stderr", gone)
        with pytest.raises(SystemExit) as caught:
            entry.main()
        assert caught.value.code == 1
        os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())  # what is left in it is of no interest


LOADING = """
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path, target=None):
        if name == "controlplane.cli.entry":
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
from controlplane.cli import main
sys.meta_path.insert(0, Interrupts())
main()
"""


def test_interrupted_while_it_is_loaded_it_ends_without_a_word():
    """Who has mistyped and presses Ctrl-C at once sees no traceback; the shell sees the signal."""
    ended = subprocess.run(
        [sys.executable, "-c", LOADING, "status"], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")
