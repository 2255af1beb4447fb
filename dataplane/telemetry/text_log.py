"""The log for people: words, in colours on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, cast

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


class _Logger:
    """What structlog logs with: one write for each line, so that lines of threads cannot mix."""

    def __init__(self, sink: LineSink) -> None:
        self._sink = sink

    def msg(self, message: str) -> None:
        """Queue one line."""
        self._sink.write(f"{message}\n".encode("utf-8", "backslashreplace"))

    debug = info = warning = error = critical = msg


def text_writer(sink: LineSink, warnings: Collection[str]) -> Callable[..., None]:
    """Return what writes an event to `sink`; those of some kinds are warnings."""
    log = structlog.wrap_logger(
        _Logger(sink),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            _escape_controls,
            structlog.dev.ConsoleRenderer(colors=os.isatty(2)),
        ],
    )

    def write(kind: str, **fields: Any) -> None:
        (log.warning if kind in warnings else log.info)(kind, **fields)

    return write


def _escape_controls(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep control characters of untrusted text out of a terminal; JSON escapes them by itself."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key != "exception":
            event[key] = value.encode("unicode_escape").decode("ascii")
    return event
