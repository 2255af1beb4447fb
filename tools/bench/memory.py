"""The study of what an idle connection costs in memory."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tools.bench.child import Failed
from tools.bench.contenders import launch
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler

_BEFORE: Final = 20
"""Connections that have come and gone before the first look at the memory: code and buffers that all share."""
_SETTLE_S: Final = 0.3
_ANSWER_S: Final = 10.0
_PROBE_S: Final = 0.5


@dataclass
class MemoryStudy:
    """A fresh process each turn, then connections that have each carried one message, and rest."""

    contenders: Sequence[str]
    connections: int
    thorough: bool = True
    fresh: bool = True
    name: str = "memory"
    title: str = "Memory of an idle connection"
    note: str = (
        "The growth of the processes' memory (PSS) per connection that has carried one message and rests. The kernel's"
        " part (two sockets) is the same for all and not in it."
    )
    metrics: Sequence[Metric] = (
        Metric("per_connection", "memory per connection", "KiB", "less"),
        Metric("before", "memory before", "MiB", "less", 1 / 1024),
    )

    def open(self, stack: ExitStack) -> None:
        """Start the backends."""
        self._backends = echo_servers(stack)

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Look whether it starts; each turn starts it anew."""
        del stack
        with ExitStack() as own:
            launch(name, self._backends, own)
        return lambda _seconds: self._sample(name)

    def _sample(self, name: str) -> dict[str, float]:
        with ExitStack() as own:
            running = launch(name, self._backends, own)
            if running.child is None:
                raise Failed("no process to look at")
            _wait_answers(running.address)
            with ExitStack() as first:
                for _ in range(_BEFORE):
                    _open(running.address, first)
            time.sleep(_SETTLE_S)
            before = running.child.memory_kib()
            for _ in range(self.connections):
                _open(running.address, own)
            time.sleep(_SETTLE_S)
            growth = running.child.memory_kib() - before
            return {"per_connection": growth / self.connections, "before": before}


def _wait_answers(address: str) -> None:
    """Wait until it relays; Traefik listens before it knows where to."""
    end = time.monotonic() + _ANSWER_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError, Failed), ExitStack() as own:
            _open(address, own, _PROBE_S)
            return
        time.sleep(_PROBE_S / 10)
    raise Failed("it does not relay")


def _open(address: str, stack: ExitStack, answer_s: float = _ANSWER_S) -> None:
    host, _, port = address.rpartition(":")
    client = stack.enter_context(socket.create_connection((host, int(port)), timeout=answer_s))
    client.sendall(b"ping")
    if not client.recv(16):
        raise Failed("a connection was closed")
