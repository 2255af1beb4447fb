"""Metrics as the text that Prometheus reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import Final

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dataplane.report.figures import Family

SLICE: Final = 100
"""Samples written between two turns of the loop, about a millisecond: 70,000 take prometheus_client a second."""


class _One(Collector):
    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


async def exposition(families: Iterable[Family]) -> bytes:
    """Return the text format of families that have samples."""
    pieces: list[str] = []
    for kind, name, help_, samples in families:
        rest, head = iter(samples), ""
        while some := list(islice(rest, SLICE)):
            metric = Metric(name, help_, kind)
            for sample in some:
                metric.add_sample(*sample)
            help_line, type_line, body = generate_latest(_One(metric)).decode().split("\n", 2)
            if not head:
                head = f"{help_line}\n{type_line}\n"
                pieces.append(head)
            pieces.append(body)
            await asyncio.sleep(0)
    return "".join(pieces).encode()
