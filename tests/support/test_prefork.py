"""A program that was forked is what it would be if it had been executed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from tests.support.dataplane import DataPlane
from tests.support.prefork import command, may_fork, spawn
from tests.support.process import Program

ENVIRONMENT = {"PATH": os.defpath}


def run(directory: Path, *arguments: str) -> tuple[int, str, str]:
    """Return the exit status of `lb-control`, its output, and its errors."""
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        argv = [command("lb-control"), *arguments]
        running = spawn(argv, ENVIRONMENT, directory, stdin=given, stdout=out, stderr=err)
        code = running.wait(30)
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()


@pytest.mark.parametrize(
    "arguments", [["--version"], ["validate", "none"], ["no-such-command"], ["explain", "--help"]]
)
def test_it_says_and_ends_as_if_executed(tmp_path: Path, arguments: list[str]) -> None:
    """Word for word on both outputs, with the same status, in the same folder."""
    argv = [command("lb-control"), *arguments]
    real = subprocess.run(argv, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run(tmp_path, *arguments) == (real.returncode, real.stdout, real.stderr)


def test_it_has_what_was_asked_for_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of its own, its folder, and as many descriptors of each kind as one that was executed."""
    held = []
    for forked in ("1", "0"):
        monkeypatch.setenv("LB_TEST_PREFORK", forked)
        with DataPlane() as plane:
            own = Path(f"/proc/{plane.pid}")
            assert os.getsid(plane.pid) == os.getpgid(plane.pid) == plane.pid
            assert (own / "cwd").readlink() == plane.directory
            names = (
                str(each.readlink()).removeprefix(f"{plane.directory}") for each in (own / "fd").iterdir()
            )
            held.append(Counter(name.partition(":")[0] for name in names))
    assert held[0] == held[1]


def test_signals_and_statuses() -> None:
    """What ends it is told: a signal as a negative number, once and for ever; then no signal reaches anybody."""
    with DataPlane() as plane:
        assert plane.poll() is None
        plane.kill()
        assert (plane.poll(), plane.wait()) == (-signal.SIGKILL, -signal.SIGKILL)
        plane.send_signal(signal.SIGTERM)
        plane.start()
        assert plane.stop() == 0


def test_a_wait_ends() -> None:
    """One that goes on is waited for as long as was said."""
    with DataPlane() as plane, pytest.raises(subprocess.TimeoutExpired):
        plane.wait(0.01)


def test_what_comes_before_the_first_line_is_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program, one through another, a path for modules, a locale: none of it can be had of a fork."""
    argv = [command("lb-control"), "status"]
    assert may_fork(argv, {"PYTHONUNBUFFERED": "1", "HOME": "/"})
    assert not may_fork(["sh", "-c", *argv], {})
    assert not may_fork(["lb-control"], {})
    assert not may_fork(argv, {"PYTHONPATH": "/"})
    assert not may_fork(argv, {"LC_ALL": "C"})
    monkeypatch.setenv("LB_TEST_PREFORK", "0")
    assert not may_fork(argv, {})


def test_a_program_that_is_not_ours_is_executed() -> None:
    """Whatever runs, `Program` has the same of it."""
    with Program(["sleep", "60"]) as program:
        program.kill()
        assert program.wait() == -signal.SIGKILL
