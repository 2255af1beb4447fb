"""The log: one event, one line, through a sink that never blocks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, cast

from dataplane.telemetry.line_writer import LineSink


@contextmanager
def _without(*packages: str) -> Iterator[None]:
    """Have imports find none of these packages meanwhile; those that are loaded already stay."""
    modules = cast("dict[str, object]", sys.modules)
    hidden = {name: None for name in packages if name not in modules}
    modules.update(hidden)  # None: Python's import takes a package for missing
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


# It loads these where they are, to print tracebacks in boxes, which we give it as text: 5 MiB, and 50 ms of each start.
with _without("rich", "colorama"):
    import structlog

WARNINGS: Final = frozenset(
    {
        "access_log_not_reopened",
        "api_not_served",
        "apply_refused",
        "backend_down",
        "backend_ejected",
        "backend_unreachable",
        "credentials_expired",
        "credentials_not_renewed",
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


class _Logger:
    """What structlog logs with: one write for each line, so that lines of threads cannot mix."""

    def __init__(self, sink: LineSink) -> None:
        self._sink = sink

    def msg(self, message: str) -> None:
        """Queue one line."""
        self._sink.write(f"{message}\n".encode("utf-8", "backslashreplace"))

    debug = info = warning = error = critical = msg


def configure_log(sink: LineSink, form: str) -> None:
    """Send structlog's events to `sink`, as `json`, or as `text` for people, in colours on a terminal."""
    renderer: Any = structlog.processors.JSONRenderer()
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="at")
    if form == "text":
        stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)
        renderer = structlog.dev.ConsoleRenderer(colors=os.isatty(2), event_key="event")
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            stamp,
            structlog.processors.format_exc_info,
            _escape_controls,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(20),
        logger_factory=lambda *_: _Logger(sink),
        cache_logger_on_first_use=True,
    )


def log_event(kind: str, **fields: Any) -> None:
    """Log one happening at the level that its kind deserves."""
    log = structlog.get_logger()
    (log.warning if kind in WARNINGS else log.info)(kind, **fields)


def _escape_controls(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep control characters of untrusted text out of a terminal; JSON escapes them by itself."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key != "exception":
            event[key] = value.encode("unicode_escape").decode("ascii")
    return event
