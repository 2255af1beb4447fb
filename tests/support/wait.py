"""Waiting for something that no event tells."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 40.0
"""How long anything here is waited for: under pytest's limit, far above any delay of a working part."""
RARELY_S = 0.05
"""How long the longest pause between two questions is; asking has its price, and what is asked pays it, too."""


def wait_for(ask: Callable[[], T], what: str, *, deadline_s: float = DEADLINE_S, every_s: float = 0.01) -> T:
    """Ask until the answer is true, and return it.

    For what another process or the kernel does and tells nobody. It returns at once when `ask` holds, and asks
    more rarely the longer it waits; the deadline only bounds how long a failing test takes.

    Raises:
        AssertionError: `ask` was never true before the deadline; with its last answer.
    """
    end = time.monotonic() + deadline_s
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() >= end:
            msg = f"waited {deadline_s:g} s for {what}; last answer: {answer!r}"
            raise AssertionError(msg)
        time.sleep(every_s)
        every_s = max(every_s, min(1.25 * every_s, RARELY_S))
