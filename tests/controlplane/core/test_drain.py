"""The phases of taking a node out: what may follow what, and what is written down of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.core.drain import TRANSITIONS, Drain, Phase, Turn, parse

ONWARD = (Turn.LOWER, Turn.WITHDRAW, Turn.DRAIN, Turn.FINISH)
PHASES = (Phase.ENABLED, Phase.LOWERED, Phase.WITHDRAWN, Phase.DRAINING, Phase.DRAINED)


def test_the_way_out_and_the_way_back():
    """Each step leads to the next phase, and says whose and when; enabling leads back from all of them."""
    drain = Drain()
    for number, turn in enumerate(ONWARD):
        drain = drain.turned(turn, "ann", f"t{number}")
        assert drain == Drain(PHASES[number + 1], "ann", f"t{number}")
        assert drain.turned(Turn.ENABLE, "bob", "later") == Drain(Phase.ENABLED, "bob", "later")


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("turn", ONWARD)
def test_a_turn_leads_one_step_on_or_nowhere(phase, turn):
    """What is behind a node changes nothing, and its record neither; what it has not come to is refused."""
    before, step = Drain(phase, "ann", "then"), ONWARD.index(turn)
    at = PHASES.index(phase)
    if step < at:
        assert before.turned(turn, "bob", "now") is before
    elif step == at:
        assert before.turned(turn, "bob", "now").phase is PHASES[at + 1]
    else:
        with pytest.raises(KeyError):
            before.turned(turn, "bob", "now")


def test_every_phase_can_be_reached_and_left():
    """No phase is a dead end."""
    assert set(TRANSITIONS.values()) == set(Phase)
    assert {phase for phase, turn in TRANSITIONS if turn is Turn.ENABLE} == set(Phase)


@given(st.sampled_from(PHASES), st.text(max_size=50), st.text(max_size=50))
def test_what_is_written_is_read(phase, by, since):
    """Whatever a user is called."""
    drain = Drain(phase, by, since)
    assert parse(drain.encode()) == drain


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "Expecting value"),
        (b"[]", "another version"),
        (b'{"version": 2, "phase": "enabled"}', "another version"),
        (b'{"version": 1, "phase": "gone"}', "no phase 'gone'"),
        (b'{"version": 1}', "no phase ''"),
        (b"[" * 4000, "nested|Expecting value"),  # from Python 3.12 on it is not too deep
        (b" " * 5000, "bytes"),
    ],
)
def test_what_is_none_of_ours(raw, said):
    """A ValueError says what is wrong."""
    with pytest.raises(ValueError, match=said):
        parse(raw)


def test_what_is_reported():
    """Nothing of a node that is enabled, else phase, whose word, and since when."""
    assert Drain(Phase.ENABLED, "ann", "then").report() is None
    drain = Drain(Phase.LOWERED, "ann", "then")
    assert drain.report() == {"phase": "lowered", "by": "ann", "since": "then"}
    assert json.loads(drain.encode()) == {"version": 1, **drain.report()}
