"""How what several want is divided among them, and how evenly clients are spread over workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final


def part(total: int, weights: Sequence[int], index: int) -> int:
    """Return the part of `total` that falls to `index`, in proportion to the weights; if all are 0, it is 0.

    The parts of all add up to `total`, and none is a whole one away from what it would be without rounding.
    """
    whole = sum(weights)
    if not whole:
        return 0
    before = sum(weights[:index])
    start, end = (
        2 * total * reach + whole for reach in (before, before + weights[index])
    )  # rounded, not cut off
    return end // (2 * whole) - start // (2 * whole)


def divide(total: int, weights: Sequence[int], wanted: Sequence[int]) -> list[int]:
    """Return who may have how many of `total`: weighted max-min fair, in whole numbers; who has weight 0 gets nothing.

    Whoever wants no more than its part gets it, and what is left is divided again among the others (Bertsekas and
    Gallager, "Data Networks", section 6.5.2, for one link). O(N^2) at worst.
    """
    given = [0] * len(weights)
    active = [weight if want else 0 for weight, want in zip(weights, wanted, strict=True)]
    while any(active):
        # Compared without rounding: else each who is content by a rounded part takes some of the others' parts.
        whole = sum(active)
        content = [
            index for index, weight in enumerate(active) if weight and wanted[index] * whole <= total * weight
        ]
        if not content:
            parts = [part(total, active, index) for index in range(len(active))]
            return [had or new for had, new in zip(given, parts, strict=True)]
        for index in content:
            given[index] = wanted[index]
            total -= wanted[index]
            active[index] = 0
    return given


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
