"""What may come, or be missing, while a program starts, and must not keep it from starting."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.controlplane.operations.commands import Control, Daemon
from tests.support.backends import LineServer
from tests.support.clients import dial, read_exactly
from tests.support.dataplane import DataPlane, command, unix_request
from tests.support.ports import HeldPort
from tests.support.process import Program
from tests.support.wait import wait_for

_STOPS_AT = """
import os, pathlib, sys, time

FOLDER = pathlib.Path(__file__).parent

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name in STOPS:
            (FOLDER / f"{name}.{os.getpid()}").touch()
            while not (FOLDER / f"{name}.go").exists():
                time.sleep(0.01)

sys.meta_path.insert(0, Stop())
"""


class Stops:
    """Has a program wait whenever it is about to load one of some modules.

    Args:
        folder: Of this alone.
        names: The modules.
    """

    def __init__(self, folder: Path, *names: str) -> None:
        self._folder = folder
        self._names = names
        (folder / "sitecustomize.py").write_text(f"STOPS = {names!r}\n{_STOPS_AT}")
        self.environment = {"PYTHONPATH": str(folder)}

    def wait(self, name: str, pid: int) -> None:
        """Wait until a process is about to load a module, or has ended."""
        here = self._folder / f"{name}.{pid}"
        wait_for(lambda: here.exists() or not _runs(pid), f"process {pid} to load {name}")

    def go(self, name: str) -> None:
        """Let whoever waits for a module load it."""
        (self._folder / f"{name}.go").touch()

    def stop(self, name: str) -> None:
        """Have whoever is about to load a module wait again."""
        (self._folder / f"{name}.go").unlink()

    def at_each(self, program: Program, *numbers: signal.Signals) -> None:
        """Send signals whenever it waits, and let it go on."""
        for name in self._names:
            self.wait(name, program.pid)
            assert program.poll() is None, program.output
            for number in numbers:
                program.send_signal(number)
            self.go(name)


def _runs(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_data_plane_outlives_a_reload_that_comes_too_early(tmp_path: Path, workers: str) -> None:
    """SIGHUP and SIGUSR1 from its first line on, and between, end nothing: it is ready afterwards."""
    stops = Stops(tmp_path, "click", "uvloop", "dataplane.supervisor.process", "aiohttp")
    plane = DataPlane(["--workers", workers], environment=stops.environment)
    try:
        plane._spawn()
        stops.at_each(plane, signal.SIGHUP, signal.SIGUSR1)
        wait_for(lambda: plane.poll() is not None or plane.ready(), "it to be ready")
        assert plane.poll() is None
    finally:
        plane.close()


def test_workers_outlive_a_signal_to_all_that_comes_too_early(tmp_path: Path) -> None:
    """What is sent to a whole group reaches the process that new workers are forked from when it has just begun."""
    stops = Stops(tmp_path, "dataplane.worker.process")
    plane = DataPlane(["--workers", "2"], environment=stops.environment)

    def children(pid: int) -> set[int]:
        return set(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def workers() -> set[int]:
        return {each["pid"] for each in plane.status()["workers"]}

    try:
        plane._spawn()
        stops.go("dataplane.worker.process")
        wait_for(lambda: plane.poll() is not None or plane.ready(), "it to be ready")
        (former,) = children(plane.pid)
        assert children(former) == workers()
        stops.stop("dataplane.worker.process")
        plane.send_signal(signal.SIGHUP)
        (server,) = wait_for(lambda: children(plane.pid) - {former}, "the next process that forks")
        stops.wait("dataplane.worker.process", server)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):
            os.kill(server, number)
        stops.go("dataplane.worker.process")
        wait_for(lambda: plane.poll() is not None or workers() == children(server), "new workers")
        assert len(children(server)) == 2
    finally:
        plane.close()


def test_the_daemon_outlives_a_reload_that_comes_too_early(tmp_path: Path) -> None:
    """The same for `lb-control run`, which reads its file for the first time afterwards."""
    stops = Stops(tmp_path, "click", "controlplane.cli.run", "controlplane.daemon.daemon", "aiohttp")
    with TemporaryDirectory(prefix="lb-test-") as folder:
        daemon = Daemon(Control(Path(folder)))
        daemon._environment |= stops.environment
        try:
            daemon._spawn()
            stops.at_each(daemon, signal.SIGHUP, signal.SIGUSR1)
            wait_for(lambda: daemon.poll() is not None or daemon.ready(), "it to be ready")
            assert daemon.poll() is None
        finally:
            daemon.close()


def test_other_commands_end_with_their_terminal(tmp_path: Path) -> None:
    """Only the daemon is deaf to SIGHUP."""
    stops = Stops(tmp_path, "rich")
    with TemporaryDirectory(prefix="lb-test-") as folder, DataPlane() as plane:
        control = Control(Path(folder))
        program = Program([command("lb-control"), "status", "--watch"], environment=control.environment)
        program._environment |= {**stops.environment, "LB_RUNTIME_DIR": str(plane.runtime_dir)}
        try:
            program._spawn()
            stops.wait("rich", program.pid)
            program.send_signal(signal.SIGHUP)
            assert program.wait() == -signal.SIGHUP
        finally:
            program.close()


# -- a runtime directory on a full file system --------------------------------------------------------


@contextmanager
def full_directory() -> Iterator[tuple[Path, list[str]]]:
    """Yield an empty folder, and what begins a command line for which it is on a full file system."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("root and unshare are missing: only with both can a test mount a file system")
    with TemporaryDirectory(prefix="lb-full-") as name:
        script = (
            f"mount -t tmpfs -o size=16k,mode=700 full {name} && "
            f"{{ dd if=/dev/zero of={name}/full bs=4k 2>/dev/null || true; }} && "
            f'! echo x > {name}/more && rm {name}/more && exec "$@"'
        )
        prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
            pytest.skip("a mount namespace cannot be had here")
        yield Path(name), prefix


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_data_plane_starts_on_a_full_file_system(workers: str) -> None:
    """The pid in its lock is a courtesy; a socket needs no room."""
    with full_directory() as (folder, prefix), LineServer("a") as backend, HeldPort() as port:
        environment = {"LISTEN": port.address, "BACKENDS": backend.address}
        plane = DataPlane(["--workers", workers], environment=environment, runtime_dir=folder)
        plane.argv = [*prefix, *plane.argv]
        try:
            plane._spawn()
            wait_for(lambda: plane.poll() is not None or '"started"' in plane.output, "it to start")
            plane.socket = Path(f"/proc/{plane.pid}/root{plane.socket}")
            assert plane.get("/readyz") == {"status": "ok"}
            with dial(port.address) as client:
                client.sendall(b"x\n")
                assert read_exactly(client, 2) == b"a:"
                plane.send_signal(signal.SIGTERM)
                away = plane.socket.with_name(f"draining-test.{plane.pid}.sock")
                wait_for(away.exists, "the name to be free")
                assert unix_request(away, "GET", "/livez")[0] == 200
            assert plane.wait() == 0
        finally:
            plane.close()


