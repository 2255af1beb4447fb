"""The studies that put one load on contenders which all run at the same time, one of them at work."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Literal

from tools.bench import parse
from tools.bench.build import compiled, installed
from tools.bench.child import Failed
from tools.bench.contenders import launch
from tools.bench.servers import SERVERS
from tools.bench.study import Metric, Sampler, costed, echo_load, output_of

CONNECTIONS: Final = 64
MESSAGE_BYTES: Final = 16
WARM_UP_S: Final = 0.1
_OPENED_PER_S: Final = 6_000
"""So many connections are certain to open before the measurement begins, however long the queue that they stand in."""
_PROBE_S: Final = 0.5
_PROBES: Final = 3
_REDIS_PER_S: Final = 20_000
"""Requests per second of a turn; redis-benchmark counts requests, not time."""
_SQL_CLIENTS: Final = 8

Load = Callable[[str, float], dict[str, float]]
"""Puts a load on an address for so many seconds."""


@dataclass
class LoadStudy:
    """One load on each contender."""

    name: str
    title: str
    note: str
    metrics: Sequence[Metric]
    contenders: Sequence[str]
    server: str
    """A key of SERVERS."""
    load: Load
    thorough: bool = True
    fresh: bool = False

    def open(self, stack: ExitStack) -> None:
        """Start the backends."""
        self._backends = SERVERS[self.server](stack)

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender before them."""
        running = launch(name, self._backends, stack)
        return costed(lambda seconds: self.load(running.address, seconds), running.child)


@dataclass
class Pressure(LoadStudy):
    """An open loop at a share of what HAProxy can do in this run; `load` is made from the rate.

    Everybody gets the same rate, so the latencies can be compared.
    """

    share: float = 0.5
    mode: Literal["echo", "connect"] = "echo"
    connections: int = CONNECTIONS
    """Of the open loop: what is due waits for one of them, if all have stalled."""
    at_least_s: float = 0.0
    """So long is a turn: a hundredth of its operations must be enough for a p99."""
    yardstick: str = "haproxy"

    def open(self, stack: ExitStack) -> None:
        """Start the backends, and find the rate."""
        super().open(stack)
        rate = self._highest() * self.share
        self.note = f"{self.note} Here: {rate:,.0f} per second."
        maker = echoes if self.mode == "echo" else connects
        self.load = maker(connections=self.connections, rate=rate)

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender before them."""
        sample = super().prepare(name, stack)
        return lambda seconds: sample(max(seconds, self.at_least_s))

    def _highest(self) -> float:
        """Return the rate of the yardstick in a closed loop, the median of some turns."""
        failure = Failed("nobody to take the rate from")
        for name in (self.yardstick, "relay"):
            with ExitStack() as own:
                try:
                    address = launch(name, self._backends, own).address
                except Failed as error:
                    failure = error
                    continue
                argv = echo_load(self.mode, address, CONNECTIONS, MESSAGE_BYTES)
                return statistics.median(
                    parse.load(output_of(argv(_PROBE_S, WARM_UP_S), _PROBE_S))["rate"] for _ in range(_PROBES)
                )
        raise failure


def echoes(*, connections: int = CONNECTIONS, size: int = MESSAGE_BYTES, rate: float = 0.0) -> Load:
    """Return a load of messages and their echoes on connections that stay."""
    return _raw("echo", connections, size, rate)


def connects(
    *, connections: int = CONNECTIONS, size: int = MESSAGE_BYTES, rate: float = 0.0, payload: str = ""
) -> Load:
    """Return a load of connect, send, receive, close; what is sent are zeros, or the bytes of a file."""
    return _raw("connect", connections, size, rate, payload)


def _raw(
    mode: Literal["echo", "connect"], connections: int, size: int, rate: float, payload: str = ""
) -> Load:
    warm_up_s = WARM_UP_S + connections / _OPENED_PER_S

    def load(address: str, seconds: float) -> dict[str, float]:
        argv = echo_load(mode, address, connections, size, rate, payload)
        return parse.load(output_of(argv(seconds, warm_up_s), seconds))

    compiled("load")  # not while the clock runs
    return load


def http(*headers: str) -> Load:
    """Return wrk, with further headers."""

    def load(address: str, seconds: float) -> dict[str, float]:
        options = [word for header in headers for word in ("-H", header)]
        whole = str(max(1, math.ceil(seconds)))  # wrk knows no fractions
        argv = [installed("wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{whole}s", "--latency", *options]
        return parse.wrk(output_of([*argv, f"http://{address}/"], float(whole)))

    return load


def bulk(*options: str) -> Load:
    """Return iperf3, one stream from the client, or to it with `-R`."""

    def load(address: str, seconds: float) -> dict[str, float]:
        host, _, port = address.rpartition(":")
        argv = [installed("iperf3"), "-c", host, "-p", port, "-t", str(max(1, math.ceil(seconds))), "--json"]
        return parse.iperf(output_of([*argv, *options], seconds))

    return load


def redis(address: str, seconds: float) -> dict[str, float]:
    """Put GET and SET on Redis, on connections that stay."""
    host, _, port = address.rpartition(":")
    requests = max(1000, int(_REDIS_PER_S * seconds))
    argv = [
        installed("redis-benchmark"),
        "-h",
        host,
        "-p",
        port,
        "-t",
        "get,set",
        "-n",
        str(requests),
        "--csv",
    ]
    return parse.redis_benchmark(output_of(argv, seconds), requests)


def sql(*options: str) -> Load:
    """Return pgbench's read-only transactions; `-C` connects for each."""

    def load(address: str, seconds: float) -> dict[str, float]:
        host, _, port = address.rpartition(":")
        argv = [
            installed("pgbench"), "-n", "-S", "-c", str(_SQL_CLIENTS), "-T", str(max(1, math.ceil(seconds))),
            "-h", host, "-p", port, "-U", "bench", *options, "postgres",
        ]  # fmt: skip
        return parse.pgbench(output_of(argv, seconds))

    return load


RATE: Final = Metric("rate", "operations", "1/s", "more")
MACHINE_CPU: Final = Metric("machine_cpu", "CPU of the machine", "µs each", "less", 1e6)
PROXY_CPU: Final = Metric("proxy_cpu", "CPU of the proxy", "µs each", "less", 1e6)
OPERATION_METRICS: Final = (
    RATE,
    MACHINE_CPU,
    PROXY_CPU,
    Metric("p50_us", "p50", "µs", "less"),
    Metric("p99_us", "p99", "µs", "less"),
    Metric("p999_us", "p99.9", "µs", "less"),
)
LATENCY_METRICS: Final = (
    Metric("p99_us", "p99", "µs", "less"),
    Metric("p50_us", "p50", "µs", "less"),
    Metric("p999_us", "p99.9", "µs", "less"),
    MACHINE_CPU,
    PROXY_CPU,
    Metric("busy", "of a processor used by the proxy", "%", "less", 100.0),
    RATE,
)
SQL_METRICS: Final = (RATE, MACHINE_CPU, PROXY_CPU, Metric("mean_us", "mean latency", "µs", "less"))
BULK_METRICS: Final = (
    Metric("rate", "throughput", "GB/s", "more"),
    Metric("machine_cpu", "CPU of the machine", "s per GB", "less"),
    Metric("proxy_cpu", "CPU of the proxy", "s per GB", "less"),
)
