"""Status, rendered from figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import cache
from typing import Final

from dataplane.core.reasons import CloseReason, DiscardCause
from dataplane.report.figures import BackendFigures, BackendView, Figures, ServiceFigures
from dataplane.telemetry.events import rfc3339
from schemas.status import BackendStatus, ListenerStatus, ServiceStatus

__all__ = ["describe"]

SLICE: Final = 100
"""Backends described between two turns of the loop."""


async def describe(figures: Figures, monotonic_began: float) -> dict[str, ServiceStatus]:
    """Describe every service, in slices.

    Args:
        figures: What is described.
        monotonic_began: When the monotonic clock was at 0, in Unix seconds.
    """

    @cache  # most of them have changed in the same moment
    def at(monotonic: float) -> str:
        return rfc3339(monotonic_began + monotonic)

    services = {name: _service(one) for name, one in figures.services.items()}
    for (name, address), listener in figures.listeners.items():
        if listener.state is not None:
            told: ListenerStatus = {
                "address": address,
                "state": listener.state,
                "accepted": listener.accepted,
            }
            services[name]["listeners"].append(told)
    for index, ((name, id_), backend) in enumerate(figures.backends.items(), 1):
        services[name]["backends"].append(_backend(id_, backend, at))
        if index % SLICE == 0:
            await asyncio.sleep(0)
    return services


def _service(one: ServiceFigures) -> ServiceStatus:
    return {
        "mode": one.view.mode,
        "table_hash": one.view.table_hash,
        "panic": one.view.panic,
        "tier": one.view.tier,
        "active": one.active,
        "queued": one.queued,
        "listeners": [],
        "totals": {
            "connections": one.connections,
            "bytes_in": one.bytes_in,
            "bytes_out": one.bytes_out,
            "retries": one.retries,
            "closed": _by_word(CloseReason, one.closed),
        },
        "recent": {
            "window_s": round(one.recent.window_s, 1),
            "connections": one.recent.connections,
            "refused": one.recent.refused,
            "cut": one.recent.cut,
        },
        "backends": [],
    }


def _backend(id_: str, one: BackendFigures[BackendView], at: Callable[[float], str]) -> BackendStatus:
    view = one.view
    status: BackendStatus = {
        "id": id_,
        "address": view.address,
        "weight": view.weight,
        "tier": view.tier,
        "state": view.state,
        "overridden": {
            field: {"value": getattr(value, "value", value), "since": at(since)}
            for field, (value, since) in view.overridden.items()
        },
        "health": {
            "state": view.health,
            "cause": view.cause,
            "since": at(view.since),
            "reachable": view.reachable,
        },
        "active": one.active,
        "pooled": one.pooled,
        "draining_since": None if view.draining_since is None else at(view.draining_since),
        "totals": {
            "connections": one.connections,
            "connect_failures": one.connect_failures,
            "bytes_in": one.bytes_in,
            "bytes_out": one.bytes_out,
            "ejections": one.ejections,
            "pool": {
                "hits": one.hits,
                "misses": one.misses,
                "discarded": _by_word(DiscardCause, one.discarded),
            },
        },
    }
    if view.removed:
        status["removed"] = True
    return status


def _by_word(
    words: Iterable[CloseReason] | Iterable[DiscardCause], counts: tuple[int, ...]
) -> dict[str, int]:
    if not any(counts):
        return {}
    return {word.value: count for word, count in zip(words, counts, strict=True) if count}
