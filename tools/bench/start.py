"""The study of a start: how long until the first client, and what the processes need before he comes."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tools.bench.child import Child, Failed, memory_kib
from tools.bench.contenders import begin, launch
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler
from tools.bench.workers import wait_ready

_LATEST_S: Final = 20.0
_RETRY_S: Final = 0.001
_SETTLE_S: Final = 0.5
_OWN: Final = ("Private_Clean", "Private_Dirty")


@dataclass
class StartStudy:
    """A fresh process each turn, asked by a client until one is answered."""

    contenders: Sequence[str]
    thorough: bool = True
    fresh: bool = True
    name: str = "start"
    title: str = "Start and memory, before there are clients"
    note: str = (
        "From the start of the command to the answer that the first client gets from a backend. Half a second later: memory,"
        " shared pages divided among their users (PSS); a worker's is the mean of the workers', and its own part is what it"
        " shares with nobody (USS)."
    )
    metrics: Sequence[Metric] = (
        Metric("start_ms", "to the first client", "ms", "less"),
        Metric("memory", "memory of all", "MiB", "less", 1 / 1024),
        Metric("supervisor", "of the supervisor", "MiB", "less", 1 / 1024),
        Metric("worker", "of a worker", "MiB", "less", 1 / 1024),
        Metric("worker_own", "of that shared with nobody", "MiB", "less", 1 / 1024),
    )

    def open(self, stack: ExitStack) -> None:
        """Start the backends."""
        self._backends = echo_servers(stack)

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Look whether it starts, which also brings its files into memory; each turn starts it anew."""
        del stack
        with ExitStack() as own:
            launch(name, self._backends, own)
        return lambda _seconds: self._sample(name)

    def _sample(self, name: str) -> dict[str, float]:
        with ExitStack() as own:
            running = begin(name, self._backends, own)
            child = running.child
            if child is None:
                raise Failed("no process to start")
            _first_client(running.address, child)
            took = time.monotonic() - child.started
            if name.startswith("ours"):
                wait_ready(running)
            time.sleep(_SETTLE_S)
            return {"start_ms": took * 1e3, **_memory(child)}


def _memory(child: Child) -> dict[str, float]:
    """Return KiB of all its processes, and of each kind, if it has workers."""
    pids = child.pids()
    workers = child.workers()
    figures = {"memory": sum(map(memory_kib, pids))}
    if not workers:
        return figures
    return {
        **figures,
        "supervisor": memory_kib(child.pid),
        "worker": sum(map(memory_kib, workers)) / len(workers),
        "worker_own": sum(memory_kib(pid, *_OWN) for pid in workers) / len(workers),
    }


def _first_client(address: str, child: Child) -> None:
    """Be refused until somebody listens, then be answered."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + _LATEST_S
    while time.monotonic() < end and child.lives():
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), _LATEST_S) as client:
            client.sendall(b"ping")
            if client.recv(16):
                return
        time.sleep(_RETRY_S)
    raise Failed("it answers nobody")
