"""Messages that flow while something is done to a proxy: what they notice of it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Final

from tools.bench import parse
from tools.bench.child import Failed
from tools.bench.study import Metric, echo_load, output_of

_FLOWS: Final = 16
_RATE: Final = 1000.0
"""Echoes per second: seldom enough not to compete for the processor, often enough to see a stall of 2 ms."""
_LEAD_S: Final = 0.25
_TAIL_S: Final = 0.1
"""What is done may stop the relaying for a moment more."""
_LONGEST_S: Final = 60.0
_ANSWER_S: Final = 20.0
_QUIET_SHARE: Final = 0.4
FLOWING_NOTE: Final = (
    f"Meanwhile {_FLOWS} connections carry {_RATE:,.0f} messages per second in an open loop; the longest stall is the largest"
    " latency among them."
)
STALL_METRICS: Final = (
    Metric("max_us", "longest stall", "ms", "less", 1e-3),
    Metric("p99_us", "p99 meanwhile", "ms", "less", 1e-3),
)
QUIET: Final = Metric("quiet_max_us", "longest without changes", "ms", "less", 1e-3)


def quiet_stall_us(address: str, seconds: float) -> float:
    """Return the longest stall of so many seconds in which nothing is done, for comparison, in microseconds."""
    argv = echo_load("echo", address, _FLOWS, 16, _RATE)
    return parse.load(output_of(argv(seconds * _QUIET_SHARE, 0.1), seconds))["max_us"]


def while_flowing(address: str, act: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Let messages flow, do something meanwhile, and return its figures and those of the messages."""
    argv = echo_load("echo", address, _FLOWS, 16, _RATE)
    with subprocess.Popen(
        argv(_LONGEST_S, 0.1), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as load:
        try:
            time.sleep(_LEAD_S)
            figures = act()
            time.sleep(_TAIL_S)
            load.terminate()  # it ends as if its time were over
            output, complaint = load.communicate(timeout=_ANSWER_S)
        finally:
            load.kill()
    if load.returncode != 0:
        raise Failed(f"the load failed: {complaint.strip()}")
    return {**parse.load(output), **figures}
