"""The life of a process: only what the table says happens, and it is told once that the end begins."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.core.phase import TRANSITIONS, Life, Phase, Turn


def lived(*turns):
    """Return the phases of a life."""
    life = Life()
    return [life.turn(turn, float(at)) for at, turn in enumerate(turns, 1)], life


@pytest.mark.parametrize(
    ("turns", "phases"),
    [
        ((Turn.SERVE, Turn.STOP, Turn.END), "serving draining ended"),
        ((Turn.TAKE, Turn.SERVE, Turn.RELEASE, Turn.END), "taking_over serving released ended"),
        ((Turn.TAKE, Turn.END), "taking_over ended"),
        ((Turn.STOP, Turn.SERVE, Turn.END), "draining draining ended"),
        ((Turn.TAKE, Turn.STOP, Turn.SERVE), "taking_over draining draining"),
        ((Turn.SERVE, Turn.STOP, Turn.RELEASE), "serving draining draining"),
        ((Turn.SERVE, Turn.STOP, Turn.STOP), "serving draining ended"),
        ((Turn.SERVE, Turn.RELEASE, Turn.STOP), "serving released draining"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lives(turns, phases):
    """The lives that there are."""
    assert lived(*turns)[0] == phases.split()


@given(st.lists(st.sampled_from(list(Turn)), max_size=12))
def test_only_rows_of_the_table_happen(turns):
    """Whatever happens, in any order: the phase is the table's, or there is no such row, and nothing changes."""
    told = []
    life = Life(lambda: told.append(life.phase))
    for at, turn in enumerate(turns):
        before = life.phase
        if (before, turn) in TRANSITIONS:
            assert life.turn(turn, at) is TRANSITIONS[before, turn]
        else:
            with pytest.raises(KeyError):
                life.turn(turn, at)
            assert life.phase is before
    assert len(told) <= 1
    assert (life.leaving_since is not None) is bool(told)


def test_nobody_comes_back():
    """Who leaves never serves again, and who has ended does nothing any more."""
    order = list(Phase)
    for (before, _), after in TRANSITIONS.items():
        assert order.index(after) >= order.index(before)
        assert before is not Phase.ENDED


def test_since_when_it_leaves():
    """The first moment counts, whoever else tells it to end."""
    _, life = lived(Turn.SERVE, Turn.RELEASE, Turn.STOP, Turn.END)
    assert life.leaving_since == 2.0
    assert Life().leaving_since is None
