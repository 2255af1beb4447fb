"""The studies of what parts of a data plane cost: those of a connection, and the garbage collector."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from tools.bench.build import ROOT
from tools.bench.child import Child, Failed
from tools.bench.contenders import Running, files, launch, work_directory
from tools.bench.loads import CONNECTIONS, connects
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler, echo_load

_PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "timer wheel: set and cancelled": "timer",
        "accounts: counters and histograms": "accounts",
        "choice of a backend, rr": "pick",
        "access log: made and written": "log",
    }
)
_FLOWS: Final = 10_000
_SPARE_FILES: Final = 300
"""Of the data plane's: what it keeps back, and the short connections beside the idle ones."""
_AT_ONCE: Final = 1_000
_FOREVER_S: Final = 600.0
_WAIT_S: Final = 30.0


@dataclass
class PartsStudy:
    """Parts of the connection path, called many times in a process of their own (parts.py)."""

    contenders: Sequence[str] = tuple(_PARTS)
    thorough: bool = True
    fresh: bool = True
    name: str = "parts"
    title: str = "Parts of a short connection"
    note: str = (
        "CPU of the real objects, called 40,000 times after a real connection, in a process of their own; the timer wheel"
        " among 10,000 other deadlines. Each happens once for a connection; the line only with `--access-log`, the writing"
        " thread's time included. Compare with the proxy's CPU of a whole connection in the table of connect, send, receive,"
        " close, where the log has a row as well."
    )
    metrics: Sequence[Metric] = (Metric("cost", "CPU", "µs per connection", "less"),)

    def open(self, stack: ExitStack) -> None:
        """Do nothing: no backend is needed."""

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Return what runs one part."""
        del stack
        argv = [sys.executable, "-m", "tools.bench.parts", _PARTS[name]]

        def sample(seconds: float) -> dict[str, float]:
            done = subprocess.run(
                argv, cwd=ROOT, capture_output=True, text=True, timeout=seconds + _WAIT_S, check=False
            )
            if done.returncode != 0:
                raise Failed(done.stderr.strip()[-300:])
            return {"cost": float(done.stdout)}

        return sample


@dataclass
class CollectorStudy:
    """A fresh data plane each turn: thousands of idle connections open, then short ones come and go beside them."""

    contenders: Sequence[str] = ("ours-gc-tuned", "ours-gc-unfrozen", "ours-gc-default")
    thorough: bool = False
    fresh: bool = True
    name: str = "collector"
    title: str = "Pauses of the garbage collector"
    note: str = "Every pause of a process that has started, by `gc.callbacks`."
    metrics: Sequence[Metric] = (
        Metric("longest_ms", "longest pause", "ms", "less"),
        Metric("count", "collections", "", "less"),
        Metric("share", "of the time", "%", "less", 100.0),
        Metric("busy_longest_ms", "longest among short connections", "ms", "less"),
        Metric("full_ms", "a full collection would take", "ms", "less"),
    )

    def open(self, stack: ExitStack) -> None:
        """Start the backends."""
        self._backends = echo_servers(stack)
        self._flows = min(_FLOWS, (files() - _SPARE_FILES) // 2)
        self.note += (
            f" First {self._flows:,} connections open and stay, then short ones come and go beside them, {CONNECTIONS} at"
            " once. As it runs: `gc.freeze` at the start, and thresholds that count days until a full collection."
        )

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Return what has a turn; each starts anew."""
        del stack
        load = connects()
        return lambda seconds: self._sample(name, lambda address: load(address, seconds))

    def _sample(self, name: str, load: Callable[[str], object]) -> dict[str, float]:
        with ExitStack() as own:
            running = launch(name, self._backends, own)
            end = time.monotonic() + _WAIT_S
            while not _pauses(running)["collects"]:  # those of the start, when nobody waits, do not count
                if time.monotonic() > end:
                    raise Failed("it does not collect")
            _hold(running, self._flows, own)
            opening = _pauses(running)
            load(running.address)
            busy = _pauses(running)
        every = [seconds for part in (opening, busy) for pauses in part["pauses"] for seconds in pauses]
        among = [seconds for pauses in busy["pauses"] for seconds in pauses]
        return {
            "longest_ms": max(every, default=0.0) * 1e3,
            "count": float(len(every)),
            "share": sum(every) / (opening["seconds"] + busy["seconds"]),
            "busy_longest_ms": max(among, default=0.0) * 1e3,
            "full_ms": busy["full_s"] * 1e3,
        }


def _hold(running: Running, flows: int, stack: ExitStack) -> None:
    """Open connections that stay until `stack` is closed, some at a time, so that no queue of a listener overflows."""
    assert running.child is not None  # noqa: S101 - it was started just now
    files_of = Path(f"/proc/{running.child.pid}/fd")
    end = time.monotonic() + _WAIT_S
    for begin in range(0, flows, _AT_ONCE):
        count = min(_AT_ONCE, flows - begin)
        argv = echo_load("echo", running.address, count, 16, 1.0)
        stack.enter_context(Child(argv(_FOREVER_S, 0.0), work_directory(stack)))
        while len(list(files_of.iterdir())) < 2 * (begin + count):
            if time.monotonic() > end:
                raise Failed(f"{flows:,} connections are not open after {_WAIT_S:g} s")
            time.sleep(0.02)


def _pauses(running: Running) -> dict[str, Any]:
    """Ask collected.py what has happened since the last time."""
    assert running.child is not None  # noqa: S101 - it was started just now
    report = running.directory / "pauses.json"
    report.unlink(missing_ok=True)
    os.kill(running.child.pid, signal.SIGUSR2)
    end = time.monotonic() + _WAIT_S
    while not report.exists():
        if time.monotonic() > end:
            raise Failed("it does not say how it collects")
        time.sleep(0.01)
    found: dict[str, Any] = json.loads(report.read_text())
    return found
