"""What we want to reach, and whether a run did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from statistics import fmean, median, pstdev
from typing import Any, Final, Literal

from tools.bench.contenders import INTERPRETED_SUFFIX
from tools.bench.figures import Summary, summarise


@dataclass(frozen=True)
class Target:
    """A bound on what one contender does.

    It holds for the median of the turns (`of` is "value"), or of what each turn was divided by another contender's turn of
    the same round ("ratio") or less it ("difference").
    """

    title: str
    study: str
    metric: str
    who: str
    bound: float
    want: Literal["at least", "at most"]
    of: Literal["ratio", "difference", "value"] = "ratio"
    against: str = "haproxy"


@dataclass(frozen=True)
class Outcome:
    """What a run says about a target; `reached` and `met` are None if it did not measure it."""

    target: Target
    reached: Summary | None
    met: bool | None
    form: str | None = None
    """Which form of ours was measured, if the run knows it."""


_FEWEST: Final = 3
_RESAMPLED: Final = 1_000
_MOST: Final = "at most"
_LEAST: Final = "at least"

_CONNECT: Final = "connect-send-receive-close/s"
_CONNECT_CPU: Final = "CPU of the proxy for one"
_MODES: Final = (("off", 1.0, 1.0), ("preconnect", 1.0, 1.0), ("reuse", 1.7, 0.57))
"""Modes of the pool, with the least rate and the most CPU of a connection, as ratios to HAProxy's."""


def _connects(study: str, words: str) -> list[Target]:
    rates = [
        Target(f"{_CONNECT}{words}, {mode}", study, "rate", f"ours-{mode}", rate, _LEAST)
        for mode, rate, _ in _MODES
    ]
    costs = [
        Target(f"{_CONNECT_CPU}{words}, {mode}", study, "proxy_cpu", f"ours-{mode}", cpu, _MOST)
        for mode, _, cpu in _MODES
    ]
    return [*rates, *costs]


def _acknowledged(what: str, words: str, who: str, most_ms: float, stall_ms: float) -> list[Target]:
    study = f"acknowledged-{what}"
    return [
        Target(f"{words}, two workers: acknowledged, ms", study, "ack_ms", who, most_ms, _MOST, "value"),
        Target("longest stall meanwhile, ms", study, "max_us", who, stall_ms, _MOST, "value"),
    ]


_TLS_RATES: Final = (
    ("TLS handshakes/s, full, ECDSA P-256", "tls-full", 0.9),
    ("TLS handshakes/s, full, RSA 2048", "tls-full-rsa", 0.9),
    ("TLS handshakes/s, resumed, ECDSA P-256", "tls-resumed", 0.9),
    ("TLS handshakes/s, resumed, RSA 2048", "tls-resumed-rsa", 0.9),
    ("messages/s on TLS connections that stay", "tls-echo", 0.8),
    ("GB/s over TLS, to the client", "tls-down", 0.9),
    ("GB/s over TLS, to the backend", "tls-up", 0.9),
)
"""What each counts, its study, and the least ratio to HAProxy's."""


def _tls() -> list[Target]:
    """Return the targets of TLS: each rate as it is on this machine, and for the CPU, which the load generator leaves alone."""
    return [
        *(
            target
            for title, study, least in _TLS_RATES
            for target in (
                Target(title, study, "rate", "ours-off", least, _LEAST),
                Target(
                    "the same for a second of the proxy's CPU", study, "per_cpu_s", "ours-off", least, _LEAST
                ),
            )
        ),
        Target("memory of an idle TLS connection", "tls-memory", "per_connection", "ours-off", 1.0, _MOST),
        Target(
            "CPU of a connection passed through by its name, against any",
            "route", "proxy_cpu", "ours-off-route", 1.1, _MOST, against="ours-off",
        ),
        Target(
            "p50 of it, against any", "route", "p50_us", "ours-off-route", 1.1, _MOST, against="ours-off"
        ),
    ]  # fmt: skip


