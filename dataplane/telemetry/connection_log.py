"""What is kept of each connection that ended: the access log and spans, both wired to what a `Service` calls."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dataplane.core.reasons import CloseReason
from dataplane.net.flow import Flow
from dataplane.net.leg import Leg
from dataplane.telemetry.access_log import AccessLog, Wanted
from dataplane.telemetry.line_writer import open_sink

if TYPE_CHECKING:
    from dataplane.telemetry.tracing import Tracing

__all__ = ["Recording", "RecordingOptions"]

Record = Callable[[Flow, CloseReason, "Leg | None"], None]


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """What the command line says; it travels to workers."""

    access_log: str = "off"
    wanted: Wanted = field(default_factory=Wanted)
    trace_sample: float = 0.0
    """The share of connections that get a span, 0..1; 0: no tracing."""
    trace_endpoint: str | None = None


class Recording:
    """One process's access log and spans.

    Args:
        options: What is wanted.
        name: Of the data plane.
        tell: Called with the kind and the fields of an event.

    Raises:
        OSError: The access log cannot be opened.
        ValueError: The environment's OTEL_* cannot be.
    """

    def __init__(
        self,
        options: RecordingOptions,
        name: str,
        tell: Callable[..., None],
    ) -> None:
        draw = random.Random().random  # noqa: S311 - it decides what is logged
        self._tell = tell
        self.sink = open_sink(options.access_log)
        """Where the access log goes; None: there is none."""
        self._tracing: Tracing | None = None
        records: list[Record] = []
        if self.sink is not None:
            records.append(AccessLog(self.sink, options.wanted, draw))
        if options.trace_sample:
            from dataplane.telemetry.tracing import Tracing  # noqa: PLC0415 - an extra, and 0.2 s

            self._tracing = Tracing(
                options.trace_sample, options.trace_endpoint, name=name, draw=draw, tell=tell
            )
            records.append(self._tracing)
        self.record: Record | None = _both(*records) if len(records) > 1 else next(iter(records), None)
        """What a `Service` calls at the end of each connection; None: nothing is kept."""

    @property
    def dropped_lines(self) -> int:
        """Lines of the access log that nobody will see."""
        return self.sink.dropped if self.sink else 0

    def spans(self) -> tuple[int, int]:
        """Return how many spans were exported, and how many lost."""
        return (self._tracing.exported, self._tracing.dropped) if self._tracing else (0, 0)

    def reopen(self) -> None:
        """Open the access log's file anew: somebody has renamed it."""
        try:
            if self.sink is not None and self.sink.reopen():
                self._tell("access_log_reopened", path=self.sink.path)
        except OSError as error:
            self._tell("access_log_not_reopened", cause=str(error))

    async def close(self) -> None:
        """Write and export what waits, within a few seconds."""
        if self._tracing is not None:
            await self._tracing.close()
        if self.sink is not None:
            self.sink.close()


def _both(first: Record, second: Record) -> Record:
    def record(flow: Flow, reason: CloseReason, server: Leg | None) -> None:
        first(flow, reason, server)
        second(flow, reason, server)

    return record
