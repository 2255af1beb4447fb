"""The study of backends that are far: what a connection dialled ahead saves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO, Final

from tools.bench import parse
from tools.bench.build import compiled, installed
from tools.bench.child import Child, Failed, within
from tools.bench.contenders import launch, work_directory
from tools.bench.study import Metric, Sampler, echo_load, output_of

ONE_WAY_MS: Final = 5.0
_FAR: Final = "10.77.0.2:7000"
"""delay.c gives this address to the far namespace."""
_FIRST_PORT: Final = 7001
"""The near namespace is the run's own: no other program can have it."""
_CLIENTS: Final = 32
_RATE: Final = 100.0
_WARM_UP_S: Final = 0.5


@dataclass
class DistanceStudy:
    """Connect, send and receive through a proxy whose backend is `2 * ONE_WAY_MS` away."""

    contenders: Sequence[str]
    thorough: bool = True
    fresh: bool = False
    name: str = "distance"
    title: str = "Time to first byte, backend 10 ms away"
    note: str = (
        "Client and proxy share a network namespace, the backend is in another; between them each packet waits 5 ms."
        f" {_RATE:g} clients per second connect, send 16 bytes and wait for the answer, in an open loop."
    )
    metrics: Sequence[Metric] = (
        Metric("p50_us", "p50", "ms", "less", 1e-3),
        Metric("p99_us", "p99", "ms", "less", 1e-3),
    )

    def open(self, stack: ExitStack) -> None:
        """Make both namespaces, and start the backend in the far one."""
        if os.geteuid() != 0:
            raise Failed("network namespaces with a delay between them need root")
        installed("nsenter")
        self._near, far = wire(stack)
        backend = Child(within(far, [compiled("echo"), _FAR]), work_directory(stack))
        stack.enter_context(backend)
        backend.wait_listening(int(_FAR.rpartition(":")[2]))

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender in the near one."""
        listen = f"127.0.0.1:{_FIRST_PORT + self.contenders.index(name)}"
        running = launch(name, [_FAR], stack, listen=listen, namespace=self._near)
        argv = echo_load("connect", running.address, _CLIENTS, 16, _RATE)

        def sample(seconds: float) -> dict[str, float]:
            return parse.load(output_of(within(self._near, argv(seconds, _WARM_UP_S)), seconds))

        return sample


def wire(stack: ExitStack) -> tuple[int, int]:
    """Start delay.c and return a process of each namespace, the near one first."""
    process = subprocess.Popen(
        [compiled("delay"), str(ONE_WAY_MS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stack.callback(_end, process)
    words = _of(process.stdout).readline().split()
    if not words or words[0] != "ready":
        raise Failed(f"no namespaces with a delay here: {_of(process.stderr).read().strip()}")
    return int(words[1]), int(words[2])


def _of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None  # noqa: S101 - all three are pipes
    return stream


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate()
