"""What a TAB in a real shell makes of a line, with the real programs behind it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from controlplane.cli.completion import schema
from schemas.desired import json_schema
from tests.controlplane.cli.given import run
from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.dataplane import DataPlane, command
from tests.support.ports import HeldPort

pytestmark = pytest.mark.timeout(120)  # a test types many lines, and each TAB starts a program

DONE = "#done#\r\n"
"""Printed before each prompt; unlike a prompt it is not repeated while a line is edited."""
PATIENCE_S = 15.0
HANGS = """\
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listens", flush=True)
sys.stdin.read()
"""


class Shell:
    """An interactive shell in a terminal, which completes as `lb-control completion` has it do.

    Args:
        control: Where its commands look.
        argv: The shell.
        setup: Lines that make it print `#done#` before each prompt, and then whatever it needs.
    """

    def __init__(self, control: Control, argv: list[str], *setup: str) -> None:
        self._control = control
        self._argv = argv
        self._setup = setup
        programs = Path(command("lb-control")).parent
        self._environment = {
            **control.environment,
            "PATH": f"{programs}:/usr/bin:/bin",
            "PS1": "",
            "TERM": "dumb",
            "INPUTRC": "/dev/null",
        }
        self.shown = ""

    def __enter__(self) -> Self:
        self._terminal, inner = pty.openpty()
        # So wide that no line is scrolled.
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 2000, 0, 0))
        self._shell = subprocess.Popen(
            self._argv,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            env=self._environment,
            cwd=self._control.directory,
            start_new_session=True,
        )
        os.close(inner)
        for line in self._setup:
            self.run(line)
        return self

    def __exit__(self, *_: object) -> None:
        self._shell.kill()
        self._shell.wait()
        os.close(self._terminal)

    def run(self, line: str) -> str:
        """Run a line, and return what the terminal shows from it to the next prompt."""
        os.write(self._terminal, line.encode() + b"\r")
        return self._until_done()

    def tab(self, line: str) -> list[str]:
        """Type a line and a TAB, and return the words that then stand there; nothing of it is run."""
        # Back to the beginning (Ctrl-A), and have the shell print the line's words instead.
        self.shown = self.run(f"{line}\t\x01printf '<%s>' ")
        return re.findall(r"<([^<>%]*)>", self.shown)

    def _until_done(self) -> str:
        shown = ""
        end = time.monotonic() + PATIENCE_S
        while DONE not in shown:
            ready, _, _ = select.select([self._terminal], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no prompt: {shown!r}"
            shown += os.read(self._terminal, 65536).decode()
        return shown


class Bash(Shell):
    """Bash, with nothing of the user's."""

    def __init__(self, control: Control) -> None:
        super().__init__(
            control,
            ["bash", "--norc", "--noprofile", "-i"],
            "PROMPT_COMMAND=\"echo '#done#'\"",
            "bind 'set enable-bracketed-paste off'; bind 'set bell-style none'",
            'eval "$(lb-control completion bash)"',
        )

    def offers(self, line: str) -> list[str]:
        """Return what a TAB after a line has to offer, as bash's function has it."""
        words = line.split(" ")
        shown = self.run(
            f"COMP_LINE={line!r} COMP_POINT={len(line)} COMP_WORDS=({line}) COMP_CWORD={len(words) - 1};"
            " _lb_control_completion lb-control 2>&1; printf '<%s>' \"${COMPREPLY[@]}\""
        )
        return re.findall(r"<([^<>%]+)>", shown)


class Zsh(Shell):
    """Zsh, with nothing of the user's but its own completion system."""

    def __init__(self, control: Control) -> None:
        super().__init__(
            control,
            ["zsh", "-f", "-i"],
            "precmd() { echo '#done#' }",
            "autoload -U compinit && compinit -u -D; unset zle_bracketed_paste",
            'eval "$(lb-control completion zsh)"',
        )


@pytest.fixture
def control(tmp_path: Path) -> Control:
    """Return directories in which nothing runs yet."""
    return Control(tmp_path)


@contextlib.contextmanager
def running(control: Control) -> Iterator[None]:
    """Run a data plane with two services; the second one's backends have no ids but their addresses."""
    with HeldPort() as first, HeldPort() as second, DataPlane(runtime_dir=control.runtime_dir):
        wanted = document(
            first.address,
            {"id": "web-1", "address": "127.0.0.1:5001"},
            {"id": "web-2", "address": "127.0.0.1:5002"},
        )
        wanted["services"]["cache"] = {
            "listen": second.address,
            "backends": ["127.0.0.1:6379", "127.0.0.2:6379"],
            "health": {"active": {"type": "none"}},
        }
        control.write(wanted)
        done = control("apply", control.file)
        assert done.code == 0, done.err
        yield


def test_what_runs_is_completed(control):
    """Services, backends of the service on the line, and generations; addresses too, which bash cuts at colons."""
    with running(control), Bash(control) as bash:
        assert bash.tab("lb-control drain w") == ["lb-control", "drain", "web"]
        assert bash.tab("lb-control drain cache 127.0.0.2") == [
            "lb-control",
            "drain",
            "cache",
            "127.0.0.2:6379",
        ]
        assert bash.tab("lb-control enable cache 127.0.0.1:6") == [
            "lb-control",
            "enable",
            "cache",
            "127.0.0.1:6379",
        ]
        assert bash.offers("lb-control weight web ") == ["web-1", "web-2"]
        assert bash.offers("lb-control explain ") == ["cache", "web"]
        assert bash.offers("lb-control rollback ") == ["1"]


