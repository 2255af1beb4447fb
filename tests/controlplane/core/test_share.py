"""By how many nodes limits are divided: who comes counts at once, who goes for a while longer, and what is not known changes nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.share import HOLD_S, Share, share_report


def test_who_comes_counts_at_once():
    """A limit that all keep together must not be exceeded."""
    share = Share(None)
    assert (share.nodes, share.due()) == (None, None)
    for live in (1, 3):
        share.note(live, 0.0)
        assert (share.nodes, share.due()) == (live, None)


def test_who_goes_counts_for_a_while():
    """And only who stays away for all of it is counted no more."""
    share = Share(3)
    share.note(2, 100.0)
    assert (share.nodes, share.due()) == (3, 100.0 + HOLD_S)
    share.note(2, 100.0 + HOLD_S - 0.001)
    assert share.nodes == 3
    share.note(2, 100.0 + HOLD_S)
    assert (share.nodes, share.due()) == (2, None)


def test_who_comes_and_goes_changes_nothing():
    """However often, as long as each time is short."""
    share = Share(3)
    for second in range(100):
        share.note(3 if second % 9 == 0 else 2, float(second))
        assert share.nodes == 3


def test_of_two_that_go_one_by_one_each_has_its_time():
    """What counts is how many there were at most meanwhile."""
    share = Share(3)
    share.note(2, 0.0)
    share.note(1, 5.0)
    share.note(1, HOLD_S)
    assert share.nodes == 2
    assert share.due() == 2 * HOLD_S
    share.note(1, 2 * HOLD_S)
    assert (share.nodes, share.due()) == (1, None)


def test_what_is_not_known_changes_nothing():
    """Consul is away: the last number holds, and the time that somebody has been away for begins anew."""
    share = Share(3)
    share.note(None, 0.0)
    assert (share.nodes, share.due()) == (3, None)
    share.note(2, 1.0)
    share.note(None, 5.0)
    share.note(2, 1.0 + HOLD_S)
    assert share.nodes == 3


def test_this_node_always_counts():
    """Its own session may have ended, or not begun."""
    share = Share(None)
    share.note(0, 0.0)
    assert share.nodes == 1


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 5)), st.floats(0.0, 2 * HOLD_S, allow_nan=False)),
        max_size=60,
    )
)
def test_never_fewer_than_there_are_and_at_most_two_changes_in_each_hold(steps):
    """For any coming and going."""
    share, now = Share(None), 0.0
    fell: list[float] = []
    for live, wait_s in steps:
        now += wait_s
        before = share.nodes
        share.note(live, now)
        assert live is None or (share.nodes is not None and share.nodes >= max(1, live))
        if before is not None and share.nodes is not None and share.nodes < before:
            assert not fell or now - fell[-1] >= HOLD_S
            fell.append(now)


def test_what_is_told():
    """Each limit as it is written and as it is here; nothing where no limit is shared."""
    services = {"web": {"limits": {"connections": 33, "client_rate": 1.0}}}
    scoped = {"web": {"connections": 100, "client_rate": 2.5}, "gone": {"queue": 7}}
    assert share_report(3, scoped, services) == {
        "nodes": 3,
        "limits": {
            "web": {"connections": {"limit": 100, "here": 33}, "client_rate": {"limit": 2.5, "here": 1.0}}
        },
    }
    assert share_report(3, {}, services) is None
