"""What we want to reach, and whether a run did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from tools.bench.figures import ratio

__all__ = ["TARGETS", "Outcome", "Target", "outcome"]


@dataclass(frozen=True)
class Target:
    """A bound on one contender's median.

    It holds for the median itself (`of` is "value"), divided by another's ("ratio") or less another's ("difference").
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
    reached: float | None
    met: bool | None


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
        "connections/s with 2 workers against 1", "connect", "rate", "ours-2", 1.7, _LEAST, against="ours-preconnect"
    ),
)  # fmt: skip


def outcome(target: Target, studies: Mapping[str, Mapping[str, Any]]) -> Outcome:
    """Judge one target.

    Args:
        target: It.
        studies: Results by the name of the study.
    """
    rows = studies.get(target.study, {}).get("rows", {})
    reached = _median(rows, target.who, target.metric)
    if target.of != "value":
        other = _median(rows, target.against, target.metric)
        if target.of == "ratio":
            reached = ratio(reached, other)
        else:
            reached = None if reached is None or other is None else reached - other
    if reached is None:
        return Outcome(target, None, None)
    met = reached >= target.bound if target.want == "at least" else reached <= target.bound
    return Outcome(target, reached, met)


def _median(rows: Mapping[str, Any], who: str, metric: str) -> float | None:
    figures = rows.get(who, {}).get(metric)
    return None if figures is None else float(figures["median"])
