"""What a data plane says of itself: of one process, and of a supervisor with its workers."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Final, Protocol

from dataplane.background import load
from dataplane.build import BUILD
from dataplane.core.client_hello import ClientHello
from dataplane.core.fair_share import skew
from dataplane.core.phase import Life
from dataplane.core.reasons import CloseReason, DiscardCause
from dataplane.net.counters import LATENCY_BOUNDS_S
from dataplane.node.apply import Applier
from dataplane.report.explain import routed
from dataplane.report.figures import BackendFigures, Figures, Numbers, ServiceFigures, Tally
from dataplane.report.metrics import Runs, families
from dataplane.report.tls_row import tls_row
from dataplane.report.views import BackendView
from dataplane.telemetry.events import rfc3339
from dataplane.tls.service import CertificateView
from schemas.replies import Explanation, Info
from schemas.status import (
    BackendStatus,
    CertificateStatus,
    ListenerStatus,
    ServiceStatus,
    Status,
    TimesStatus,
    TlsTotals,
)

_BOUNDS: Final = (*map(str, LATENCY_BOUNDS_S), "+Inf")
SLICE: Final = 100
"""Backends described between two turns of the loop."""


async def describe(figures: Figures, monotonic_began: float) -> dict[str, ServiceStatus]:
    """Describe every service, in slices; the monotonic clock was at 0 when `monotonic_began`, in Unix seconds."""

    @cache  # most of them have changed in the same moment
    def at(monotonic: float) -> str:
        return rfc3339(monotonic_began + monotonic)

    services = {name: _service(one, at) for name, one in figures.services.items()}
    for (name, address), listener in figures.listeners.items():
        if (
            listener.state is not None and name in services
        ):  # a supervisor listens before workers tell of a service
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


def _service(one: ServiceFigures, at: Callable[[float], str]) -> ServiceStatus:
    status: ServiceStatus = {
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
            "harmed": sum(
                count for reason, count in zip(CloseReason, one.closed, strict=True) if reason.harm
            ),
        },
        "recent": {
            "window_s": round(one.recent.window_s, 1),
            "connections": one.recent.connections,
            "refused": one.recent.refused,
            "cut": one.recent.cut,
        },
        "backends": [],
    }
    match = one.view.match
    if match is not None:
        status["match"] = {"sni": list(match.sni), "alpn": list(match.alpn), "source": list(match.source)}
    if one.tls:
        status["totals"]["tls"] = _tls(one.tls)
    if one.view.certificates:
        status["certificates"] = [_certificate(view, at) for view in one.view.certificates]
    begins = one.view.backend_tls
    if begins is not None:
        status["backend_tls"] = {
            "verify": begins.verify,
            "ca": begins.ca,
            "server_name": begins.server_name,
        }
    return status


def _certificate(view: CertificateView, at: Callable[[float], str]) -> CertificateStatus:
    return {
        "place": view.place,
        "cert": view.cert,
        "names": list(view.names),
        "key_type": view.key,
        "serial": view.serial,
        "begins": rfc3339(view.not_before),
        "ends": rfc3339(view.not_after),
        "not_renewed": view.trouble,
        "not_renewed_since": None if view.since is None else at(view.since),
        "key_readable_by_all": view.key_readable,
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
            "first_byte": _times(one.first_byte),
            "pool": {
                "hits": one.hits,
                "misses": one.misses,
                "discarded": _by_word(DiscardCause, one.discarded),
            },
        },
    }
    if one.tls:
        status["totals"]["tls"] = _tls(one.tls)
    if view.removed:
        status["removed"] = True
    return status


def _tls(numbers: Numbers) -> TlsTotals:
    """Describe handshakes."""
    row = tls_row(numbers)
    assert row is not None  # noqa: S101 - the caller looked
    return {
        "handshakes": {version: int(count) for version, count in row.versions.items() if count},
        "resumed": int(row.resumed),
        "failed": {cause.value: int(count) for cause, count in row.causes.items() if count},
        "time": _times(row.seconds),
    }


def _times(numbers: Numbers) -> TimesStatus:
    """Describe a histogram."""
    if not any(numbers):  # of most backends of many, nothing was measured
        return {"count": 0, "sum_s": 0.0, "buckets": {}}
    *counts, total = numbers
    buckets = {bound: int(count) for bound, count in zip(_BOUNDS, counts, strict=True) if count}
    return {"count": sum(buckets.values()), "sum_s": round(total, 6), "buckets": buckets}


def _by_word(
    words: Iterable[CloseReason] | Iterable[DiscardCause], counts: tuple[int, ...]
) -> dict[str, int]:
    if not any(counts):
        return {}
    return {word.value: count for word, count in zip(words, counts, strict=True) if count}


VERSION: Final = version("livelb")


class Source(Protocol):
    """Whose figures they are: this process's, or all workers'."""

    @property
    def count(self) -> int:
        """How many processes relay."""

    async def tally(self, info: Info, *, each: bool, draining: bool) -> Tally:
        """Return all figures: of `each` backend of a crowd, too, for status; else of all as one, for metrics."""

    async def explain(self, service: str, client: str) -> Explanation:
        """Say what a client would get."""

    def not_ready(self) -> str | None:
        """Return why clients should go elsewhere, though this process runs something; None if they need not."""


def _exposition() -> None:
    """Import prometheus_client: 1 MiB, and 30 ms of CPU that a start does not wait for."""
    import dataplane.report.exposition  # noqa: F401, PLC0415 - see above


class Report:
    """Answers what the API is asked (dataplane.api.plane.Report)."""

    def __init__(self, name: str, life: Life, applier: Applier, source: Source) -> None:
        self.explain = source.explain
        self._name = name
        self._life = life
        self._applier = applier
        self._source = source
        self._started_at = time.monotonic()

    async def explain_by_name(self, service: str, client: str, sni: str, alpn: Sequence[str]) -> Explanation:
        """Say where a client is routed that asks for this, and what it would get there.

        Args:
            service: One of those that share a listener; empty: any.
            client: Its IP address.
            sni: The name; empty: none.
            alpn: The protocols that it offers, the best first.

        Raises:
            Refused: As `dataplane.report.explain.routed` does.
        """
        hello = ClientHello(sni.lower().removesuffix("."), tuple(alpn))
        routes = routed(self._applier.node, service, client, hello)
        target = next(one["service"] for one in routes if one["service"])
        explanation = await self.explain(target, client)
        explanation["routes"] = routes
        return explanation

    def info(self) -> Info:
        """Say who answers, and what it runs."""
        applier = self._applier
        return {
            "name": self._name,
            "pid": os.getpid(),
            "instance": applier.node.events.instance,
            "version": VERSION,
            "build": BUILD,
            "workers": self._source.count,
            "uptime_s": round(time.monotonic() - self._started_at, 3),
            "generation": applier.snapshot.generation,
            "hash": applier.snapshot.hash,
            "pushed_by": applier.pushed_by,
        }

    async def _tally(self, *, each: bool) -> tuple[Info, Tally]:
        info = self.info()
        return info, await self._source.tally(info, each=each, draining=self._life.leaving_since is not None)

    async def status(self) -> Status:
        """Describe everything."""
        info, tally = await self._tally(each=True)
        since = self._life.leaving_since
        return {
            "name": info["name"],
            "pid": info["pid"],
            "instance": info["instance"],
            "version": info["version"],
            "build": info["build"],
            "generation": info["generation"],
            "hash": info["hash"],
            "uptime_s": info["uptime_s"],
            "saved": self._applier.store.saved,
            "phase": self._life.phase.value,
            "draining_since": None if since is None else rfc3339(since),
            "skew": round(skew([worker["active"] for worker in tally.workers]), 2),
            "workers": tally.workers,
            "services": await describe(tally.figures, time.time() - time.monotonic()),
        }

    async def metrics(self) -> bytes:
        """Return Prometheus text."""
        await load(_exposition)
        from dataplane.report.exposition import exposition  # noqa: PLC0415 - loaded by the first who asks

        info, tally = await self._tally(each=False)
        runs = Runs(info["generation"], info["hash"], self._applier.store.saved, info["uptime_s"])
        return await exposition([*families(tally.figures, runs), *tally.families])

    def not_ready(self) -> str | None:
        """Return why this node should get no traffic."""
        if self._life.leaving_since is not None:
            return "the process is ending"
        if not self._applier.snapshot.generation:
            return "generation 0: waiting for a snapshot"
        return self._source.not_ready()
