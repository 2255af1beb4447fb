"""The study of scrapes: how long one of a process with many backends takes, and for how long it stops the relaying."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tools.bench import parse
from tools.bench.child import Failed
from tools.bench.contenders import Running, free_port, launch
from tools.bench.control import Api, RuntimeSocket
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler, echo_load, output_of

__all__ = ["DIVIDED", "ScrapeStudy"]

DIVIDED: Final = "ours, in 5 services"
_BACKENDS: Final = 1_000
_SERVICES: Final = 5
_FLOWS: Final = 16
_RATE: Final = 1000.0
_LEAD_S: Final = 0.25
_PAUSE_S: Final = 0.02
_QUIET_SHARE: Final = 0.5


@dataclass
class ScrapeStudy:
    """One scrape after the other, while messages flow."""

    contenders: Sequence[str] = ("haproxy", "ours-off", DIVIDED)
    thorough: bool = False
    fresh: bool = False
    name: str = "scrape"
    title: str = f"A scrape of {_BACKENDS:,} backends"
    note: str = (
        f"`GET /metrics` of our API, `show stat` on HAProxy's runtime socket, {_PAUSE_S * 1000:.0f} ms between two, while"
        f" {_FLOWS} connections carry {_RATE:,.0f} messages per second in an open loop. Up to 200 backends of a service have"
        f" series of their own; those of a larger one are summed: so once in one service, and once in {_SERVICES} of 200."
    )
    metrics: Sequence[Metric] = (
        Metric("scrape_ms", "time", "ms", "less"),
        Metric("size", "size", "kB", "less", 1e-3),
        Metric("max_us", "longest stall", "ms", "less", 1e-3),
        Metric("p99_us", "p99 meanwhile", "ms", "less", 1e-3),
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
    argv = echo_load("echo", running.address, _FLOWS, 16, _RATE)
    quiet = parse.load(output_of(argv(seconds * _QUIET_SHARE, 0.1), seconds))
    times: list[float] = []
    size = 0
    with subprocess.Popen(
        argv(seconds + _LEAD_S, 0.1), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as load:
        try:
            time.sleep(_LEAD_S)
            end = time.monotonic() + seconds * 0.9
            while not times or time.monotonic() < end:
                start = time.monotonic()
                size = scrape()
                times.append(time.monotonic() - start)
                time.sleep(_PAUSE_S)
            output, complaint = load.communicate(timeout=seconds + 20)
        finally:
            load.kill()
    if load.returncode != 0:
        raise Failed(f"the load failed: {complaint.strip()}")
    return {
        **parse.load(output),
        "scrape_ms": sum(times) / len(times) * 1e3,
        "size": float(size),
        "quiet_max_us": quiet["max_us"],
    }
