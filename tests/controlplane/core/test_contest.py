"""Who contests our word, and when it is pushed again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.contest import FORGET_S, QUIET_S, Contest

OTHER = {
    "program": "lb-control run",
    "host": "b",
    "pid": 7,
    "user": "root",
    "source": "/etc/b.yaml",
    "at": "",
}


def looks(contest, begin, end, step=0.5):
    """Be overwritten all the time, and look every `step`; return when ours was pushed again."""
    times = [begin + step * number for number in range(int((end - begin) / step))]
    return [now for now in times if contest.may_push(OTHER, now)]


def test_once_is_overwritten_at_once_and_is_no_contest():
    """A command, or a data plane that began with something of its own: our word holds."""
    contest = Contest()
    assert contest.may_push(OTHER, 10.0)
    assert contest.status(10.0) is None


def test_pauses_double_up_to_a_bound():
    """Two that push for ever against each other do so ever more rarely."""
    contest = Contest()
    pushed = looks(contest, 0.0, 2000.0)
    assert pushed[:7] == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert pushed[-1] - pushed[-2] == 300.0


def test_what_is_said():
    """Who, how often, for how long, and when it goes on."""
    contest = Contest()
    looks(contest, 0.0, 5.0)
    assert contest.status(5.5) == {"by": OTHER, "times": 4, "for_s": 5.5, "next_in_s": 2.0}
    assert contest.status(20.0)["next_in_s"] == 0.0


def test_peace_is_forgotten():
    """After a quarter of an hour without it, the next one is the first again."""
    contest = Contest()
    last = looks(contest, 0.0, 20.0)[-1]
    later = last + FORGET_S + 1
    assert looks(contest, later, later + 2) == [later, later + 0.5, later + 1.5]


def test_who_has_ended_is_named_no_longer():
    """Twice our pause and a minute after the last push of the other one, nobody is told to end it; the pauses stay long."""
    contest = Contest()
    last = looks(contest, 0.0, 20.0)[-1]
    assert contest.status(last + QUIET_S + 2 * 16.0) is not None
    over = last + QUIET_S + 2 * 16.0 + 1
    assert contest.status(over) is None
    assert contest.may_push(OTHER, over)
    assert contest.status(over)["next_in_s"] == 32.0


@settings(deadline=None, max_examples=50)
@given(st.floats(0.1, 5.0), st.floats(0.1, 5.0))
def test_two_against_each_other(one_s, two_s):
    """However often both look, in an hour there are a few dozen pushes, where there were four a second."""
    first, second = Contest(), Contest()
    theirs, pushes = False, 0
    moments = sorted(
        [(one_s * n, first, True) for n in range(int(3600 / one_s))]
        + [(two_s * n + 0.05, second, False) for n in range(int(3600 / two_s))],
        key=lambda moment: moment[0],
    )
    for now, contest, is_first in moments:
        if theirs is is_first and contest.may_push(OTHER, now):
            theirs, pushes = not theirs, pushes + 1
    assert 2 <= pushes <= 50
