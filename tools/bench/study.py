"""A study: contenders that do the same work in turns, and what is read off it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from tools.bench.build import compiled
from tools.bench.child import Child, Failed
from tools.bench.contenders import form_of, title_of
from tools.bench.figures import summarise
from tools.bench.machine import busy_s

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
    """How thoroughly to measure: what is behind a target in full, what only draws a curve briefly."""

    rounds: int
    seconds: float
    """Of one turn."""
    warm_up_s: float
    """Of the uncounted turn after each start."""
    brief_rounds: int
    brief_seconds: float
    starts: int = 1
    """How often contenders are started anew, where turns are thorough: where a process happens to lie in memory makes
    it up to 8 % faster or slower for as long as it lives."""

    def of(self, study: Study) -> tuple[int, float]:
        """Return the rounds of a study, and the seconds of its turns."""
        return (self.rounds, self.seconds) if study.thorough else (self.brief_rounds, self.brief_seconds)


class Study(Protocol):
    """What can be run by `run_study`."""

    name: str
    title: str
    note: str
    metrics: Sequence[Metric]
    contenders: Sequence[str]
    """Keys of CONTENDERS, or titles of what a study alone knows."""
    thorough: bool
    """Whether its turns have their full length and number."""
    fresh: bool
    """Whether each turn starts a new process, so that there is nothing to warm up."""

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
    """Make a study: one uncounted turn each (unless each starts anew), then A B C, C B A, A B C, so that slow minutes and drifts hit all alike.

    A thorough one ends all contenders and begins again, `pace.starts` times in all. Whatever goes wrong costs a contender its
    further turns, or at worst this study, but never the run.

    Args:
        study: What to do.
        pace: How long and how often.
        say: Takes a line of progress.

    Returns:
        JSON-able: `rows` (figures by contender), `missing` (reasons by title) and what describes the study.
    """
    rounds, seconds = pace.of(study)
    starts = min(rounds, pace.starts) if study.thorough and not study.fresh else 1
    took = _Turns()
    missing, values = took.missing, took.values
    began = time.monotonic()
    try:
        with ExitStack() as shared:
            if _open(study, shared, missing):
                for start in range(starts):
                    of_this = range(rounds * start // starts, rounds * (start + 1) // starts)
                    _run_start(study, took, of_this, seconds, pace.warm_up_s)
    except Exception as error:  # noqa: BLE001 - an hour's other figures are not lost for a bug of this study
        missing["the study"] = f"{type(error).__name__}: {error}"
    for who, reason in missing.items():
        say(f"  {title_of(who)}: {reason}")
    return {
        "name": study.name,
        "title": study.title,
        "note": study.note,
        "metrics": [
            {"key": m.key, "title": m.title, "unit": m.unit, "better": m.better} for m in study.metrics
        ],
        "rounds": rounds,
        "starts": starts,
        "seconds": seconds,
        "took_s": time.monotonic() - began,
        "missing": {title_of(name): reason for name, reason in missing.items()},
        "rows": {name: _row(study, values[name]) for name in study.contenders if name in values},
        "forms": {name: form for name in study.contenders if name in values and (form := form_of(name))},
    }


class _Turns:
    """What came out of the turns so far."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self.values: dict[str, list[dict[str, float]]] = {}

    def take(self, name: str, samplers: dict[str, Sampler], seconds: float, *, counted: bool) -> None:
        """Let a contender have a turn; one that fails has no other."""
        try:
            sample = samplers[name](seconds)
        except Exception as error:  # noqa: BLE001 - whatever befalls one, the others are still measured
            turns = len(self.values.get(name, []))
            self.missing[name] = f"failed after {turns} turns: {str(error) or type(error).__name__}"
            del samplers[name]
            return
        if counted:
            self.values.setdefault(name, []).append(sample)


def _open(study: Study, stack: ExitStack, missing: dict[str, str]) -> bool:
    try:
        study.open(stack)
    except (Failed, OSError, ValueError, subprocess.SubprocessError) as error:
        missing["everybody"] = str(error)
        return False
    return True


def _run_start(study: Study, took: _Turns, rounds: Sequence[int], seconds: float, warm_up_s: float) -> None:
    """Start all contenders that have not failed, and let them have the turns of these rounds."""
    with ExitStack() as stack:
        samplers: dict[str, Sampler] = {}
        for name in study.contenders:
            if name in took.missing:
                continue
            try:
                samplers[name] = study.prepare(name, stack)
            except (Failed, OSError, ValueError, subprocess.SubprocessError) as error:
                took.missing[name] = str(error)
        for name in [] if study.fresh else list(samplers):
            took.take(name, samplers, warm_up_s, counted=False)
        for turn in rounds:
            for name in reversed(list(samplers)) if turn % 2 else list(samplers):
                took.take(name, samplers, seconds, counted=True)


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
    """Add CPU seconds per unit of work: `machine_cpu` of everything, `proxy_cpu` of the contender alone.

    `busy` is the share of one processor that the contender has used.
    """

    def measured(seconds: float) -> dict[str, float]:
        machine, start = busy_s(), time.monotonic()
        proxy = child.cpu_s() if child else 0.0
        figures = sampler(seconds)
        work = figures["work"]
        if work <= 0:
            raise Failed("no work was done")
        figures["machine_cpu"] = (busy_s() - machine) / work
        if child is not None:
            used = child.cpu_s() - proxy
            figures["proxy_cpu"] = used / work
            figures["busy"] = used / (time.monotonic() - start)
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
    mode: Literal["echo", "connect"],
    address: str,
    connections: int,
    size: int,
    rate: float = 0.0,
    payload: str = "",
) -> Callable[[float, float], list[str]]:
    """Return what makes the command line of `load.c` from seconds and warm-up seconds.

    Args:
        mode: Its first argument.
        address: Of the target.
        connections: At once.
        size: Bytes of a message.
        rate: Of an open loop, per second; 0 for a closed one.
        payload: The file that has these bytes; empty: they are zeros.
    """
    further = [payload] if payload else []

    def argv(seconds: float, warm_up_s: float) -> list[str]:
        program = compiled("load")
        return [program, mode, address, *map(str, (connections, size, seconds, warm_up_s, rate)), *further]

    return argv
