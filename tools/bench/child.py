"""A process of the run: started, waited for, what it cost, ended by its own process group."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

READY_S: Final = 15.0
ENDING_S: Final = 5.0
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_SS: Final = shutil.which("ss")
"""Asks the kernel for listening sockets alone. /proc/net/tcp lists all others, too: 130,000 that short connections have left
behind take it a fifth of a second."""
_LISTEN: Final = "0A"
"""TCP_LISTEN in /proc/net/tcp."""


class Failed(Exception):  # noqa: N818 - a result, not an error of this program
    """A program is missing, did not start, or did not do its work; the text says which and why."""


def within(namespace: int | str | None, argv: Sequence[str]) -> list[str]:
    """Return `argv`, to be run in the network namespace of a process, or in a named one of `ip netns`; None for ours."""
    if namespace is None:
        return list(argv)
    path = f"/run/netns/{namespace}" if isinstance(namespace, str) else f"/proc/{namespace}/ns/net"
    return ["nsenter", f"--net={path}", *argv]


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used; 0 if it has gone.

    What the scheduler counts for each thread is exact; the process's own counters end at whole ticks of 10 ms, which is 2 %
    of a short turn, but have the threads that ended, too. The larger one is right.
    """
    entry = Path(f"/proc/{pid}")
    try:
        fields = (entry / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    exact_ns = 0
    for task in (entry / "task").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or this kernel does not count
            exact_ns += int((task / "schedstat").read_text().split()[0])
    return max(exact_ns / 1e9, (int(fields[11]) + int(fields[12])) / _TICKS_PER_S)


def memory_kib(pid: int, *kinds: str) -> float:
    """Return KiB of a process's memory, by kinds of /proc/PID/smaps_rollup: `Pss`, if none is named; 0 if it has gone."""
    kib = 0
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            kind, _, value = line.partition(":")
            if kind in (kinds or ("Pss",)):
                kib += int(value.split()[0])
    return float(kib)


def _parent(pid: int) -> int:
    """Return the id of the process that has started another one; 0 if that has gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


class Child:
    """A running program, in a process group of its own.

    Args:
        argv: The command.
        directory: Where it runs, and where its output goes.
        environment: Added to ours.
        user: Run as this user; only root can.

    Attributes:
        started: Monotonic seconds, when it was.
    """

    def __init__(
        self,
        argv: Sequence[str],
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        self._name = Path(argv[0]).name
        self._log = directory / f"{self._name}.output"
        with self._log.open("ab") as log:
            self.started = time.monotonic()
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
                user=user,
            )
        self.pid = self._process.pid

    def wait_listening(self, port: int) -> None:
        """Wait until somebody listens on a TCP port in the child's network namespace.

        Reads the kernel's table instead of connecting: a connection would already be a client.

        Raises:
            Failed: The child ended, or it took too long.
        """
        end = time.monotonic() + READY_S
        while not self._listens(port):
            if self._process.poll() is not None or time.monotonic() > end:
                output = self._log.read_text(errors="replace").strip().splitlines()
                raise Failed(f"{self._name} did not start: {' '.join(output[-3:])[:400]}")
            time.sleep(0.01)

    def _listens(self, port: int) -> bool:
        if _SS is not None and self._is_in_our_namespace():
            done = subprocess.run(
                [_SS, "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=False
            )
            return bool(done.stdout.strip())
        wanted = f"{port:04X}"
        for table in ("tcp", "tcp6"):
            try:
                lines = Path(f"/proc/{self.pid}/net/{table}").read_text().splitlines()[1:]
            except OSError:
                return False
            for line in lines:
                fields = line.split(maxsplit=4)
                if fields[3] == _LISTEN and fields[1].endswith(f":{wanted}"):
                    return True
        return False

    def _is_in_our_namespace(self) -> bool:
        try:
            return Path(f"/proc/{self.pid}/ns/net").samefile("/proc/self/ns/net")
        except OSError:
            return False

    def lives(self) -> bool:
        """Tell whether the program has not ended."""
        return self._process.poll() is None

    def pids(self) -> list[int]:
        """Return its processes that live, itself among them."""
        return [int(entry.name) for entry in self._group()]

    def workers(self) -> list[int]:
        """Return those of its processes that have started none of the others; without others, none."""
        pids = set(self.pids()) - {self.pid}
        return sorted(pids - {_parent(pid) for pid in pids})

    def _group(self) -> list[Path]:
        """Return the /proc entries of all its processes that live."""
        members = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.pid:
                    members.append(entry)
        return members

    def cpu_s(self) -> float:
        """Return the CPU seconds that all its processes have used."""
        return sum(map(cpu_s, self.pids()))

    def memory_kib(self) -> float:
        """Return the memory of all its processes, shared pages divided among their users (PSS), in KiB."""
        return sum(memory_kib(pid) for pid in self.pids())

    def end(self) -> None:
        """Ask it to end; kill what is left of its group after a while."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(ENDING_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
