"""The studies of changes under load: how long one takes, and for how long it stops the relaying."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from tools.bench.contenders import Running, launch
from tools.bench.control import Control, control_of
from tools.bench.flowing import FLOWING_NOTE, QUIET, STALL_METRICS, quiet_stall_us, while_flowing
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler

_WEIGHTS: Final = 100


@dataclass
class ChangeStudy:
    """Changes of weights while messages flow.

    Args:
        backends: How many there are.
        changes: So many, at least one, one by one and each waited for; None for all backends at once.
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
        *STALL_METRICS,
        QUIET,
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
        self.note = f"{how} {FLOWING_NOTE} Changes end with the turn, done or not."

    def open(self, stack: ExitStack) -> None:
        """Start the backends; so many names share two addresses."""
        addresses = echo_servers(stack)
        self._addresses = [addresses[i % len(addresses)] for i in range(self.backends)]
        self._turn = 0

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender, and connect to its control socket."""
        running = launch(name, self._addresses, stack)
        control = control_of(name, running.directory, stack)
        return lambda seconds: self._sample(running, control, seconds)

    def _sample(self, running: Running, control: Control, seconds: float) -> dict[str, float]:
        quiet_us = quiet_stall_us(running.address, seconds)
        self._turn += 1
        figures = while_flowing(
            running.address,
            lambda: self._one_by_one(control, seconds) if self.changes else self._at_once(control),
        )
        return {**figures, "quiet_max_us": quiet_us}

    def _at_once(self, control: Control) -> dict[str, float]:
        """Change all; another weight each time, so that none is a repetition."""
        change = control.prepare_all(
            {index: 1 + (index + self._turn) % _WEIGHTS for index in range(self.backends)}
        )
        start = time.monotonic()
        change()
        return {"change_ms": (time.monotonic() - start) * 1e3}

    def _one_by_one(self, control: Control, seconds: float) -> dict[str, float]:
        """Change one after the other until all changes are made, or it is time; return what one took, and how many there were."""
        start = time.monotonic()
        done = 0
        while done < (self.changes or 0) and (not done or time.monotonic() < start + seconds):
            lap = done // self.backends
            control.set_weight(done % self.backends, 1 + (done + lap * 7 + self._turn * 13) % _WEIGHTS)
            done += 1
        return {"change_ms": (time.monotonic() - start) / done * 1e3, "done": float(done)}
