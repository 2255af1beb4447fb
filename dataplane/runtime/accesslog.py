"""The access log: one JSON object for each connection that ended."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from dataplane.core.reasons import REASONS, CloseReason
from dataplane.runtime.events import rfc3339

if TYPE_CHECKING:
    from dataplane.net.leg import Leg
    from dataplane.net.relay import Flow
    from dataplane.runtime.sink import LineSink

__all__ = ["AccessLog"]


class AccessLog:
    """Formats flows that have ended, into a sink."""

    def __init__(self, sink: LineSink) -> None:
        self.sink = sink

    def __call__(self, flow: Flow, reason: CloseReason, server: Leg | None) -> None:
        """Write one line. Times are milliseconds; null where the flow did not get so far."""
        started, now = flow.started_at, flow.reactor.clock()
        connected, first = flow.connected_at, flow.first_at
        address = flow.address
        backend = flow.backend or (flow.tried[-1] if flow.tried else None)
        entry = {
            "at": rfc3339(time.time() - (now - started)),
            "service": flow.service.name,
            "client": _endpoint(*address) if address else "unix",
            "backend": backend.id if backend else None,
            "reason": reason.value,
            "source": REASONS[reason].value,
            "detail": flow.detail,
            "first_byte": bool(first),
            "pool_hit": flow.pooled,
            "retries": len(flow.tried),
            "bytes_in": flow.client.received,
            "bytes_out": server.received if server else 0,
            "queue_ms": _ms(flow.queued_s),
            "connect_ms": _ms(connected - started - flow.queued_s) if connected else None,
            "first_byte_ms": _ms(first - connected) if first else None,
            "total_ms": _ms(now - started),
        }
        self.sink.write(json.dumps(entry).encode("ascii") + b"\n")


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _ms(seconds: float) -> float:
    return round(max(0.0, seconds) * 1000, 3)
