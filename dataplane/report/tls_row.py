"""What is counted of TLS handshakes, as it travels and adds up: one row of numbers, in the order in which it is counted.

A row is empty where there was no TLS, which is nearly everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dataplane.core.tls_cause import TlsCause
from dataplane.net.counters import TLS_VERSIONS, BackendTotals, ServiceTotals
from dataplane.report.figures import Numbers, add_columns

_RESUMED = len(TLS_VERSIONS)
_SECONDS = _RESUMED + 1 + len(TlsCause)


class TlsRow(NamedTuple):
    """One row, by the names of its parts."""

    versions: dict[str, float]
    """Handshakes that were completed, by version."""
    resumed: float
    causes: dict[TlsCause, float]
    """Handshakes that failed, by cause."""
    seconds: Numbers
    """How long those took that were completed."""


def tls_numbers(totals: ServiceTotals | BackendTotals) -> Numbers:
    """Return what was counted."""
    return () if totals.tls is None else totals.tls.numbers()


def tls_sum(totals: Iterable[BackendTotals]) -> Numbers:
    """Return what was counted with several backends."""
    summed: Numbers = ()
    for one in totals:
        if one.tls is not None:
            summed = add_columns(summed, one.tls.numbers())
    return summed


def tls_row(numbers: Numbers) -> TlsRow | None:
    """Name the parts of a row; None: it is empty."""
    if not numbers:
        return None
    versions = dict(zip(TLS_VERSIONS, numbers, strict=False))
    causes = dict(zip(TlsCause, numbers[_RESUMED + 1 : _SECONDS], strict=True))
    return TlsRow(versions, numbers[_RESUMED], causes, numbers[_SECONDS:])
