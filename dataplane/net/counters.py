"""Counters of the connection path: plain numbers, read by status and metrics, never locked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from dataplane.core.reasons import CloseReason, DiscardCause
from dataplane.core.tls_cause import TlsCause

if TYPE_CHECKING:
    from dataplane.net.tls import Channel

LATENCY_BOUNDS_S: Final = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
TLS_VERSIONS: Final = ("TLSv1.2", "TLSv1.3")
"""All that is spoken here."""
SESSION_BOUNDS_S: Final = (0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21600.0)


class Histogram:
    """Counts of observations by upper bound."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """One for each bound, not cumulative, and the last for what is above them all."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count `value`; most are below the first bounds."""
        index = 0
        for bound in self.bounds:
            if value <= bound:
                break
            index += 1
        self.counts[index] += 1
        self.sum += value


class TlsTotals:
    """What became of TLS handshakes: of a service's clients, or with a backend."""

    __slots__ = ("causes", "resumed", "seconds", "versions")

    def __init__(self) -> None:
        self.versions = dict.fromkeys(TLS_VERSIONS, 0)
        """Handshakes that were completed."""
        self.resumed = 0
        """Those of them that went on with an earlier session."""
        self.causes = dict.fromkeys(TlsCause, 0)
        """Those that failed."""
        self.seconds = Histogram(LATENCY_BOUNDS_S)
        """How long those took that were completed."""

    def completed(self, channel: Channel) -> None:
        """Count a handshake that is over."""
        self.versions[channel.version] += 1
        self.resumed += channel.resumed
        self.seconds.observe(channel.handshake_s)

    def failed(self, cause: TlsCause) -> None:
        """Count one that failed."""
        self.causes[cause] += 1

    def numbers(self) -> tuple[float, ...]:
        """Return all of it in one row, which adds up column by column: see `report.tls_row`."""
        versions = [self.versions[version] for version in TLS_VERSIONS]
        seconds = self.seconds
        return (*versions, self.resumed, *self.causes.values(), *seconds.counts, seconds.sum)


class ServiceTotals:
    """What a service has seen since it exists."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "closed",
        "connections",
        "handed_over",
        "queue",
        "retries",
        "session",
        "tls",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.retries = 0
        self.handed_over = 0
        """Clients that went to another worker instead: they are none of `connections`, here."""
        self.closed = dict.fromkeys(CloseReason, 0)
        self.session = Histogram(SESSION_BOUNDS_S)
        self.queue = Histogram(LATENCY_BOUNDS_S)
        self.tls: TlsTotals | None = None
        """Of clients whose TLS ends here; None: there were none."""


class BackendTotals:
    """What a backend has seen since it was configured; `bytes_in` is client to backend."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "connect",
        "connect_failures",
        "connections",
        "discarded",
        "ejections",
        "first_byte",
        "hits",
        "misses",
        "tls",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.connect_failures = 0
        self.ejections = 0
        self.hits = 0
        self.misses = 0
        self.discarded = dict.fromkeys(DiscardCause, 0)
        self.connect = Histogram(LATENCY_BOUNDS_S)
        self.first_byte = Histogram(LATENCY_BOUNDS_S)
        self.tls: TlsTotals | None = None
        """Of TLS that began here; None: there was none."""


def tls_totals(totals: ServiceTotals | BackendTotals) -> TlsTotals:
    """Return where the handshakes of a service's clients, or with a backend, are counted; they begin now if there were none."""
    found: TlsTotals | None = totals.tls
    if found is None:
        found = totals.tls = TlsTotals()
    return found
