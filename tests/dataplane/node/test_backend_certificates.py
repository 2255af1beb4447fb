"""Certificates of backends that end soon: who is told, and how often."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.node.backend_certificates import DAY_S, BackendCertificates

ENDS = 1_800_000_000.0
DUE = ENDS - 14 * DAY_S


@pytest.fixture
def told() -> list[tuple[str, dict[str, Any]]]:
    """What was said."""
    return []


@pytest.fixture
def certificates(told: list[tuple[str, dict[str, Any]]]) -> BackendCertificates:
    """Those of a service `web`."""
    return BackendCertificates("web", lambda kind, **fields: told.append((kind, fields)))


def test_told_once_a_day_from_when_it_is_due(
    certificates: BackendCertificates, told: list[tuple[str, dict[str, Any]]]
) -> None:
    """However often it is checked."""
    for hour in range(-24, 49):
        certificates.seen("b1", "10.0.0.1:443", ENDS, DUE, DUE + hour * 3600.0)
    assert [(kind, fields["days"]) for kind, fields in told] == [
        ("backend_certificate_ends", 14.0),
        ("backend_certificate_ends", 13.0),
        ("backend_certificate_ends", 12.0),
    ]
    assert told[0][1].items() >= {"service": "web", "backend": "b1", "address": "10.0.0.1:443"}.items()
    assert told[0][1]["ends"].startswith("2027-01-15")


def test_a_renewal_is_noticed(
    certificates: BackendCertificates, told: list[tuple[str, dict[str, Any]]]
) -> None:
    """The next one that ends soon is told at once."""
    certificates.seen("b1", "a", ENDS, DUE, DUE)
    certificates.seen("b1", "a", ENDS + 90 * DAY_S, DUE + 90 * DAY_S, DUE + 1)
    certificates.seen("b1", "a", ENDS, DUE, DUE + 2)
    assert len(told) == 2


def test_a_backend_that_has_gone_is_forgotten(
    certificates: BackendCertificates, told: list[tuple[str, dict[str, Any]]]
) -> None:
    """One that comes back under its name is another one."""
    for name in ("b1", "b2"):
        certificates.seen(name, "a", ENDS, DUE, DUE)
    certificates.keep({"b2"})
    for name in ("b1", "b2"):
        certificates.seen(name, "a", ENDS, DUE, DUE + 1)
    assert [fields["backend"] for _, fields in told] == ["b1", "b2", "b1"]
