"""What several processes see, as one: the first one's word, and the worst that anybody has found."""

from __future__ import annotations

from dataclasses import replace

from dataplane.report.views import BackendView, ServiceView, Sight, Sights, worst_certificates
from dataplane.tls.service import CertificateView

VIEW = BackendView("x", 1, 0, "enabled", {}, None, False, "up", "ok", 10.0, True, True)
WEB = ServiceView("sticky", "01", 0, False, 3, 2)
UP = Sight(1, usable=True, reachable=True, draining_since=None, health="up")


def test_the_first_says_how_it_is_configured() -> None:
    """Where processes differ, they are about to be told of a change."""
    both = replace(VIEW, weight=5, state="drain", draining_since=3.0) + VIEW
    assert (both.weight, both.state, both.draining) == (5, "drain", True)
    assert (replace(WEB, tier=1) + WEB).tier == 1
    assert (Sights(a=UP._replace(weight=5)) + Sights(a=UP))["a"].weight == 5


def test_any_ejection_shows_but_not_over_down() -> None:
    """Ejected by one worker is ejected, since the first did it; what active checks found down stays down."""
    both = VIEW
    for since in (30.0, 20.0, 40.0):
        both += replace(VIEW, health="ejected", cause=f"at {since}", since=since)
    assert (both.health, both.cause, both.since) == ("ejected", "at 20.0", 20.0)
    both = replace(VIEW, health="down", cause="refused") + replace(VIEW, health="ejected")
    assert (both.health, both.cause) == ("down", "refused")


def test_whoever_cannot_connect_is_believed() -> None:
    """Neither reachable nor usable is what one process says is not."""
    both = VIEW + replace(VIEW, reachable=False, usable=False, health="ejected") + VIEW
    assert not both.reachable
    assert not both.usable
    web = WEB + replace(WEB, usable=1, serving=1, panic=True) + WEB
    assert (web.usable, web.serving, web.panic) == (1, 1, True)


def test_whoever_drains_sees_nothing_where_others_see() -> None:
    """In either order; where all drain, what they see is all that there is."""
    for one, silent in (
        (VIEW, replace(VIEW, health="down").silenced()),
        (WEB, replace(WEB, panic=True, silent=True)),
    ):
        assert one + silent == silent + one == one  # type: ignore[operator] # of one kind
        assert silent + silent == silent  # type: ignore[operator]
    assert Sights(a=UP) + Sights(a=UP).silenced() == Sights() + Sights(a=UP) == {"a": UP}


def test_of_a_crowd_too_what_is_seen_is_the_worst() -> None:
    """Two workers that have ejected one backend each have ejected two; `down` says more."""
    ejected = UP._replace(usable=False, health="ejected")
    down = UP._replace(usable=False, reachable=False, health="down")
    both = Sights(a=UP, b=UP, c=down) + Sights(a=ejected, b=UP, c=ejected)
    both += Sights(a=UP, b=ejected, c=UP, d=UP)
    assert both == {"a": ejected, "b": ejected, "c": down, "d": UP}


def test_adding_leaves_both_as_they_were() -> None:
    """What a worker has told is needed again when it has ended."""
    one, other = Sights(a=UP), Sights(a=UP._replace(usable=False), b=UP)
    assert one + other != one
    assert (one, other) == ({"a": UP}, {"a": UP._replace(usable=False), "b": UP})
    assert VIEW + replace(VIEW, usable=False) != VIEW
    assert VIEW.usable


def test_a_view_travels() -> None:
    """What arrives is what was sent, without the names of its fields."""
    view = replace(VIEW, overridden={"weight": (3, 1.5)}, silent=True)
    kind, values = view.__reduce__()
    assert kind(*values) == view
    assert values == tuple(getattr(view, name) for name in view.__slots__)


def certificate(place: str, ends: float, trouble: str = "") -> CertificateView:
    """Return one as somebody sees it."""
    return CertificateView(
        place, "/x", ("a.example",), "ecdsa", "1", 0.0, ends, trouble, None, key_readable=False
    )


def test_of_certificates_the_worst_is_seen():
    """By place: what somebody cannot renew, then what ends first, as long as one worker still shows it."""
    old, new, stuck = certificate("a", 10.0), certificate("a", 20.0), certificate("a", 20.0, "is no good")
    other = certificate("b", 5.0)
    for one, more, found in [
        ((old,), (new,), (old,)),
        ((old,), (stuck,), (stuck,)),
        ((old,), (other,), (old, other)),
        ((), (new,), (new,)),
        ((new,), (new,), (new,)),
    ]:
        assert worst_certificates(one, more) == found
        assert set(worst_certificates(more, one)) == set(found)
