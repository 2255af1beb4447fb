"""The study of scrapes: how long one of a process with many backends takes, and for how long it stops the relaying."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tools.bench.contenders import Running, free_port, launch
from tools.bench.control import Api, RuntimeSocket
from tools.bench.flowing import FLOWING_NOTE, STALL_METRICS, quiet_stall_us, while_flowing
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler

DIVIDED: Final = "ours, in 5 services"
_BACKENDS: Final = 1_000
_SERVICES: Final = 5
_PAUSE_S: Final = 0.02


@dataclass
class ScrapeStudy:
    """One scrape after the other, while messages flow."""

    contenders: Sequence[str] = ("haproxy", "ours-off", DIVIDED)
    thorough: bool = False
    fresh: bool = False
    name: str = "scrape"
    title: str = f"A scrape of {_BACKENDS:,} backends"
    note: str = (
        f"`GET /metrics` of our API, `show stat` on HAProxy's runtime socket, {_PAUSE_S * 1000:.0f} ms between two. {FLOWING_NOTE}"
        " Up to 200 backends of a service have"
        f" series of their own; those of a larger one are summed: so once in one service, and once in {_SERVICES} of 200."
    )
    metrics: Sequence[Metric] = (
        Metric("scrape_ms", "time", "ms", "less"),
        Metric("size", "size", "kB", "less", 1e-3),
        *STALL_METRICS,
        Metric("quiet_max_us", "longest without scrapes", "ms", "less", 1e-3),
    )

    def open(self, stack: ExitStack) -> None:
        """Start the backends; so many names share two addresses."""
        addresses = echo_servers(stack)
        self._addresses = [addresses[i % len(addresses)] for i in range(_BACKENDS)]

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender, and connect to its control socket."""
        running = launch("ours-off" if name == DIVIDED else name, self._addresses, stack)
        if name == "haproxy":
            socket = RuntimeSocket(running.directory, stack)
            return lambda seconds: _sample(running, seconds, lambda: len(socket.query("show stat")))
        api = Api(running.directory, stack)
        if name == DIVIDED:
            api.divide([free_port(stack) for _ in range(_SERVICES - 1)])
        return lambda seconds: _sample(running, seconds, lambda: len(api.get("/metrics")))


def _sample(running: Running, seconds: float, scrape: Callable[[], int]) -> dict[str, float]:
    def scrapes() -> dict[str, float]:
        times: list[float] = []
        size, end = 0, time.monotonic() + seconds
        while not times or time.monotonic() < end:
            start = time.monotonic()
            size = scrape()
            times.append(time.monotonic() - start)
            time.sleep(_PAUSE_S)
        return {"scrape_ms": sum(times) / len(times) * 1e3, "size": float(size)}

    quiet_us = quiet_stall_us(running.address, seconds)
    return {**while_flowing(running.address, scrapes), "quiet_max_us": quiet_us}