def test_the_daemon_starts_on_a_full_file_system() -> None:
    """The same for its control socket."""
    with full_directory() as (folder, prefix), TemporaryDirectory(prefix="lb-test-") as state:
        daemon = Daemon(Control(Path(state)))
        daemon._environment["LB_RUNTIME_DIR"] = str(folder)
        daemon.argv = [*prefix, *daemon.argv]
        try:
            daemon._spawn()
            wait_for(lambda: daemon.poll() is not None or '"ready"' in daemon.output, "it to start")
            assert daemon.poll() is None, daemon.output
            socket = Path(f"/proc/{daemon.pid}/root{folder}/control.sock")
            assert unix_request(socket, "GET", "/livez")[0] == 200
        finally:
            daemon.close()


# -- paths that are too long, and users without a home ------------------------------------------------


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    """Both programs say so before they start, with the option: nobody could reach what is there."""
    folder = tmp_path / ("x" * 110)
    for argv in (
        [command("lb-dataplane"), "--runtime-dir", str(folder)],
        [command("lb-control"), "--runtime-dir", str(folder), "run"],
    ):
        environment = {"LB_STATE_DIR": str(tmp_path / "state"), "PATH": os.environ["PATH"]}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert f"--runtime-dir {folder}" in done.stderr
        assert "a Unix socket's has at most 107" in done.stderr
        assert "Traceback" not in done.stderr
        assert not folder.exists()


@pytest.mark.parametrize("room", [0, 1])
def test_the_longest_path_is_one_that_is_used_later(tmp_path: Path, room: int) -> None:
    """A process that drains has a longer socket than one that serves; so much is left free."""
    longest = "/draining-test.4194304.sock"
    with TemporaryDirectory(prefix="lb-") as base:
        folder = Path(base) / ("x" * (107 + room - len(longest) - len(base) - 1))
        plane = DataPlane(runtime_dir=folder)
        try:
            plane._spawn()
            wait_for(lambda: plane.poll() is not None or plane.ready(), "it to start, or not to")
            assert (plane.poll() is None) is (room == 0), plane.output
        finally:
            plane.close()


def test_a_user_without_a_home_is_told_what_to_set(tmp_path: Path) -> None:
    """Neither a HOME nor an entry among the users: no traceback, but the option that is missing."""
    code = (
        "import os, pwd, sys\nfrom click.testing import CliRunner\nfrom dataplane.cli import main\n"
        # not setuid: that user may not be allowed to read the rest of the program
        "os.getuid = os.geteuid = lambda: 54321\n"
        "pwd.getpwuid = {}.__getitem__\n"
        "done = CliRunner().invoke(main, [])\nprint(done.output)\nsys.exit(done.exit_code)"
    )
    environment = {"LB_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
    python = command("lb-dataplane").rpartition("/")[0] + "/python"
    done = subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "set LB_STATE_DIR or XDG_STATE_HOME, or name one with --state-dir" in done.stdout
