"""The study of services: what one costs when hundreds of others, which nobody uses, are in the same process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from tools.bench.child import Failed
from tools.bench.contenders import free_port, launch
from tools.bench.control import control_of
from tools.bench.loads import CONNECTIONS, connects
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler, costed

_WEIGHTS: Final = 100


@dataclass
class ServicesStudy:
    """Short connections to one service of so many, the process's memory, and one change of them all."""

    contenders: Sequence[str]
    services: int
    thorough: bool = False
    fresh: bool = False
    name: str = field(init=False)
    title: str = field(init=False)
    note: str = field(init=False)
    metrics: Sequence[Metric] = (
        Metric("rate", "operations", "1/s", "more"),
        Metric("machine_cpu", "CPU of the machine", "µs each", "less", 1e6),
        Metric("proxy_cpu", "CPU of the proxy", "µs each", "less", 1e6),
        Metric("memory", "memory of the process", "MiB", "less", 1 / 1024),
        Metric("change_ms", "a change in all services", "ms", "less"),
    )

    def __post_init__(self) -> None:
        self.name = f"services-{self.services}"
        self.title = "One service" if self.services == 1 else f"One of {self.services:,} services"
        self.note = (
            f"`load.c`, closed loop, {CONNECTIONS} clients at once: connect, send, receive, close, all at one service; each has a"
            " listener, and the others have no traffic. The change gives a backend of every service another weight."
            " Ours: one `PUT` of the whole snapshot; HAProxy: `set weight` for each, 100 in a line."
        )

    def open(self, stack: ExitStack) -> None:
        """Start the backends."""
        self._backends = echo_servers(stack)
        self._turn = 0

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender with all its services."""
        ports = [free_port(stack) for _ in range(self.services - 1)]
        running = launch(name, self._backends, stack, further_ports=ports)
        child = running.child
        if child is None:
            raise Failed("no process that could have services")
        control = control_of(name, running.directory, stack)
        load = connects()
        loaded = costed(lambda seconds: load(running.address, seconds), child)

        def sample(seconds: float) -> dict[str, float]:
            self._turn += 1
            change = control.prepare_services(self.services - 1, 1 + self._turn % _WEIGHTS)
            start = time.monotonic()
            change()
            took = time.monotonic() - start
            return {**loaded(seconds), "memory": child.memory_kib(), "change_ms": took * 1e3}

        return sample
