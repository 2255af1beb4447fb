"""Tells when lines of a log begin to be lost, why, and when they are written again: by numbers that the sinks keep anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dataplane.net.reactor import Reactor
    from dataplane.telemetry.line_writer import LineSink

__all__ = ["LossWatch"]

LOOK_S: Final = 1.0
QUIET_S: Final = 5.0
"""How long nothing must be lost, and something be written, until it is over: a slow reader loses and takes in turns."""
SLOW: Final = "whoever reads it is too slow"


class _Log:
    """One of them. What `lost` and `written` mean is the sink's."""

    __slots__ = ("before", "last_at", "losing", "lost", "name", "sink", "written")

    def __init__(self, name: str, sink: LineSink) -> None:
        self.name = name
        self.sink = sink
        self.lost = sink.dropped
        self.written = 0
        self.before = 0
        self.last_at = 0.0
        self.losing = False


class LossWatch:
    """Looks at sinks every LOOK_S seconds.

    Args:
        sinks: By what an operator calls them.
        tell: Takes the kind and the fields of an event.
    """

    tick = 0

    def __init__(self, sinks: Mapping[str, LineSink | None], tell: Callable[..., None]) -> None:
        self._logs = [_Log(name, sink) for name, sink in sinks.items() if sink is not None]
        self._tell = tell
        self._reactor: Reactor | None = None

    def start(self, reactor: Reactor) -> None:
        """Look from now on."""
        self._reactor = reactor
        reactor.wheel.at(self, reactor.clock() + LOOK_S)

    def on_timer(self, now: float) -> None:
        """Look, and come again."""
        if self._reactor is not None:
            self._reactor.wheel.at(self, now + LOOK_S)
        for log in self._logs:
            self._look(log, now)

    def _look(self, log: _Log, now: float) -> None:
        sink = log.sink
        lost = sink.dropped
        more, log.lost = lost - log.lost, lost
        if more:
            log.last_at, log.written = now, sink.written
            if not log.losing:
                log.losing, log.before = True, lost - more
                where = {} if sink.path is None else {"path": sink.path}
                self._tell("log_lines_lost", log=log.name, **where, cause=sink.trouble or SLOW, lines=more)
        elif log.losing and now - log.last_at >= QUIET_S and sink.written > log.written:
            log.losing, sink.trouble = False, ""
            self._tell("log_written_again", log=log.name, lines=lost - log.before)
