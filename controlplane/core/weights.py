"""Weights as balancers take them: 0 to 256, in the proportions in which they were registered.

A weight means nothing by itself, only beside the others of its tier: 1000 and 300 are a share of 77 % and one of
23 %. So where one is too large, all of its tier become smaller, and the largest becomes 256. Weights that fit stay
as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from controlplane.core.instances import Instance, Remark

MAX_WEIGHT: Final = 256


def fitting(instances: Iterable[Instance]) -> tuple[dict[str, int], tuple[Remark, ...]]:
    """Return the weights that are published, and what an operator should know of them.

    Returns:
        By id: 0..256, and 0 only where 0 was registered. The remarks are sorted by id.
    """
    tiers: dict[int, list[Instance]] = defaultdict(list)
    for item in instances:
        tiers[item.tier].append(item)
    weights: dict[str, int] = {}
    remarks: list[Remark] = []
    for items in tiers.values():
        heaviest = max(items, key=lambda item: (item.weight, item.id))
        if heaviest.weight <= MAX_WEIGHT:
            weights.update((item.id, item.weight) for item in items)
            continue
        remarks.append(
            Remark(
                heaviest.id,
                f"weight {heaviest.weight} is above {MAX_WEIGHT}: all weights of its tier are divided by "
                f"{heaviest.weight / MAX_WEIGHT:.4g}",
            )
        )
        for item in items:
            # to the nearest, in whole numbers: what is registered may be larger than a float is exact
            share = (2 * item.weight * MAX_WEIGHT + heaviest.weight) // (2 * heaviest.weight)
            weights[item.id] = max(share, min(item.weight, 1))
            if share < weights[item.id]:
                why = f"weight {item.weight} beside {heaviest.weight} becomes 1, which is more than its share"
                remarks.append(Remark(item.id, why))
    return weights, tuple(sorted(remarks, key=lambda remark: (remark.id, remark.why)))
