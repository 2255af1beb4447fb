from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.guard import Guard, GuardPolicy


def table(text):
    """A table of one-letter ids."""
    return dict.fromkeys(text, 1)


def guarded(text="abcd", **policy):
    """A guard that has published these."""
    guard = Guard(GuardPolicy(**policy))
    guard.offer(table(text), 0.0, confirmed=True)
    return guard


def shown(guard):
    """What it publishes."""
    return "".join(sorted(guard.published or ()))


def test_the_first_table_is_taken():
    """The first table with anything in it is published as it is."""
    assert shown(guarded("ab")) == "ab"


@pytest.mark.parametrize("confirmed", [False, True])
def test_an_empty_first_table_is_no_table(confirmed):
    """Nothing was ever known and nothing is there: that is not an answer, unless emptiness is allowed."""
    guard = Guard(GuardPolicy())
    guard.offer({}, 0.0, confirmed=confirmed)
    assert guard.published is None
    assert guard.held is None
    tolerant = Guard(GuardPolicy(allow_empty=True))
    tolerant.offer({}, 0.0, confirmed=confirmed)
    assert tolerant.published == ({} if confirmed else None)


def test_less_than_half_may_vanish_at_once():
    """A table that keeps half of the high water is published at once."""
    guard = guarded("abcd")
    guard.offer(table("ab"), 1.0, confirmed=False)
    assert (shown(guard), guard.held) == ("ab", None)


def test_more_than_half_is_held():
    """A table below half of the high water is held: everything missing stays, and it is said."""
    guard = guarded("abcd")
    guard.offer(table("a"), 1.0, confirmed=True)
    assert shown(guard) == "abcd"
    assert (guard.held.why, guard.held.missing, guard.held.seen, guard.held.until) == (
        "shrink",
        ("b", "c", "d"),
        1,
        16.0,
    )


def test_steps_of_one_do_not_slip_through():
    """The high water of the last minute counts, so instances that vanish one by one are held like all at once."""
    guard = guarded("abcd")
    for now, left in [(1.0, "abc"), (2.0, "ab"), (3.0, "a")]:
        guard.offer(table(left), now, confirmed=True)
    assert shown(guard) == "ab"
    assert guard.held.missing == ("b",)


def test_the_high_water_ebbs():
    """A table that was left more than a minute ago no longer counts."""
    guard = guarded("abcd")
    guard.offer(table("ab"), 1.0, confirmed=True)
    guard.offer(table("ab"), 30.0, confirmed=True)  # seen again: that does not keep the old mark alive
    guard.offer(table("a"), 61.5, confirmed=True)
    assert (shown(guard), guard.held) == ("a", None)


def test_a_hold_ends_when_everything_is_back():
    """When all that was missing is back, nothing is held and nothing has ever changed."""
    guard = guarded("abcd")
    guard.offer(table("a"), 1.0, confirmed=True)
    guard.offer(table("abcd"), 2.0, confirmed=False)
    assert (shown(guard), guard.held) == ("abcd", None)


def test_a_partial_return_is_still_held():
    """During a hold even a table that would pass alone is held: the others may be on their way back."""
    guard = guarded("abcd")
    guard.offer(table("a"), 1.0, confirmed=True)
    guard.offer(table("abc"), 2.0, confirmed=True)
    assert shown(guard) == "abcd"
    assert guard.held.missing == ("d",)


def test_a_hold_ends_by_itself_when_confirmed():
    """What has been missing for 15 s, as a leader confirms, is gone; without its word it is not."""
    guard = guarded("abcd")
    guard.offer(table("a"), 1.0, confirmed=True)
    guard.offer(table("a"), 15.9, confirmed=True)
    guard.offer(table("a"), 16.1, confirmed=False)
    assert shown(guard) == "abcd"
    guard.offer(table("a"), 16.2, confirmed=True)
    assert (shown(guard), guard.held) == ("a", None)


def test_every_change_of_what_is_missing_starts_the_wait_again():
    """A catalogue in motion is not believed until it stands still."""
    guard = guarded("abcdef")
    guard.offer(table("a"), 0.0, confirmed=True)
    guard.offer(table("ab"), 10.0, confirmed=True)
    guard.offer(table("ab"), 20.0, confirmed=True)
    assert shown(guard) == "abcdef"
    guard.offer(table("ab"), 25.0, confirmed=True)
    assert shown(guard) == "ab"


def test_empty_is_held_for_ever():
    """An empty table is never believed by itself."""
    guard = guarded("abcd")
    for now in (1.0, 100.0, 1e6):
        guard.offer({}, now, confirmed=True)
    assert shown(guard) == "abcd"
    assert (guard.held.why, guard.held.until, guard.held.since) == ("empty", None, 1.0)


