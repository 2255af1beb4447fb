"""Generations, what comes next for one data plane, which process it is, and who contests our word."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.rollout import (
    FORGET_S,
    QUIET_S,
    Contest,
    Identity,
    Running,
    Step,
    Target,
    next_generation,
    next_step,
)

NOTHING = (0, "")


def test_first_generation_is_one():
    """Without anything that runs, the first content is generation 1."""
    assert next_generation([], "x", floor=NOTHING) == 1
    assert next_generation([(0, "empty")], "x", floor=NOTHING) == 1


def test_new_content_is_one_above_the_highest():
    """The data plane that is furthest decides."""
    assert next_generation([(3, "a"), (7, "b")], "x", floor=(5, "c")) == 8


def test_content_that_runs_keeps_its_generation():
    """Applying what runs already is no new generation, and brings those behind up to it."""
    assert next_generation([(3, "a"), (7, "x")], "x", floor=(6, "c")) == 7


def test_two_contents_with_the_highest_generation_need_a_higher_one():
    """A split is resolved above both."""
    assert next_generation([(7, "a"), (7, "x")], "x", floor=NOTHING) == 8


def test_steps_of_one_data_plane():
    """Older: push; the same: rest; newer or contradicting: raise; unknown wish: leave it alone."""
    target = Target(5, "x")
    assert next_step(target, Running("1", 4, "a"), None) is Step.PUSH
    assert next_step(target, Running("1", 5, "x"), None) is Step.REST
    assert next_step(target, Running("1", 5, "y"), None) is Step.RAISE
    assert next_step(target, Running("1", 6, "x"), None) is Step.RAISE
    assert next_step(None, Running("1", 6, "x"), None) is Step.REST


def test_refused_content_is_offered_again_only_to_another_process_or_when_it_changes():
    """The same question to the same process has the same answer."""
    refused = (Target(5, "x"), "1")
    assert next_step(Target(5, "x"), Running("1", 4, "a"), refused) is Step.REST
    assert next_step(Target(5, "x"), Running("2", 4, "a"), refused) is Step.PUSH
    assert next_step(Target(6, "y"), Running("1", 4, "a"), refused) is Step.PUSH


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("abc"))), st.sampled_from("abc"))
def test_chosen_generation_is_taken_by_every_data_plane(running, wanted):
    """No data plane answers 409: each is behind, or runs exactly this."""
    generation = next_generation(running, wanted, floor=NOTHING)
    assert generation >= 1
    for each, digest in running:
        assert each < generation or (each == generation and digest == wanted)


def older(pid, uptime):
    """Make the answer of a version that draws no id."""
    return {"pid": pid, "uptime_s": uptime}


def test_the_drawn_id_alone_decides():
    """The first process of a container has the same pid each time, and may answer at any age."""
    identity = Identity()
    first = identity.of({"instance": "aa", **older(1, 60.0)}, 100.0)
    assert identity.of({"instance": "aa", **older(1, 61.0)}, 101.0) == first
    assert identity.of({"instance": "bb", **older(1, 62.0)}, 102.0) != first


def test_older_versions_are_known_by_pid_and_beginning():
    """Another pid, or the same that began later, is another process; a late answer is not."""
    identity = Identity()
    first = identity.of(older(1, 60.0), 100.0)
    assert identity.of(older(1, 60.5), 102.0) == first
    assert identity.of(older(1, 71.0), 111.0) == first
    second = identity.of(older(1, 0.5), 120.0)
    assert second != first
    assert identity.of(older(2, 1.5), 121.0) not in {first, second}
    assert identity.of({"instance": "aa", **older(2, 2.5)}, 122.0) == "aa"


def test_an_older_process_that_outlives_its_predecessor_unseen():
    """Nobody looked for longer than the first one had lived: its uptime did not fall, but its beginning moved."""
    identity = Identity()
    first = identity.of(older(1, 10.0), 100.0)
    assert identity.of(older(1, 30.0), 200.0) != first


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
