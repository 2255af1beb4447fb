"""Which generation a change gets, and what is to be done about a data plane that runs something else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

__all__ = ["Running", "Step", "Target", "next_generation", "next_step"]


@dataclass(frozen=True, slots=True)
class Running:
    """What a data plane says that it runs."""

    instance: str
    """Which process says so (`core.identity`): another one knows nothing of what its predecessor was told."""
    generation: int
    hash: str
    by: Mapping[str, Any] | None = field(default=None, compare=False)
    """Who pushed it, if that is known."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a data plane should run."""

    generation: int
    hash: str


class Step(Enum):
    """What comes next for one data plane."""

    REST = "rest"
    """It runs the target, or has refused it and is not asked again."""
    PUSH = "push"
    """It runs something older."""
    RAISE = "raise"
    """It runs a generation that the target's cannot follow: the target needs a higher one."""


def next_generation(running: Iterable[tuple[int, str]], wanted_hash: str, *, floor: tuple[int, str]) -> int:
    """Choose the generation for a content: one more than the highest, or the highest if that is the content.

    Args:
        running: Generation and hash of every data plane that answers.
        wanted_hash: The hash of the content to run.
        floor: The newest generation in the history, and its hash; `(0, "")` without one.

    Returns:
        A generation that every data plane accepts together with the content.
    """
    known = {floor, *running}
    highest = max(generation for generation, _ in known)
    at_the_top = {digest for generation, digest in known if generation == highest}
    return highest if highest and at_the_top == {wanted_hash} else highest + 1


def next_step(target: Target | None, running: Running, refused: tuple[Target, str] | None) -> Step:
    """Decide about one data plane from what it runs now; nothing depends on what was sent before.

    Args:
        target: What it should run; None: nobody has said yet, and it is left alone.
        running: What it runs.
        refused: The target that was refused last, and the process that refused it, while it is too early to offer it
            again; None: it is not, or nothing was. It is offered again at once when either changes.
    """
    if target is None or (running.generation, running.hash) == (target.generation, target.hash):
        return Step.REST
    if running.generation >= target.generation:
        return Step.RAISE
    return Step.REST if refused == (target, running.instance) else Step.PUSH