def test_empty_is_taken_where_it_is_allowed():
    """With `allow_empty`, an empty table is taken after the hold."""
    guard = guarded("ab", allow_empty=True)
    guard.offer({}, 1.0, confirmed=True)
    assert shown(guard) == "ab"
    guard.offer({}, 16.0, confirmed=True)
    assert guard.published == {}


def test_after_emptiness_a_partial_return_takes_its_time():
    """Agents register again on a timer of a minute or more: after an empty table the wait is five minutes."""
    guard = guarded("abcd")
    guard.offer({}, 0.0, confirmed=True)
    guard.offer(table("ab"), 60.0, confirmed=True)
    guard.offer(table("ab"), 359.0, confirmed=True)
    assert shown(guard) == "abcd"
    guard.offer(table("ab"), 360.0, confirmed=True)
    assert shown(guard) == "ab"


def test_what_answers_is_kept_longer():
    """What passes the balancer's own checks is kept for five minutes although the catalogue has lost it."""
    guard = guarded("abcd")
    guard.offer(table("a"), 0.0, confirmed=True, answering={"c"})
    guard.offer(table("a"), 20.0, confirmed=True, answering={"c"})
    assert shown(guard) == "abcd"
    guard.offer(table("a"), 21.0, confirmed=True, answering=())
    assert shown(guard) == "a"


def test_what_answers_is_not_kept_for_ever():
    """An address may be given to somebody else who answers as well: after five minutes it goes."""
    guard = guarded("abcd")
    for now in (0.0, 299.0, 300.0):
        assert shown(guard) == "abcd"
        guard.offer(table("a"), now, confirmed=True, answering={"c"})
    assert shown(guard) == "a"


def test_denied_entries_are_not_gone():
    """When the token hid entries, nothing is taken away, however little is missing and however long."""
    guard = guarded("abcd")
    for now in (1.0, 1000.0):
        guard.offer(table("abc"), now, confirmed=True, denied=True)
    assert shown(guard) == "abcd"
    assert guard.held.why == "denied"
    guard.offer(table("abcd"), 1001.0, confirmed=True)
    assert guard.held is None


def test_news_pass_during_a_hold():
    """During a hold new instances are added and known ones renewed."""
    guard = guarded("abcdef")
    guard.offer({"a": 2, "x": 1}, 1.0, confirmed=False)
    assert guard.published == {"a": 2, **table("bcdef"), "x": 1}


def test_release_is_the_operators_word():
    """A release publishes what the catalogue shows at once, empty or not, and begins the high water anew."""
    guard = guarded("abcd")
    guard.offer({}, 1.0, confirmed=True)
    guard.release({}, 2.0)
    assert (guard.published, guard.held) == ({}, None)
    guard.offer(table("a"), 3.0, confirmed=False)
    assert (shown(guard), guard.held) == ("a", None)


def test_restored_tables_are_guarded():
    """What was published in an earlier life counts as the high water of this one."""
    guard = Guard(GuardPolicy())
    guard.restore(table("abcd"), 0.0)
    guard.offer(table("a"), 1.0, confirmed=True)
    assert shown(guard) == "abcd"


def test_all_may_shrink():
    """A limit of 100 % holds nothing but emptiness."""
    guard = guarded("abcd", max_shrink=1.0)
    guard.offer(table("a"), 1.0, confirmed=False)
    assert shown(guard) == "a"
    guard.offer({}, 2.0, confirmed=True)
    assert shown(guard) == "a"


def test_a_minimum():
    """A table that leaves fewer than the minimum is held; one that grows towards it is not."""
    guard = guarded("abc", min_backends=3)
    guard.offer(table("ab"), 1.0, confirmed=True)
    assert shown(guard) == "abc"
    growing = guarded("a", min_backends=3)
    growing.offer(table("ab"), 1.0, confirmed=False)
    assert (shown(growing), growing.held) == ("ab", None)


def test_nothing_may_shrink():
    """A limit of 0 % holds every removal."""
    guard = guarded("abcd", max_shrink=0.0)
    guard.offer(table("abc"), 1.0, confirmed=True)
    assert shown(guard) == "abcd"


def test_what_is_elsewhere_goes_at_once():
    """Instances that the catalogue lists elsewhere have not vanished: however many go, nothing is held."""
    guard = guarded("abcdefg")
    guard.offer(table("efg"), 1.0, confirmed=False, answering=set("abcd"), elsewhere=frozenset("abcd"))
    assert (shown(guard), guard.held) == ("efg", None)


