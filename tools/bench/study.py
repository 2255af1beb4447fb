"""A study: contenders that do the same work in turns, and what is read off it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from tools.bench.build import compiled
from tools.bench.child import Child, Failed
from tools.bench.contenders import CONTENDERS
from tools.bench.figures import summarise
from tools.bench.machine import busy_s

__all__ = ["Metric", "Pace", "Sampler", "Study", "costed", "echo_load", "output_of", "run_study"]

Sampler = Callable[[float], dict[str, float]]
"""Does the work for so many seconds and returns figures by the key of a metric."""

_SPARE_S: Final = 20.0
"""How much longer than asked for a load may take before it counts as failed."""


@dataclass(frozen=True)
class Metric:
    """One figure of a study."""

    key: str
    title: str
    unit: str
    better: Literal["more", "less"]
    scale: float = 1.0
    """What a sampler's figure is multiplied with to have `unit`."""


@dataclass(frozen=True)
class Pace:
    """How thoroughly to measure."""

    rounds: int
    seconds: float
    """Of one turn."""
    warm_up_s: float
    """Of the uncounted turn at the beginning."""


class Study(Protocol):
    """What can be run by `run_study`."""

    name: str
    title: str
    note: str
    metrics: Sequence[Metric]
    contenders: Sequence[str]

    def open(self, stack: ExitStack) -> None:
        """Start what all contenders share, to be ended by `stack`.

        Raises:
            Failed: The study cannot be made here.
        """

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender, to be ended by `stack`.

        Raises:
            Failed: This contender is missing.
        """


def run_study(study: Study, pace: Pace, say: Callable[[str], None]) -> dict[str, Any]:
    """Make a study: one uncounted turn each, then A B C A B C, so that a slow minute hits all alike.

    Args:
        study: What to do.
        pace: How long and how often.
        say: Takes a line of progress.

    Returns:
        JSON-able: `rows` (figures by contender), `missing` (reasons by contender) and what describes the study.
    """
    missing: dict[str, str] = {}
    values: dict[str, list[dict[str, float]]] = {}
    with ExitStack() as stack:
        samplers = _start(study, stack, missing)
        for turn in range(-1, pace.rounds):
            for name in list(samplers):
                try:
                    sample = samplers[name](pace.warm_up_s if turn < 0 else pace.seconds)
                except (Failed, ValueError, OSError, subprocess.SubprocessError) as error:
                    missing[name] = f"failed in turn {turn + 1}: {error}"
                    say(f"  {name}: {missing[name]}")
                    del samplers[name]
                    continue
                if turn >= 0:
                    values.setdefault(name, []).append(sample)
    return {
        "name": study.name,
        "title": study.title,
        "note": study.note,
        "metrics": [
            {"key": m.key, "title": m.title, "unit": m.unit, "better": m.better} for m in study.metrics
        ],
        "missing": {CONTENDERS[name].title: reason for name, reason in missing.items()},
        "rows": {name: _row(study, values[name]) for name in study.contenders if name in values},
    }


def _start(study: Study, stack: ExitStack, missing: dict[str, str]) -> dict[str, Sampler]:
    try:
        study.open(stack)
    except (Failed, OSError, subprocess.SubprocessError) as error:
        missing.update(dict.fromkeys(study.contenders, str(error)))
        return {}
    samplers: dict[str, Sampler] = {}
    for name in study.contenders:
        try:
            samplers[name] = study.prepare(name, stack)
        except (Failed, OSError, subprocess.SubprocessError) as error:
            missing[name] = str(error)
    return samplers


def _row(study: Study, samples: Sequence[dict[str, float]]) -> dict[str, Any]:
    row: dict[str, Any] = {"errors": sum(sample.get("errors", 0.0) for sample in samples)}
    for metric in study.metrics:
        summary = summarise([sample[metric.key] * metric.scale for sample in samples if metric.key in sample])
        if summary is not None:
            row[metric.key] = {
                "median": summary.median,
                "low": summary.low,
                "high": summary.high,
                "values": list(summary.values),
            }
    return row


def costed(sampler: Sampler, child: Child | None) -> Sampler:
    """Add CPU seconds per unit of work: `machine_cpu` of everything, `proxy_cpu` of the contender alone."""

    def measured(seconds: float) -> dict[str, float]:
        machine = busy_s()
        proxy = child.cpu_s() if child else 0.0
        figures = sampler(seconds)
        work = figures["work"]
        if work <= 0:
            raise Failed("no work was done")
        figures["machine_cpu"] = (busy_s() - machine) / work
        if child is not None:
            figures["proxy_cpu"] = (child.cpu_s() - proxy) / work
        return figures

    return measured


def output_of(argv: Sequence[str], seconds: float) -> str:
    """Run a load program that takes about so many seconds, and return what it prints.

    Raises:
        Failed: It failed, or took much longer.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + _SPARE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{argv[0]} took more than {error.timeout:g} s") from None
    if done.returncode != 0:
        raise Failed(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-300:]}")
    return done.stdout


def echo_load(
    mode: Literal["echo", "connect"], address: str, connections: int, size: int, rate: float = 0.0
) -> Callable[[float, float], list[str]]:
    """Return what makes the command line of `load.c` from seconds and warm-up seconds."""

    def argv(seconds: float, warm_up_s: float) -> list[str]:
        program = compiled("load")
        return [program, mode, address, *map(str, (connections, size, seconds, warm_up_s, rate))]

    return argv
