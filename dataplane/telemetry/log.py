"""The log: one event, one line, through a sink that never blocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from dataplane.telemetry.line_writer import LineSink

WARNINGS: Final = frozenset(
    {
        "access_log_not_reopened",
        "api_not_served",
        "apply_refused",
        "backend_certificate_ends",
        "backend_down",
        "backend_ejected",
        "backend_unreachable",
        "credentials_expired",
        "authorities_not_renewed",
        "certificate_ended",
        "certificate_not_renewed",
        "credentials_not_renewed",
        "key_readable_by_all",
        "dropped",
        "ejection_refused",
        "backend_loop",
        "local_error",
        "log_lines_lost",
        "no_usable_backend",
        "orphaned",
        "panic",
        "snapshot_not_saved",
        "spans_lost",
        "saved_snapshot_unusable",
        "restart_failed",
        "takeover_failed",
        "takeover_not_offered",
        "unhandled",
        "unresolved",
        "worker_died",
        "worker_failed",
        "worker_killed",
    }
)
"""Events that somebody should look at."""


def event_writer(log: LineSink, form: str) -> Callable[..., None]:
    """Return what writes an event to `log`: as `json`, or as `text` for people."""
    if form == "text":
        # structlog: 20 ms of a start and 1 MiB, and programs that read a log read JSON
        from dataplane.telemetry.text_log import text_writer  # noqa: PLC0415 - see above

        return text_writer(log, WARNINGS)

    def write(kind: str, **fields: Any) -> None:
        level = "warning" if kind in WARNINGS else "info"
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        log.write(json.dumps({**fields, "event": kind, "level": level, "at": at}).encode() + b"\n")

    return write