TARGETS: Final = (
    *_connects("connect", ""),
    *_connects("veth", " over veth"),
    *(
        Target(f"{_CONNECT}, {mode}, interpreted", "connect", "rate", f"ours-{mode}-interpreted", 0.85, _LEAST)
        for mode in ("off", "preconnect")
    ),
    Target("keep-alive requests/s", "keepalive", "rate", "ours-preconnect", 1.0, _LEAST),
    Target("CPU of the proxy for one request", "keepalive", "proxy_cpu", "ours-preconnect", 0.98, _MOST),
    Target(
        "the same, against the C floor", "keepalive", "proxy_cpu", "ours-preconnect", 1.05, _MOST, against="relay"
    ),
    Target("p99 of a message at half of HAProxy's highest rate", "latency", "p99_us", "ours-preconnect", 1.0, _MOST),
    *(
        Target(f"p99 of a connection at {share} of HAProxy's highest rate, {mode}", study, "p99_us", f"ours-{mode}", most, _MOST)
        for study, share, most in (("connect-latency", "half", 1.0), ("connect-latency-80", "80 %", 1.2))
        for mode in ("off", "preconnect")
    ),
    *(
        Target(f"{what}/s with 2 workers against 1", study, "rate", "ours-2", 1.85, _LEAST, against="ours-preconnect")
        for what, study in (("connections", "workers-connect"), ("messages", "workers-echo"))
    ),
    Target(
        "CPU of a connection in a worker of two, against one process",
        "workers-connect", "worker_cpu", "ours-2", 1.05, _MOST, against="ours-preconnect",
    ),
    Target(
        "time to first byte, backend 10 ms away, preconnect: ms saved",
        "distance", "p50_us", "ours-preconnect", -9.5, _MOST, "difference",
    ),
    Target("CPU of the machine for a GB to the client", "bulk-down", "machine_cpu", "ours-off", 1 / 1.3, _MOST),
    Target("CPU of the machine for a GB to the backend", "bulk-up", "machine_cpu", "ours-off", 1 / 1.3, _MOST),
    Target("memory of an idle connection", "memory", "per_connection", "ours-off", 0.5, _MOST),
    Target("memory of a worker, MiB", "start", "worker", "ours-off-2", 20.0, _MOST, "value"),
    Target("memory of the supervisor, MiB", "start", "supervisor", "ours-off-2", 40.0, _MOST, "value"),
    Target("from the start to the first client, ms", "start", "start_ms", "ours-off", 400.0, _MOST, "value"),
    Target("the same with two workers, ms", "start", "start_ms", "ours-off-2", 400.0, _MOST, "value"),
    *_tls(),
    *_acknowledged("one", "1 change among 10,000 backends", "ours-off-2", 30.0, 10.0),
    *_acknowledged("all", "all weights of 10,000", "ours-off-2", 250.0, 10.0),
    *_acknowledged("sticky", "all weights of 1,000 sticky ones", "ours-sticky-2", 150.0, 5.0),
    *_acknowledged("first", "the first 10,000", "ours-off-2", 400.0, 10.0),
    Target("1,000 weights in one PATCH, two workers", "acknowledged-patch", "ack_ms", "ours-off-2", 1.0, _MOST),
    Target("longest stall meanwhile, ms", "acknowledged-patch", "max_us", "ours-off-2", 5.0, _MOST, "value"),
    Target("one weight change under load, 100 backends", "weights-100", "change_ms", "ours-off", 1.0, _MOST),
    Target("longest stall meanwhile, ms", "weights-100", "max_us", "ours-off", 5.0, _MOST, "value"),
    Target("one weight change under load, 10,000 backends", "weights-10000", "change_ms", "ours-off", 1.0, _MOST),
    Target("longest stall meanwhile, ms", "weights-10000", "max_us", "ours-off", 5.0, _MOST, "value"),
)  # fmt: skip
"""Where `who` is measured as it is installed, the bounds are meant for the compiled form."""


def outcome(target: Target, studies: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """Judge one target.

    Args:
        target: It.
        studies: Results by the name of the study.
    """
    study = studies.get(target.study, {})
    rows = study.get("rows", {})
    who = _who(target, study)
    values = _values(rows, who, target.metric)
    if target.of != "value":
        others = _values(rows, target.against, target.metric)
        pairs = zip(values, others, strict=False)
        if target.of == "ratio":
            values = [one / other for one, other in pairs if other]
        else:
            values = [one - other for one, other in pairs]
    reached = summarise(values)
    if reached is None:
        return Outcome(target, None, None)
    enough = reached.median >= target.bound if target.want == _LEAST else reached.median <= target.bound
    return Outcome(target, reached, enough, study.get("forms", {}).get(who))


def _who(target: Target, study: Mapping[str, Any]) -> str:
    """Return the row of whom a target is about: where ours is installed interpreted, that is the interpreted one."""
    installed = target.who.removesuffix(INTERPRETED_SUFFIX)
    if target.who not in study.get("rows", {}) and study.get("forms", {}).get(installed) == "interpreted":
        return installed
    return target.who


def steadiness(studies: Mapping[str, Mapping[str, Any]]) -> tuple[float, float] | None:
    """Return by how much chance moves the median of paired ratios, and the ratio of the medians.

    Both are standard deviations as a share of the figure, by resampling the turns of the run (bootstrap), the median over all
    targets that are ratios; None if there are none.
    """
    paired, unpaired = [], []
    random = Random(1)
    for target in TARGETS:
        study = studies.get(target.study, {})
        rows = study.get("rows", {})
        ones, others = (
            _values(rows, _who(target, study), target.metric),
            _values(rows, target.against, target.metric),
        )
        count = min(len(ones), len(others))
        if target.of != "ratio" or count < _FEWEST or not all(others) or not all(ones):
            continue
        by_pair, by_median = [], []
        for _ in range(_RESAMPLED):
            here = random.choices(range(count), k=count)
            there = random.choices(range(count), k=count)
            by_pair.append(median(ones[i] / others[i] for i in here))
            by_median.append(median(ones[i] for i in here) / median(others[i] for i in there))
        paired.append(pstdev(by_pair) / fmean(by_pair))
        unpaired.append(pstdev(by_median) / fmean(by_median))
    return (median(paired), median(unpaired)) if paired else None


def _values(rows: Mapping[str, Any], who: str, metric: str) -> list[float]:
    """Return a contender's figures, turn by turn; none if it was not measured."""
    figures = rows.get(who, {}).get(metric)
    return [] if figures is None else [float(value) for value in figures["values"]]
