"""What we want to reach, and whether a run did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from statistics import fmean, median, pstdev
from typing import Any, Final, Literal

from tools.bench.figures import Summary, summarise

__all__ = ["TARGETS", "Outcome", "Target", "outcome", "steadiness"]


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


_FEWEST: Final = 3
_RESAMPLED: Final = 1_000
_MOST: Final = "at most"
_LEAST: Final = "at least"

TARGETS: Final = (
    Target("keep-alive requests/s", "keepalive", "rate", "ours-preconnect", 1.0, _LEAST),
    Target("CPU of the machine for one", "keepalive", "machine_cpu", "ours-preconnect", 1.0, _MOST),
    Target("the same, against the C floor", "keepalive", "machine_cpu", "ours-preconnect", 1.1, _MOST, against="relay"),
    Target("p99 at half of HAProxy's highest rate", "latency", "p99_us", "ours-preconnect", 1.0, _MOST),
    Target("connect-send-receive-close/s, preconnect", "connect", "rate", "ours-preconnect", 0.95, _LEAST),
    Target("connect-send-receive-close/s, reuse", "connect", "rate", "ours-reuse", 1.6, _LEAST),
    Target(
        "time to first byte, backend 10 ms away, preconnect: ms saved",
        "distance", "p50_us", "ours-preconnect", -9.5, _MOST, "difference",
    ),
    Target("CPU for a GB to the client", "bulk-down", "machine_cpu", "ours-off", 1 / 1.3, _MOST),
    Target("CPU for a GB to the backend", "bulk-up", "machine_cpu", "ours-off", 1 / 1.3, _MOST),
    Target("memory of an idle connection", "memory", "per_connection", "ours-off", 0.5, _MOST),
    Target("one weight change under load, 100 backends", "weights-100", "change_ms", "ours-off", 1.0, _MOST),
    Target("longest stall meanwhile, ms", "weights-100", "max_us", "ours-off", 5.0, _MOST, "value"),
    Target("one weight change under load, 10,000 backends", "weights-10000", "change_ms", "ours-off", 1.0, _MOST),
    Target("longest stall meanwhile, ms", "weights-10000", "max_us", "ours-off", 5.0, _MOST, "value"),
    Target(
        "connections/s with 2 workers against 1", "workers-connect", "rate", "ours-2", 1.7, _LEAST, against="ours-preconnect"
    ),
)  # fmt: skip


def outcome(target: Target, studies: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """Judge one target.

    Args:
        target: It.
        studies: Results by the name of the study.
    """
    rows = studies.get(target.study, {}).get("rows", {})
    values = _values(rows, target.who, target.metric)
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
    return Outcome(target, reached, enough)


def steadiness(studies: Mapping[str, Mapping[str, Any]]) -> tuple[float, float] | None:
    """Return by how much chance moves the median of paired ratios, and the ratio of the medians.

    Both are standard deviations as a share of the figure, by resampling the turns of the run (bootstrap), the median over all
    targets that are ratios; None if there are none.
    """
    paired, unpaired = [], []
    random = Random(1)
    for target in TARGETS:
        rows = studies.get(target.study, {}).get("rows", {})
        ones, others = _values(rows, target.who, target.metric), _values(rows, target.against, target.metric)
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
