from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.guard import GuardPolicy
from controlplane.core.instances import Classified, Condition, Instance
from controlplane.core.track import Coalescer, Track, Trust

LEADER = Trust(confirmed=True)
ANY = Trust()
DOUBTED = Trust(doubted=True)
WORDS = {
    "p": Condition.PASSING,
    "w": Condition.WARNING,
    "c": Condition.CRITICAL,
    "m": Condition.MAINTENANCE,
    "l": Condition.LOST,
}


def reply(**conditions):
    """A reply: `a="p"` is instance a, passing."""
    return Classified(
        tuple(Instance(name, f"{name}:1", condition=WORDS[word]) for name, word in sorted(conditions.items()))
    )


def up(names):
    """A reply in which all of these pass."""
    return reply(**dict.fromkeys(names, "p"))


class Play:
    """A track on virtual time."""

    def __init__(self, first="abcd", *, answering=(), **policy):
        self.now = 0.0
        self.answering = set(answering)
        self.track = Track(GuardPolicy(**policy), answers=lambda name: name in self.answering)
        if first:
            self.see(up(first), LEADER)

    def see(self, seen, trust=ANY, *, after=0.0):
        """Let time pass, then a reply arrive; returns what is published."""
        self.wait(after)
        self.track.observe(seen, self.now, trust)
        self.track.advance(self.now)
        return self.shown

    def wait(self, seconds):
        """Let time pass, advancing whenever something is due."""
        end = self.now + seconds
        while (due := self.track.due(self.now)) is not None and due <= end:
            self.now = max(self.now, due)
            before = self.now, self.shown
            self.track.advance(self.now)
            assert self.track.due(self.now) != due or before[1] != self.shown, "a time that stays due"
        self.now = end
        return self.shown

    @property
    def shown(self):
        """What is published; None before the first table."""
        return None if self.track.guard.published is None else "".join(sorted(self.track.guard.published))


def test_nothing_is_known_before_the_first_reply():
    """Without a reply there is no table, nothing to do, and nothing to confirm."""
    play = Play(first="")
    assert not play.track.advance(5.0)
    assert (play.shown, play.track.due(5.0), play.track.confirm_every(5.0)) == (None, None, None)


def test_an_empty_first_reply_stays_unknown():
    """A service that was never seen and has no instances is not known, and nobody asks faster for it."""
    play = Play(first="")
    play.see(up(""), LEADER)
    assert play.shown is None
    assert play.track.confirm_every(play.now) is None


def test_additions_go_at_once():
    """A new instance is published without waiting."""
    play = Play("ab")
    assert play.see(up("abc")) == "abc"


def test_additions_do_not_wait_for_removals():
    """In one reply that adds and removes, what is new goes at once and what is gone after the burst."""
    play = Play("abcd")
    assert play.see(up("bcdx")) == "abcdx"
    assert play.wait(0.1) == "bcdx"


def test_removals_wait_for_quiet():
    """A removal is published 100 ms after the last change of its burst."""
    play = Play("abcdef")
    assert play.see(up("abcde")) == "abcdef"
    assert play.see(up("abcd"), after=0.08) == "abcdef"
    assert play.wait(0.09) == "abcdef"
    assert play.wait(0.02) == "abcd"


def test_a_burst_that_takes_itself_back():
    """What vanishes and returns within a burst has never happened."""
    play = Play("abcd")
    play.see(up("a"), after=1.0)
    play.see(up("abcd"), after=0.05)
    assert play.wait(5.0) == "abcd"
    assert play.track.guard.held is None


def test_maintenance_goes_at_once():
    """An instance that goes into maintenance is published so at once."""
    play = Play("ab")
    play.see(reply(a="m", b="p"))
    assert play.track.guard.published["a"].condition is Condition.MAINTENANCE


def test_critical_is_out_and_warning_stays():
    """A critical instance is taken away, a warning one is not."""
    play = Play("abcd")
    play.see(reply(a="c", b="w", c="p", d="p"))
    assert play.wait(0.1) == "bcd"
    assert play.track.guard.published["b"].condition is Condition.WARNING


def test_a_silent_agent_takes_nothing_away():
    """Instances of which only the agent is silent stay for five minutes, then they go like critical ones."""
    play = Play("abcd", max_shrink=1.0)
    play.see(reply(a="l", b="p", c="p", d="p"))
    assert play.wait(299.0) == "abcd"
    assert play.wait(1.2) == "bcd"


def test_a_silent_agents_instance_that_answers_stays():
    """An instance that passes the balancer's checks stays however long its agent is silent."""
    play = Play("abcd", answering="a")
    play.see(reply(a="l", b="p", c="p", d="p"))
    assert play.wait(1000.0) == "abcd"