def test_only_the_absent_count_as_shrunk():
    """Of those that are missing, the ones that are listed elsewhere go, and only absent ones are held."""
    guard = guarded("abcdefgh")
    guard.offer(table("fgh"), 1.0, confirmed=True, elsewhere=frozenset("abc"))
    assert (shown(guard), guard.held) == ("fgh", None)  # two of eight are absent: unheld, as ever
    guard = guarded("abcdefgh")
    guard.offer(table("h"), 1.0, confirmed=True, elsewhere=frozenset("ab"))
    assert shown(guard) == "cdefgh"
    assert (guard.held.why, guard.held.missing) == ("shrink", tuple("cdefg"))
    guard.offer(table("h"), 2.0, confirmed=False, elsewhere=frozenset("abcdefg"))
    assert (shown(guard), guard.held) == ("h", None)  # they turned up elsewhere: the hold is over


def test_a_move_leaves_no_high_water():
    """After three have replaced four, the loss of one is one of three, not six of seven."""
    guard = guarded("abcd")
    guard.add(table("efg"), 1.0)
    guard.offer(table("efg"), 1.1, confirmed=False, elsewhere=frozenset("abcd"))
    guard.offer(table("ef"), 2.0, confirmed=False)
    assert (shown(guard), guard.held) == ("ef", None)
    guard.offer(table("e"), 3.0, confirmed=False)
    assert shown(guard) == "ef"
    assert guard.held.missing == ("f",)


def test_the_last_one_stays_wherever_the_others_are():
    """That nothing remains, or less than the minimum, is a matter of the policy and not of belief."""
    guard = guarded("ab")
    guard.offer({}, 1.0, confirmed=True, elsewhere=frozenset("ab"))
    assert (shown(guard), guard.held.why, guard.held.until) == ("ab", "empty", None)
    guard.offer(table("x"), 2.0, confirmed=True, elsewhere=frozenset("ab"))
    assert (shown(guard), guard.held) == ("x", None)
    guard = guarded("abc", min_backends=2)
    guard.offer(table("a"), 1.0, confirmed=True, elsewhere=frozenset("bc"))
    assert shown(guard) == "abc"
    guard = guarded("ab", allow_empty=True)
    guard.offer({}, 1.0, confirmed=True, elsewhere=frozenset("ab"))
    assert (guard.published, guard.held) == ({}, None)


def test_denied_concerns_the_absent():
    """A token that sees too little hides entries; what it shows elsewhere is not hidden."""
    guard = guarded("abcd")
    guard.offer(table("ab"), 1.0, confirmed=True, denied=True, elsewhere=frozenset("d"))
    assert shown(guard) == "abc"
    assert (guard.held.why, guard.held.missing) == ("denied", ("c",))


steps = st.lists(
    st.tuples(
        st.floats(0, 40),
        st.sets(st.sampled_from("abcdef")),
        st.booleans(),
        st.booleans(),
        st.sets(st.sampled_from("abcdef")),
        st.frozensets(st.sampled_from("abcdef")),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(steps)
def test_never_empty_never_a_cliff(moves):
    """Whatever a catalogue says, what was published never becomes empty, and shrinks beyond the limit only after a hold."""
    guard, now, history = Guard(GuardPolicy()), 0.0, [(0.0, 0)]
    for gap, ids, confirmed, denied, answering, listed in moves:
        now += gap
        held_before = guard.held
        known = set(guard.published or ())
        elsewhere = listed - ids
        guard.offer(
            table(ids), now, confirmed=confirmed, denied=denied, answering=answering, elsewhere=elsewhere
        )
        published = set(guard.published or ())
        moved = len(known & elsewhere - published)
        history = [(at, count - moved) for at, count in history]
        assert not ids or not elsewhere & published
        assert ids <= published or not ids
        assert published or not known
        gone = (
            known - published - elsewhere
        )  # who has moved may go even where that leaves less than the limit
        if gone and (held_before is None or now - held_before.since < 15.0):
            high = max(count for at, count in history if at >= now - 60.0 or at == history[-1][0])
            assert len(published) >= high * 0.5
        history.append((now, len(published)))
        if guard.held is not None:
            assert set(guard.held.missing) == published - ids


@settings(deadline=None)
@given(st.sets(st.sampled_from("abcdef"), min_size=1), steps)
def test_what_stands_still_is_published_in_the_end(final, moves):
    """A table that is not empty and stands still, confirmed, is what is published after five minutes at the latest."""
    guard, now = Guard(GuardPolicy()), 0.0
    for gap, ids, confirmed, denied, answering, listed in moves:
        now += gap
        guard.offer(
            table(ids), now, confirmed=confirmed, denied=denied, answering=answering, elsewhere=listed - ids
        )
    for second in range(302):
        guard.offer(table(final), now + second, confirmed=True, answering=set("abc"))
    assert set(guard.published) == final
    assert guard.held is None
