"""The studies of changes with two workers: until one is acknowledged, which means that both run it, and the stall meanwhile."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from tools.bench.contenders import Running, launch
from tools.bench.control import Api, Control, control_of
from tools.bench.flowing import FLOWING_NOTE, QUIET, STALL_METRICS, quiet_stall_us, while_flowing
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler
from tools.bench.workers import wait_ready

What = Literal["one", "all", "sticky", "patch", "first"]
_WEIGHTS: Final = 100
_PAUSE_S: Final = 0.05
"""Between two changes: what one has left to do is not charged to the next."""
_MOST: Final = 10
"""Changes in a turn."""
_LINES: Final = "HAProxy: `set weight` for each, 100 in a line."


@dataclass(frozen=True)
class _Kind:
    backends: int
    title: str
    how: str


_KINDS: Final[Mapping[What, _Kind]] = MappingProxyType(
    {
        "one": _Kind(
            10_000,
            "One change among 10,000 backends",
            "One backend has another weight. Ours: one `PUT` of the whole snapshot; HAProxy: one `set weight`.",
        ),
        "all": _Kind(
            10_000, "All weights of 10,000 backends", f"Ours: one `PUT` of the whole snapshot; {_LINES}"
        ),
        "sticky": _Kind(
            1_000,
            "All weights of 1,000 sticky backends",
            f"Clients are assigned by their address. Ours: one `PUT` of the whole snapshot; {_LINES}",
        ),
        "patch": _Kind(
            1_000, "1,000 weights in one `PATCH`", f"Ours: `PATCH /v1/services/bench/backends`; {_LINES}"
        ),
        "first": _Kind(
            10_000,
            "The first 10,000 backends",
            "A fresh process with one backend each turn, to which a `PUT` gives 10,000. HAProxy would be started anew.",
        ),
    }
)


@dataclass
class AcknowledgedStudy:
    """Changes by whole snapshots or many at once, one after the other while messages flow.

    Args:
        what: Is changed.
    """

    contenders: Sequence[str]
    what: What
    thorough: bool = True
    fresh: bool = field(init=False)
    name: str = field(init=False)
    title: str = field(init=False)
    note: str = field(init=False)
    metrics: Sequence[Metric] = (
        Metric("ack_ms", "until it is acknowledged", "ms", "less"),
        *STALL_METRICS,
        QUIET,
        Metric("done", "changes made", "", "more"),
    )

    def __post_init__(self) -> None:
        kind = _KINDS[self.what]
        self.fresh = self.what == "first"
        self.name = f"acknowledged-{self.what}"
        self.title = f"{kind.title}, two workers"
        self.note = f"{kind.how} Ours answers when both workers run it. What is sent is made before the clock runs. {FLOWING_NOTE}"
        self._backends = kind.backends

    def open(self, stack: ExitStack) -> None:
        """Start the backends; so many names share two addresses."""
        addresses = echo_servers(stack)
        self._addresses = [addresses[i % len(addresses)] for i in range(self._backends)]
        self._turn = 0

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender with its backends, unless each turn starts one; connect to its control socket."""
        if self.what == "first":
            return lambda seconds: self._first(name, seconds)
        running, control = self._launch(name, self._addresses, stack)
        return lambda seconds: self._sample(running, lambda: self._next(control), seconds)

    def _launch(self, name: str, addresses: Sequence[str], stack: ExitStack) -> tuple[Running, Control]:
        running = launch(name, addresses, stack)
        if name.startswith("ours"):
            wait_ready(running)
        return running, control_of(name, running.directory, stack)

    def _next(self, control: Control) -> Callable[[], object]:
        """Prepare the next change: another weight each time, so that none is a repetition."""
        self._turn += 1
        count = 1 if self.what == "one" else self._backends
        weights = {index: 1 + (index + self._turn) % _WEIGHTS for index in range(count)}
        return control.prepare_patch(weights) if self.what == "patch" else control.prepare_all(weights)

    def _first(self, name: str, seconds: float) -> dict[str, float]:
        with ExitStack() as own:
            running, _ = self._launch(name, self._addresses[:1], own)
            change = Api(running.directory, own).prepare_backends(self._addresses)
            return self._sample(running, lambda: change, seconds, at_most=1)

    def _sample(
        self,
        running: Running,
        prepare: Callable[[], Callable[[], object]],
        seconds: float,
        at_most: int = _MOST,
    ) -> dict[str, float]:
        def changes() -> dict[str, float]:
            took: list[float] = []
            end = time.monotonic() + seconds
            while not took or (len(took) < at_most and time.monotonic() < end):
                change = prepare()
                start = time.monotonic()
                change()
                took.append(time.monotonic() - start)
                time.sleep(_PAUSE_S)
            return {"ack_ms": statistics.median(took) * 1e3, "done": float(len(took))}

        quiet_us = quiet_stall_us(running.address, seconds)
        return {**while_flowing(running.address, changes), "quiet_max_us": quiet_us}
