"""Handshakes as a row of numbers."""

from __future__ import annotations

from types import SimpleNamespace

from dataplane.core.tls_cause import TlsCause
from dataplane.net.counters import BackendTotals, ServiceTotals, tls_totals
from dataplane.report.figures import add_columns
from dataplane.report.tls_row import tls_numbers, tls_row, tls_sum


def counted(**channel):
    """Return totals that have met one handshake, and two that failed."""
    totals = BackendTotals()
    told = {"version": "TLSv1.3", "resumed": False, "handshake_s": 0.002, **channel}
    tls_totals(totals).completed(SimpleNamespace(**told))
    for _ in range(2):
        tls_totals(totals).failed(TlsCause.EXPIRED)
    return totals


def test_without_tls_there_is_no_row():
    """Nothing travels, and nothing is told."""
    assert tls_numbers(ServiceTotals()) == tls_numbers(BackendTotals()) == tls_sum([BackendTotals()]) == ()
    assert tls_row(()) is None


def test_a_row_has_the_names_of_what_was_counted():
    """Each number is where its word is."""
    row = tls_row(tls_numbers(counted(resumed=True)))
    assert row is not None
    assert row.versions == {"TLSv1.2": 0, "TLSv1.3": 1}
    assert row.resumed == 1
    assert {cause: count for cause, count in row.causes.items() if count} == {TlsCause.EXPIRED: 2}
    assert (sum(row.seconds[:-1]), row.seconds[-1]) == (1, 0.002)
    assert row.seconds[2] == 1, "in the bucket of 2.5 ms"


def test_rows_add_up():
    """Those of two processes, and those of backends among which some have none."""
    one, other = counted(version="TLSv1.2", handshake_s=0.5), counted(resumed=True)
    summed = tls_sum([one, BackendTotals(), other])
    assert summed == add_columns(tls_numbers(one), tls_numbers(other))
    row = tls_row(summed)
    assert row is not None
    assert (row.versions, row.resumed) == ({"TLSv1.2": 1, "TLSv1.3": 1}, 1)
    assert row.causes[TlsCause.EXPIRED] == 4
    assert row.seconds[-1] == 0.502
