"""How evenly clients are spread over workers, and who should take the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["receiver", "skew"]

SLACK_SHARE: Final = 16
"""A worker keeps a client while it has no more than a sixteenth more than the least loaded one. Below 16 clients that
is none at all: there, one more or less is what makes a worker twice as busy as another. With many, the kernel's own
spread is nearly good enough, and handing over costs more than the last few per cent are worth."""


def receiver(own: int, others: Sequence[int]) -> int | None:
    """Return which of `others` should take a new client: the first that has the fewest; None: who has accepted it.

    `own` is how many clients that one has, without the new one.
    """
    least = min(others, default=own)
    return None if own - least <= own // SLACK_SHARE else others.index(least)


def skew(counts: Sequence[int]) -> float:
    """Return how many times the average the most loaded worker has: 1.0 is even, len(counts) is all on one."""
    total = sum(counts)
    return max(counts) * len(counts) / total if total else 1.0