def test_agent_killed_and_restarted_changes_nothing():
    """The measured life of an agent with three of four instances: lost, back, critical one by one, passing again."""
    play = Play("abcd")
    play.see(reply(a="l", b="l", c="l", d="p"), after=5.3)
    for row in ("pppp", "cppp", "ccpp", "cccp"):
        play.see(reply(**dict(zip("abcd", row, strict=True))), after=0.003)
    assert play.wait(3.0) == "abcd"
    assert play.track.guard.held.why == "shrink"
    play.see(up("abcd"), after=5.0)
    assert play.wait(1.0) == "abcd"
    assert play.track.guard.held is None


def test_wiped_servers_and_a_slow_return():
    """The measured life of servers that were wiped: empty, then agents register again one by one, minutes apart."""
    play = Play("abcd")
    play.see(up(""), LEADER, after=1.0)
    for back in ("a", "ab", "abc"):
        for _ in range(60):
            play.see(up(back), LEADER, after=1.0)
            assert play.wait(0.0) == "abcd"
    play.see(up("abcd"), LEADER, after=1.0)
    assert play.wait(0.1) == "abcd"
    assert play.track.guard.held is None


def test_doubted_removals_wait_for_a_leader():
    """What a server without a leader no longer lists is taken away only after a leader has confirmed it."""
    play = Play("abcd")
    play.see(up("abc"), DOUBTED)
    assert play.track.confirm_every(play.now) == 1.0
    assert play.wait(60.0) == "abcd"
    play.see(up("abc"), LEADER)
    assert play.wait(0.1) == "abc"
    assert play.track.confirm_every(play.now) is None


def test_blue_and_green():
    """Four instances lose their tag and three others gain it: the four go after the burst, though they answer."""
    play = Play("abcd", answering="abcd")
    play.see(up("efg"))
    assert play.shown == "abcdefg"
    assert play.track.lacks()
    play.track.observe(up("efg"), play.now, ANY, frozenset("abcd"))
    play.track.advance(play.now)
    assert not play.track.lacks()
    assert play.wait(0.1) == "efg"
    assert play.track.guard.held is None
    assert play.track.confirm_every(play.now) is None


def test_servers_under_other_ids_have_not_vanished():
    """Instances that are registered anew at their addresses, under other ids, are no loss, nor counted as one."""
    play = Play("abcd", answering="abcd")
    renamed = Classified(tuple(Instance(f"{name}2", f"{name}:1") for name in "abc"))
    play.see(renamed)
    assert play.wait(0.1) == "a2b2c2"
    assert play.track.guard.held is None
    fewer = Classified(renamed.instances[:2])
    play.see(fewer)
    play.wait(0.1)
    assert (sorted(play.track.guard.published), play.track.guard.held) == (["a2", "b2"], None)


def test_a_hold_ends_for_what_turns_up_elsewhere():
    """What is held as absent and is then listed under another tag goes, without a further answer of the query itself."""
    play = Play("abcd", answering="abcd")
    play.see(up("a"))
    play.wait(1.0)
    assert play.track.guard.held.missing == ("b", "c", "d")
    play.track.observe(up("a"), play.now, ANY, frozenset("bc"))
    play.track.advance(play.now)
    assert play.shown == "ad"
    assert play.track.guard.held.missing == ("d",)
    play.track.observe(up("a"), play.now, ANY, frozenset("bcd"))
    play.track.advance(play.now)
    assert (play.shown, play.track.guard.held) == ("a", None)


def test_a_doubted_reply_asks_for_no_more():
    """What a server without a leader no longer lists is confirmed first, before anybody looks where else it is."""
    play = Play("abcd")
    play.see(up("abc"), DOUBTED)
    assert not play.track.lacks()
    play.see(up("abc"), LEADER)
    assert play.track.lacks()


def test_what_is_critical_is_listed():
    """An instance that a check takes out is there to be seen: nobody needs to look for it elsewhere."""
    play = Play("abcd")
    play.see(reply(a="c", b="p", c="p", d="p"))
    assert not play.track.lacks()


def test_doubted_additions_do_not_wait():
    """What a server without a leader adds is believed."""
    assert Play("ab").see(up("abc"), DOUBTED) == "abc"


def test_confirmation_is_wanted_during_a_hold():
    """During a hold a leader is asked every second; in one without an end, every ten after a minute."""
    play = Play("abcd")
    play.see(up("a"))
    assert play.track.confirm_every(play.now) == 1.0
    play.wait(0.1)
    assert play.track.confirm_every(play.now + 1000.0) == 1.0
    play.see(up(""))
    play.wait(0.2)
    assert play.track.confirm_every(play.now) == 1.0
    assert play.track.confirm_every(play.now + 61.0) == 10.0