@pytest.mark.needs("zsh")
def test_zsh_completes_what_runs(control):
    """The same with zsh."""
    with running(control), Zsh(control) as zsh:
        assert zsh.tab("lb-control roll") == ["lb-control", "rollback"]
        assert zsh.tab("lb-control drain w") == ["lb-control", "drain", "web"]
        assert zsh.tab("lb-control enable cache 127.0.0.1:6") == [
            "lb-control",
            "enable",
            "cache",
            "127.0.0.1:6379",
        ]
        assert zsh.tab("lb-dataplane --log-format t") == ["lb-dataplane", "--log-format", "text"]


@pytest.mark.needs("fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("lb-control roll", ["rollback"]),
        ("lb-control drain ", ["cache", "web"]),
        ("lb-control enable cache 127.0.0.1:6", ["127.0.0.1:6379"]),
        ("lb-dataplane --log-format ", ["json", "text"]),
    ],
)
def test_fish_completes_what_runs(control, line, offered):
    """The same with fish, which tells what it would offer; behind a tab it shows what each is."""
    programs = Path(command("lb-control")).parent
    with running(control):
        done = subprocess.run(
            ["fish", "--no-config", "-c", f"lb-control completion fish | source; complete -C {line!r}"],
            env={**control.environment, "PATH": f"{programs}:/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        )
    assert [each.partition("\t")[0] for each in done.stdout.splitlines()] == offered
    assert done.stderr == ""


def test_the_daemon_is_asked_first(control):
    """With a daemon the names are those that it has accepted, as its commands take them."""
    with HeldPort() as port:
        control.write(document(port.address, {"id": "web-1", "address": "127.0.0.1:5001"}))
        with DataPlane(runtime_dir=control.runtime_dir), Daemon(control, control.file), Bash(control) as bash:
            control.wait_status(lambda status: status["converged"] and status["generation"] == 1)
            assert bash.offers("lb-control drain web ") == ["web-1"]
            assert bash.offers("lb-control rollback ") == ["1"]


def test_commands_options_and_files_are_completed(control):
    """What needs no answer from anybody: the words of the programs themselves, and paths."""
    (control.directory / "lb.yaml").write_text("")
    (control.directory / "folder").mkdir()
    with Bash(control) as bash:
        assert bash.tab("lb-control expl") == ["lb-control", "explain"]
        assert bash.tab("lb-control plan --det") == ["lb-control", "plan", "--detailed-exitcode"]
        assert bash.tab("lb-control apply lb") == ["lb-control", "apply", "lb.yaml"]
        assert bash.tab("lb-control --state-dir fol") == ["lb-control", "--state-dir", "folder/"]
        assert bash.tab("lb-control completion b") == ["lb-control", "completion", "bash"]
        assert bash.tab("lb-dataplane --take") == ["lb-dataplane", "--takeover"]
        assert bash.tab("lb-dataplane --log-format t") == ["lb-dataplane", "--log-format", "text"]
        assert bash.tab("lb-dataplane --workers au") == ["lb-dataplane", "--workers", "auto"]


def test_names_of_data_planes_are_completed(control):
    """Who is to be taken over is found by the sockets; so is whom to speak to."""
    with DataPlane(name="edge-1", runtime_dir=control.runtime_dir), Bash(control) as bash:
        assert bash.tab("lb-dataplane --takeover --name ed") == [
            "lb-dataplane",
            "--takeover",
            "--name",
            "edge-1",
        ]
        socket = str(control.runtime_dir / "dataplane-edge-1.sock")
        assert bash.tab(f"lb-control --dataplane {control.runtime_dir}/") == [
            "lb-control",
            "--dataplane",
            socket,
        ]


@pytest.mark.parametrize("line", ["drain ", "drain web ", "explain w", "rollback "])
def test_with_nobody_there_nothing_is_said(control, line):
    """No names, and above all no message in the line that is being typed."""
    with Bash(control) as bash:
        assert bash.tab(f"lb-control {line}") == ["lb-control", *line.split()]
        assert "rror" not in bash.shown
        assert "no data plane" not in bash.shown


def test_a_data_plane_that_hangs_is_not_waited_for(control):
    """It accepts and never answers: there is nothing to offer, and the shell goes on."""
    control.runtime_dir.mkdir(mode=0o700)
    hanging = subprocess.Popen(
        ["python3", "-c", HANGS, str(control.runtime_dir / "dataplane-main.sock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with hanging, Bash(control) as bash:
        assert hanging.stdout is not None
        assert hanging.stdin is not None
        assert hanging.stdout.readline() == "listens\n"
        assert bash.offers("lb-control drain ") == []
        hanging.stdin.close()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_script_for_each_shell(control, shell):
    """It completes both programs."""
    done = control("completion", shell)
    assert (done.code, done.err) == (0, "")
    assert {"lb-control", "lb-dataplane"} <= set(re.findall(r"lb-\w+", done.out))


def test_another_shell_is_refused(control):
    """The shells that there are scripts for are named."""
    done = control("completion", "ksh")
    assert done.code == 2
    assert "'bash', 'zsh', 'fish'" in done.err


def test_the_schema_is_printed_whole() -> None:
    """And nothing else, for it goes into a file."""
    result = run(schema, None)
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout) == json_schema()
