"""A program that was forked is what it would be if it had been executed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from schemas.http import server
from tests.support.dataplane import DataPlane
from tests.support.prefork import _replace, command, may_fork, run
from tests.support.process import Program
from tests.support.wait import wait_for

ENVIRONMENT = {"PATH": os.defpath}


@pytest.mark.parametrize(
    "arguments", [["--version"], ["validate", "none"], ["no-such-command"], ["explain", "--help"]]
)
def test_it_says_and_ends_as_if_executed(tmp_path: Path, arguments: list[str]) -> None:
    """Word for word on both outputs, with the same status, in the same folder."""
    argv = [command("lb-control"), *arguments]
    real = subprocess.run(argv, env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True, check=False)
    forked = run(argv, ENVIRONMENT, tmp_path)
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def kinds(plane: DataPlane) -> Counter[str]:
    """Return how many descriptors of each kind a data plane has, or had just now."""
    found: Counter[str] = Counter()
    for each in Path(f"/proc/{plane.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # a connection of the API that has ended meanwhile
            found[str(each.readlink()).removeprefix(f"{plane.directory}").partition(":")[0]] += 1
    return found


def test_it_has_what_was_asked_for_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session of its own, its folder, and as many descriptors of each kind as one that was executed."""
    with DataPlane() as forked:
        monkeypatch.setenv("LB_TEST_PREFORK", "0")
        with DataPlane() as executed:
            for plane in (forked, executed):
                assert os.getsid(plane.pid) == os.getpgid(plane.pid) == plane.pid
                assert Path(f"/proc/{plane.pid}/cwd").readlink() == plane.directory
            wait_for(
                lambda: kinds(forked) == kinds(executed),
                f"the same: {kinds(forked)}, {kinds(executed)}",
                deadline_s=10,
            )


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


def test_a_constant_is_replaced_only_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever renames one is told by the tests that shorten it."""
    monkeypatch.setattr(server, "HEADERS_S", server.HEADERS_S)
    _replace("schemas.http.server.HEADERS_S", 0.5)
    assert server.HEADERS_S == 0.5
    for name in ("schemas.http.server.NO_SUCH_S", "schemas.http.server.serve"):
        with pytest.raises((KeyError, AssertionError)):
            _replace(name, 0.5)
    with DataPlane() as plane:
        plane.stop()
        plane.constants["schemas.http.server.NO_SUCH_S"] = 0.5
        with pytest.raises(AssertionError, match="NO_SUCH_S"):
            plane.start()