def test_a_confirmed_hold_ends():
    """A shrink that a leader confirms for 15 s is published."""
    play = Play("abcd")
    play.see(up("a"))
    play.wait(0.1)
    for _ in range(14):
        assert play.see(up("a"), LEADER, after=1.0) == "abcd"
    play.see(up("a"), LEADER, after=1.0)
    assert play.see(up("a"), LEADER, after=1.0) == "a"


def test_flapping_is_damped():
    """An instance that changes too often is kept down, told of, and let back when it has calmed."""
    play = Play("abcd")
    for _ in range(3):
        play.see(reply(a="c", b="p", c="p", d="p"), after=1.0)
        play.see(up("abcd"), after=1.0)
    assert play.track.wanted.flapping(play.now) == ["a"]
    assert play.wait(1.0) == "bcd"
    assert play.wait(120.0) == "abcd"
    assert play.track.wanted.flapping(play.now) == []


def test_registering_again_and_again_is_no_flapping():
    """Twenty registrations and deregistrations of one id are somebody's word, not a check's."""
    play = Play("ab")
    for _ in range(20):
        play.see(up("abx"), after=1.0)
        assert play.shown == "abx"
        play.see(up("ab"), after=1.0)
        assert play.wait(0.2) == "ab"


def test_release():
    """A release publishes what is there at once; before any reply there is nothing to release."""
    play = Play("abcd")
    play.see(up(""), LEADER)
    play.wait(1.0)
    assert play.shown == "abcd"
    assert play.track.release(play.now)
    assert play.shown == ""
    assert not Play(first="").track.release(0.0)


def test_restored_tables_hold_until_consul_answers():
    """What was saved is published until the first reply, and then guarded like anything that was published."""
    play = Play(first="")
    play.track.guard.restore({name: Instance(name, f"{name}:1") for name in "abcd"}, 0.0)
    assert play.shown == "abcd"
    play.see(up("a"), LEADER)
    assert play.wait(1.0) == "abcd"
    assert play.track.guard.held is not None


def test_weights_change_after_the_burst():
    """A changed weight is published within the quiet time."""
    play = Play("ab")
    heavier = Classified((Instance("a", "a:1", weight=9), Instance("b", "b:1")))
    play.see(heavier)
    play.wait(0.1)
    assert play.track.guard.published["a"].weight == 9


replies = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("pwcml"), max_size=6)
trusts = st.builds(Trust, confirmed=st.booleans(), doubted=st.booleans(), denied=st.booleans())
plays = st.lists(st.tuples(replies, trusts, st.floats(0, 20)), max_size=30)


@settings(deadline=None)
@given(plays, st.sets(st.sampled_from("abcdef")))
def test_whatever_happens(moves, answering):
    """Never is a known table emptied, an instance that passes left out, or a time due for ever."""
    play = Play(first="", answering=answering)
    for conditions, trust, pause in moves:
        known = play.shown
        play.see(reply(**conditions), trust)
        play.wait(pause)
        assert play.shown or not known
        flapping = set(play.track.wanted.flapping(play.now))
        passing = {name for name, word in conditions.items() if word in "pwm"} - flapping
        assert passing <= set(play.shown or "")


@settings(deadline=None)
@given(plays, st.sets(st.sampled_from("abcdef"), min_size=1))
def test_calm_brings_the_truth(moves, final):
    """When the catalogue stands still and a leader confirms it, it is what is published in the end."""
    play = Play(first="")
    for conditions, trust, pause in moves:
        play.see(reply(**conditions), trust)
        play.wait(pause)
    for _ in range(400):
        play.see(up(final), LEADER)
        play.wait(1.0)
    assert set(play.shown) == final
    assert play.track.confirm_every(play.now) is None


def test_waits_for_quiet():
    """A burst is over when nothing has changed for the quiet time."""
    coalescer = Coalescer()
    assert coalescer.due() is None
    coalescer.change(10.0)
    coalescer.change(10.05)
    assert coalescer.due() == pytest.approx(10.15)


def test_never_waits_longer_than_the_cap():
    """A burst that does not end is cut off one second after its first change."""
    coalescer = Coalescer()
    for step in range(30):
        coalescer.change(10.0 + step * 0.05)
    assert coalescer.due() == pytest.approx(11.0)


def test_clear_forgets():
    """What was published is no burst any more."""
    coalescer = Coalescer()
    coalescer.change(10.0)
    coalescer.clear()
    assert coalescer.due() is None
    coalescer.change(20.0)
    assert coalescer.due() == pytest.approx(20.1)


@settings(deadline=None)
@given(st.lists(st.floats(0, 2), min_size=1))
def test_due_lies_between_quiet_and_cap(gaps):
    """The end of a burst is never before its last change nor later than the cap after its first."""
    coalescer = Coalescer()
    first = now = 5.0
    for gap in gaps:
        now += gap
        coalescer.change(now)
    due = coalescer.due()
    assert due == min(now + 0.1, first + gaps[0] + 1.0)
