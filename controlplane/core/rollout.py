"""Which generation a change gets, and what is to be done about a data plane that runs something else: at once, or when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Running:
    """What a data plane says that it runs."""

    instance: str
    """Which process says so (`Identity`): another one knows nothing of what its predecessor was told."""
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
    """Choose a generation that every data plane takes for a content: the highest if that is it, else one more.

    `running` has generation and hash of every data plane that answers, `floor` those of the newest in the history;
    `(0, "")` without one.
    """
    known = {floor, *running}
    highest = max(generation for generation, _ in known)
    at_the_top = {digest for generation, digest in known if generation == highest}
    return highest if highest and at_the_top == {wanted_hash} else highest + 1


def next_step(target: Target | None, running: Running, refused: tuple[Target, str] | None) -> Step:
    """Decide about one data plane from what it runs now; nothing depends on what was sent before.

    Without a target nobody has said yet, and it is left alone. `refused` is the target that was refused last, and the
    process that refused it, while it is too early to offer it again; it is offered again at once when either changes.
    """
    if target is None or (running.generation, running.hash) == (target.generation, target.hash):
        return Step.REST
    if running.generation >= target.generation:
        return Step.RAISE
    return Step.REST if refused == (target, running.instance) else Step.PUSH


_SLACK_S: Final = 5.0
"""An answer may be as late as that, and nobody restarts so fast after such a short life."""


class Identity:
    """Tells one process behind an endpoint from the next: by the id that it drew, of older versions by pid and beginning."""

    def __init__(self) -> None:
        self._older: tuple[object, float] | None = None
        self._lives = 0

    def of(self, info: Mapping[str, Any], now: float) -> str:
        """Return the id of the process that gave this answer to `GET /v1/info`, or this status; no other process has it."""
        if info.get("instance"):
            return str(info["instance"])
        pid, began = info.get("pid"), now - float(info.get("uptime_s", 0.0))
        if self._older is None or self._older[0] != pid or abs(began - self._older[1]) > _SLACK_S:
            self._lives += 1
        self._older = (pid, began)
        return f"pid {pid}, life {self._lives}"


FIRST_S: Final = 1.0
MOST_S: Final = 300.0
FORGET_S: Final = 900.0
"""More than twice the longest pause: the other one may keep pauses, too."""
QUIET_S: Final = 60.0
"""After that, and twice our pause, the other one has ended or has the same file by now, and nobody need be told any more."""
_TWICE: Final = 2
"""Once may have been a command, or a data plane that began with something of its own."""


class Contest:
    """Decides, from the times at which our word was found overwritten, when it is pushed again.

    Theory of operation: the word of a daemon holds, so what somebody else pushes over it is overwritten at once. Where this
    happens again, there are two who both believe that, and every push cuts the other's clients: each pause before ours is
    pushed again is twice as long as the one before. Once nobody has pushed over it for FORGET_S, all is forgotten. A change
    that an operator or the file wants is pushed at once all the same: this is about saying the same again.
    """

    def __init__(self) -> None:
        self._times = 0
        self._since = 0.0
        self._last = 0.0
        self._by: Mapping[str, Any] | None = None

    def may_push(self, by: Mapping[str, Any] | None, now: float) -> bool:
        """Tell whether to push ours again now; if so, that counts as done.

        `by` pushed what runs instead; None: nobody says.
        """
        if self._times and now - self._last > FORGET_S:
            self._times = 0
        self._by = by
        if now < self._last + self._pause() and self._times:
            return False
        if not self._times:
            self._since = now
        self._times += 1
        self._last = now
        return True

    def _pause(self) -> float:
        return 0.0 if self._times < _TWICE else min(MOST_S, FIRST_S * 2.0 ** (self._times - _TWICE))

    def status(self, now: float) -> dict[str, Any] | None:
        """Describe it; `next_in_s` is when ours may be pushed again. None: nobody contests anything."""
        if self._times < _TWICE or now - self._last > QUIET_S + _TWICE * self._pause():
            return None
        return {
            "by": None if self._by is None else dict(self._by),
            "times": self._times,
            "for_s": round(now - self._since, 1),
            "next_in_s": round(max(0.0, self._last + self._pause() - now), 1),
        }
