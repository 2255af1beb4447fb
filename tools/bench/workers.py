"""The study of workers: how much more two can do than one, when each has the same share of a processor."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from tools.bench import parse
from tools.bench.child import Child, Failed, cpu_s
from tools.bench.contenders import INTERPRETED_SUFFIX, Running, launch
from tools.bench.control import Api
from tools.bench.loads import CONNECTIONS, MESSAGE_BYTES
from tools.bench.quota import Quotas
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler, echo_load, output_of

WORKERS: Final[Mapping[str, int]] = MappingProxyType(
    {"haproxy": 1, "haproxy-2": 2, "ours-preconnect": 1, "ours-2": 2, "ours-4": 4}
)
SHARE: Final = 0.15
"""Of a processor, for each worker: four of them, and what they make the load generator and the servers do, fit in two."""
_TURN_S: Final = 1.0
"""So long is a turn at least: fifty periods of the quota. Turns of thirty differed by a factor of 1.7."""
_WARM_UP_S: Final = 0.1
_READY_S: Final = 10.0


@dataclass
class WorkersStudy:
    """Each worker (a process of ours, a thread of HAProxy's) may use so much of a processor, and no more."""

    contenders: Sequence[str]
    mode: Literal["connect", "echo"]
    thorough: bool = True
    fresh: bool = False
    name: str = field(init=False)
    title: str = field(init=False)
    note: str = field(init=False)
    metrics: Sequence[Metric] = (
        Metric("rate", "operations", "1/s", "more"),
        Metric("proxy_cpu", "CPU of the proxy", "µs each", "less", 1e6),
        Metric("worker_cpu", "of that the workers'", "µs each", "less", 1e6),
        Metric("used", "of its allowance used", "%", "more", 100.0),
        Metric("p50_us", "p50", "ms", "less", 1e-3),
    )

    def __post_init__(self) -> None:
        self.name = f"workers-{self.mode}"
        self.title = "Workers: " + (
            "connect, send, receive, close" if self.mode == "connect" else "messages on connections that stay"
        )
        self.note = (
            f"With two processors and the load generator on the same machine, a second worker only takes from the"
            f" generator. So each worker (a process of ours, a thread of HAProxy's) may use {SHARE:.0%} of a processor"
            f" (a CPU quota of the kernel's), and the generator has what it needs: `load.c`, closed loop, {CONNECTIONS}"
            " connections. Four workers are more than this kind of machine has processors. A queue forms before a worker"
            " that waits for its share, so latencies here say nothing about a worker that has a processor."
        )

    def open(self, stack: ExitStack) -> None:
        """Start the backends, and see whether there are quotas."""
        self._quotas = Quotas(stack)
        self._backends = echo_servers(stack)

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender, and limit each of its workers."""
        running = launch(name, self._backends, stack)
        child = running.child
        if child is None:
            raise Failed("no process to limit")
        count = WORKERS[name.removesuffix(INTERPRETED_SUFFIX)]
        if name.startswith("ours"):
            wait_ready(running)  # a worker that starts with a share would take seconds
        threads = name.startswith("haproxy")
        workers = _workers(child, count, threads=threads)
        for number in workers:
            self._quotas.limit(number, "thread" if threads else "process", SHARE)
        processes = [child.pid] if threads else workers
        argv = echo_load(self.mode, running.address, CONNECTIONS, MESSAGE_BYTES)

        def sample(seconds: float) -> dict[str, float]:
            cpu, workers_cpu, start = child.cpu_s(), _cpu_s(processes), time.monotonic()
            figures = parse.load(output_of(argv(max(seconds, _TURN_S), _WARM_UP_S), seconds))
            took = time.monotonic() - start
            used, workers_used = child.cpu_s() - cpu, _cpu_s(processes) - workers_cpu
            if figures["work"] <= 0:
                raise Failed("no work was done")
            return {
                **figures,
                "proxy_cpu": used / figures["work"],
                "worker_cpu": workers_used / figures["work"],
                "used": workers_used / (took * count * SHARE),
            }

        return sample


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(map(cpu_s, pids))


def wait_ready(running: Running) -> None:
    """Wait until all workers accept; the socket of the API is not there at once."""
    end = time.monotonic() + _READY_S
    while True:
        try:
            with ExitStack() as own:
                Api(running.directory, own).get("/readyz")
        except (Failed, OSError) as error:
            if time.monotonic() > end:
                raise Failed(f"it does not become ready: {error}") from error
            time.sleep(0.05)
        else:
            return


def _workers(child: Child, count: int, *, threads: bool) -> list[int]:
    """Return the ids of a contender's workers, once all are there."""
    end = time.monotonic() + _READY_S
    while True:
        if threads:
            found = sorted(int(task.name) for task in Path(f"/proc/{child.pid}/task").iterdir())
        else:
            found = [child.pid] if count == 1 else child.workers()
        if len(found) == count:
            return found
        if time.monotonic() > end:
            raise Failed(f"{count} workers wanted, but it has {len(found)}")
        time.sleep(0.05)
