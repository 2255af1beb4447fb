"""Prometheus text in slices, between which the loop relays: 70,000 samples take prometheus_client a second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dataplane.ipc.messages import Families, Sample

__all__ = ["exposition"]

SLICE: Final = 100
"""Samples written between two turns of the loop: about a millisecond."""


class _One(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


async def exposition(parts: Iterable[Families]) -> bytes:
    """Return the text format of families that come in parts: each family once, with the samples of all parts.

    Args:
        parts: Of bounded size; the loop has its turn after each.
    """
    heads: dict[str, str] = {}
    bodies: dict[str, list[str]] = {}
    for families in parts:
        for kind, name, help_, samples in families:
            for some in _slices(samples):
                metric = Metric(name, help_, kind)
                for sample, labels, value in some:
                    metric.add_sample(sample, labels, value)
                help_line, type_line, body = generate_latest(_One(metric)).decode().split("\n", 2)
                heads[name] = f"{help_line}\n{type_line}\n"
                bodies.setdefault(name, []).append(body)
                if len(some) == SLICE:
                    await asyncio.sleep(0)
        await asyncio.sleep(0)
    return "".join(head + "".join(bodies[name]) for name, head in heads.items()).encode()


def _slices(samples: list[Sample]) -> Iterator[list[Sample]]:
    for start in range(0, len(samples) or 1, SLICE):
        yield samples[start : start + SLICE]
