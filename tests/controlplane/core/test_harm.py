"""What clients met: how many, of how many, by which reasons, and from when on it is bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.core.harm import _ADVICE, harms
from dataplane.core.reasons import CloseReason


def recent(connections=0, refused=None, cut=None):
    """Make a service's part of a status."""
    return {"window_s": 60.0, "connections": connections, "refused": refused or {}, "cut": cut or {}}


def test_refused_clients_are_counted_by_reason():
    """The most frequent reason comes first, and says what to do."""
    (one,) = harms(recent(430, {"queue_full": 12, "connect_failed": 400}))
    assert one.text("web") == (
        "web: 412 of 430 clients in the last minute were refused: connect_failed 400, queue_full 12"
    )
    assert (one.first, one.is_bad) == ("connect_failed", True)
    assert one.advice == "try the backends by hand, from this machine"


def test_one_reason_needs_no_number():
    """It has been said already."""
    (one,) = harms(recent(5, {"no_backend": 5}))
    assert one.text("web").endswith("were refused: no_backend")


@pytest.mark.parametrize(
    ("how", "clients", "said"),
    [
        ("refused", 0, None),
        ("refused", 1, False),
        ("refused", 10, True),
        ("cut", 9, None),
        ("cut", 10, False),
        ("cut", 499, False),
        ("cut", 500, True),
    ],
)
def test_shares(how, clients, said):
    """Any refused client is said, from one of a hundred on as bad; resets of backends are common with some protocols."""
    found = harms(recent(1000, **{how: {"local_error" if how == "refused" else "backend_reset": clients}}))
    assert [each.is_bad for each in found] == ([] if said is None else [said])


def test_clients_of_before_that_are_cut_now():
    """Those who came earlier are among those who are cut: it is never more of them than there were."""
    (one,) = harms(recent(2, cut={"backend_reset": 50}))
    assert (one.clients, one.of, one.is_bad) == (50, 50, True)


def test_an_older_data_plane_says_nothing():
    """It has no such figures."""
    assert harms({}) == []


def test_every_reason_that_harms_has_advice_here_and_on_the_page():
    """A new reason gets its sentence in both places."""
    harmful = {reason.value for reason in CloseReason if reason.harm}
    assert _ADVICE.keys() == harmful
    page = (Path(__file__).parents[3] / "controlplane/ui/meaning.js").read_text()
    assert [reason for reason in harmful if f"{reason}:" not in page] == []
