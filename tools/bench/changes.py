"""The studies of changes under load: how long one takes, and for how long it stops the relaying."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from tools.bench import parse
from tools.bench.child import Failed
from tools.bench.contenders import Running, launch
from tools.bench.control import Api, Control, RuntimeSocket
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler, echo_load, output_of

__all__ = ["ChangeStudy"]

_FLOWS: Final = 16
_RATE: Final = 1000.0
"""Echoes per second: seldom enough not to compete for the processor, often enough to see a stall of 2 ms."""
_LEAD_S: Final = 0.25
_QUIET_SHARE: Final = 0.4
_WEIGHTS: Final = 100
_MANY: Final = 1_000
_MANY_S: Final = 1.5
"""So long is a turn at least, from `_MANY` backends on: a change of all must end before the load does."""


@dataclass
class ChangeStudy:
    """Changes of weights while messages flow.

    Args:
        backends: How many there are.
        changes: One by one, each waited for; None for all backends at once.
    """

    contenders: Sequence[str]
    backends: int
    changes: int | None
    thorough: bool = True
    fresh: bool = False
    name: str = field(init=False)
    title: str = field(init=False)
    note: str = field(init=False)
    metrics: Sequence[Metric] = (
        Metric("change_ms", "time", "ms", "less"),
        Metric("done", "changes made", "", "more"),
        Metric("max_us", "longest stall", "ms", "less", 1e-3),
        Metric("p99_us", "p99 meanwhile", "ms", "less", 1e-3),
        Metric("quiet_max_us", "longest without changes", "ms", "less", 1e-3),
    )

    def __post_init__(self) -> None:
        many = f"{self.backends:,} backends"
        if self.changes is None:
            self.name, self.title = f"apply-{self.backends}", f"All weights at once, {many}"
            how = "Ours: one `PUT` of the whole snapshot; HAProxy: `set weight` for each, 100 in a line."
        else:
            self.name = f"weights-{self.backends}"
            self.title = f"{self.changes:,} weight changes one by one, {many}"
            how = "Ours: `PATCH`; HAProxy: `set weight` on the runtime socket; each on one connection, each waited for."
        self.note = (
            f"{how} Meanwhile {_FLOWS} connections carry {_RATE:,.0f} messages per second in an open loop; the longest"
            " stall is the largest latency among them. Changes end with the turn, done or not."
        )

    def open(self, stack: ExitStack) -> None:
        """Start the backends; so many names share two addresses."""
        addresses = echo_servers(stack)
        self._addresses = [addresses[i % len(addresses)] for i in range(self.backends)]
        self._turn = 0

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender, and connect to its control socket."""
        running = launch(name, self._addresses, stack)
        control: Control = (RuntimeSocket if name == "haproxy" else Api)(running.directory, stack)
        at_least = _MANY_S if self.changes is None and self.backends >= _MANY else 0.0
        return lambda seconds: self._sample(running, control, max(seconds, at_least))

    def _sample(self, running: Running, control: Control, seconds: float) -> dict[str, float]:
        argv = echo_load("echo", running.address, _FLOWS, 16, _RATE)
        quiet = parse.load(output_of(argv(seconds * _QUIET_SHARE, 0.1), seconds))
        with subprocess.Popen(
            argv(seconds + _LEAD_S, 0.1), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as load:
            try:
                time.sleep(_LEAD_S)
                start = time.monotonic()
                done = self._change(control, start + seconds * 0.9)
                took = time.monotonic() - start
                output, complaint = load.communicate(timeout=seconds + 20)
            finally:
                load.kill()
        if load.returncode != 0:
            raise Failed(f"the load failed: {complaint.strip()}")
        figures = {**parse.load(output), "change_ms": took / done * 1e3, "quiet_max_us": quiet["max_us"]}
        return figures if self.changes is None else {**figures, "done": float(done)}

    def _change(self, control: Control, end: float) -> int:
        """Make the changes and return how many; another weight each time, so that none is a repetition."""
        self._turn += 1
        if self.changes is None:
            weights = {index: 1 + (index + self._turn) % _WEIGHTS for index in range(self.backends)}
            control.set_all(weights)
            return 1
        for done in range(self.changes):
            if done and time.monotonic() > end:
                return done
            lap = done // self.backends
            control.set_weight(done % self.backends, 1 + (done + lap * 7 + self._turn * 13) % _WEIGHTS)
        return self.changes
