"""Generations, and what comes next for one data plane."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.rollout import Running, Step, Target, next_generation, next_step

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
