"""A real program under test: started, waited for, ended by its own id, its output kept."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import prefork
from tests.support.wait import wait_for

ENDING_S = 30.0
"""How long a program has to end after it was asked to."""
SHOWN_LINES = 200
"""How much of the output is shown at the end; pytest hides it unless the test fails."""


def answers(address: str | Path) -> bool:
    """Tell whether somebody accepts on `host:port`, or on the Unix socket at a path."""
    try:
        if isinstance(address, Path):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(address))
        else:
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


class Program:
    """One child process in a process group of its own; a base class, and useful alone.

    Args:
        argv: The command.
        environment: The whole environment, but for PATH and HOME.
        user: Run as this user; only root can.
        stop_signal: What asks it to end in good order.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.argv = list(argv)
        self.directory = Path(
            tempfile.mkdtemp(prefix="lb-test-")
        )  # short: a Unix socket's path has 107 bytes
        self._log = self.directory / "output"
        self._environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.directory),
            "PYTHONUNBUFFERED": "1",
            **prefork.form(),
            **(environment or {}),
        }
        self.constants: dict[str, float] = {}
        """See `prefork.spawn`; one of ours that is executed keeps its own."""
        self._user = user
        self._stop_signal = stop_signal
        self._process: subprocess.Popen[bytes] | prefork.Forked | None = None
        self._groups: list[int] = []

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def output(self) -> str:
        """What it has written so far, standard output and error together."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def wait_output(self, text: str) -> None:
        """Wait until it has written `text`: what it logs may come after what it does."""
        wait_for(lambda: text in self.output, f"{text!r} in the output of {self.argv[0]}", every_s=0.05)

    def ready(self) -> bool:
        """Tell whether it does its work already."""
        return True

    def start(self) -> Self:
        """Start and wait until it is `ready`.

        Raises:
            AssertionError: It ended instead, or took too long; with its output.
        """
        self._spawn()
        wait_for(self._ready_or_dead, f"{self.argv[0]} to be ready")
        assert self.poll() is None, f"{self.argv[0]} ended with {self.poll()}:\n{self.output}"
        return self

    def _spawn(self) -> None:
        extra: dict[str, Any] = {"user": self._user, "extra_groups": []} if self._user else {}
        with self._log.open("ab") as log, Path(os.devnull).open("rb") as nothing:
            if not extra and prefork.may_fork(self.argv, self._environment):
                self._process = prefork.spawn(
                    self.argv,
                    self._environment,
                    self.directory,
                    streams=[nothing, log, log],
                    constants=self.constants,
                )
            else:
                self._process = subprocess.Popen(
                    self.argv,
                    stdin=nothing,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    cwd=self.directory,
                    start_new_session=True,
                    **extra,
                )
        self._groups.append(self._process.pid)

    def _ready_or_dead(self) -> bool:
        return self.poll() is not None or self.ready()

    def poll(self) -> int | None:
        """Return its exit status, None while it runs."""
        return None if self._process is None else self._process.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def wait(self, timeout_s: float = ENDING_S) -> int:
        """Wait for its end and return the exit status; negative for a signal."""
        assert self._process is not None, "not started"
        return self._process.wait(timeout_s)

    def stop(self) -> int:
        """Ask it to end, wait, and return the exit status.

        Raises:
            AssertionError: It had to be killed.
        """
        self.send_signal(self._stop_signal)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            msg = f"{self.argv[0]} did not end within {ENDING_S:g} s"
            raise AssertionError(msg) from None

    def kill(self) -> None:
        """Kill the process itself, none of its children, and wait for its end."""
        assert self._process is not None, "not started"
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End what still runs, children included, show the output, and remove the directory."""
        try:
            if self.poll() is None and self._process is not None:
                self.stop()
        finally:
            for group in self._groups:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            if self._process is not None:
                self._process.wait()
            shown = self.output.splitlines()[-SHOWN_LINES:]
            print(f"--- {' '.join(self.argv)}", *shown, sep="\n", file=sys.stderr)  # noqa: T201 - for pytest
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
