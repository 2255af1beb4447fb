"""How what several want is divided among them: weighted max-min fair, in whole numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["divide", "part"]


def part(total: int, weights: Sequence[int], index: int) -> int:
    """Return the part of `total` that falls to `index`, in proportion to the weights.

    The parts of all add up to `total`, and none is a whole one away from what it would be without rounding.

    Args:
        total: What is divided, 0 or more.
        weights: One for each, 0 or more; if all are 0, nobody gets anything.
        index: Whose part.
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
    """Return who may have how many of `total`: weighted max-min fair, in whole numbers.

    Whoever wants no more than its part gets it, and what is left is divided again among the others (Bertsekas and
    Gallager, "Data Networks", section 6.5.2, for one link). O(N^2) at worst.

    Args:
        total: What is divided, 0 or more.
        weights: One for each, 0 or more; who has 0 gets nothing.
        wanted: How many each has use for, 0 or more.
    """
    given = [0] * len(weights)
    active = [weight if want else 0 for weight, want in zip(weights, wanted, strict=True)]
    while any(active):
        parts = [part(total, active, index) for index in range(len(active))]
        content = [index for index, weight in enumerate(active) if weight and wanted[index] <= parts[index]]
        if not content:
            return [had or new for had, new in zip(given, parts, strict=True)]
        for index in content:
            given[index] = wanted[index]
            total -= wanted[index]
            active[index] = 0
    return given
