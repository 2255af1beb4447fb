"""Which content counts on a node: each row of the table, whatever clocks and restarts do."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from controlplane.core.canary import TRANSITIONS, CanaryRule, Event, Memory, Phase, Picture
from controlplane.core.canary_record import CanaryRecord, End, digest_of_content

OLD, NEW, NEWER = b"version: 1 # old", b"version: 1 # new", b"version: 1 # newer"
WALL = 1_800_000_000.0
SINCE = "2027-01-15T08:00:00Z"
"""The same moment as `WALL`."""


def record(key: str = "c1", content: bytes = NEW, *nodes: str, **more: object) -> CanaryRecord:
    """Return a canary on node n1."""
    made = CanaryRecord(
        id=key,
        by="ann on hill",
        since=SINCE,
        lasts_s=100.0,
        nodes=nodes or ("n1",),
        observe_s=60.0,
        base=digest_of_content(OLD),
        content_hash=digest_of_content(content),
        content=content.decode(),
    )
    return replace(made, **more)


def over(how: str, why: str = "", key: str = "c1", content: bytes = NEW) -> CanaryRecord:
    """Return one that somebody has ended."""
    return replace(record(key, content), content=None, ended=End(how, why, SINCE))


def rule(memory: Memory | None = None, wall: float = WALL) -> CanaryRule:
    """Return the rule of a process that begins at 0."""
    return CanaryRule(memory, 0.0, wall)


def running() -> CanaryRule:
    """Return a rule whose canary runs since 0."""
    made = rule()
    made.look(Picture(OLD), "n1", 0.0, WALL)
    assert made.look(Picture(OLD, record()), "n1", 0.0, WALL).content == NEW
    return made


def test_every_pair_that_can_occur_has_a_next_state():
    """NONE has nothing to be the same as; all else is in the table."""
    every = {(phase, event) for phase in Phase for event in Event}
    assert every - TRANSITIONS.keys() == {(Phase.NONE, Event.SAME), (Phase.NONE, Event.LAPSED)}


def test_without_a_canary_the_key_counts():
    """And nothing is remembered, nor due."""
    made = rule()
    choice = made.look(Picture(OLD), "n1", 0.0, WALL)
    assert (choice.content, choice.note, made.memory, made.due) == (OLD, "", None, None)


@pytest.mark.parametrize("node", ["n2", None])
def test_who_is_not_named_takes_the_key(node):
    """Also one that does not know its name."""
    assert rule().look(Picture(OLD, record()), node, 0.0, WALL).content == OLD


def test_who_is_named_takes_the_canary_and_says_so():
    """From its first sight on, for as long as the record says."""
    made = rule()
    made.look(Picture(OLD), "n1", 5.0, WALL + 5)
    choice = made.look(Picture(OLD, record()), "n1", 10.0, WALL + 3000)  # our wall clock is of no interest
    assert (choice.content, choice.note) == (NEW, "canary c1 of ann on hill")
    assert choice.began is not None
    assert (choice.began.id, made.due) == ("c1", 110.0)
    again = made.look(Picture(OLD, record()), "n1", 109.9, WALL)
    assert (again.content, again.began) == (NEW, None)


@pytest.mark.parametrize("called", ["n1-new", None])
def test_a_canary_that_calls_its_node_something_else_ends_like_any_other(called):
    """It was named by the name that it had; else it would come and go, without an end."""
    made, seen = running(), Picture(OLD, record())
    choice = made.look(seen, called, 1.0, WALL + 1)
    assert (choice.content, choice.ended, made.due) == (NEW, None, 100.0)
    choice = made.look(seen, called, 100.0, WALL + 100)
    assert (choice.content, choice.ended and choice.ended.how) == (OLD, "expired")
    assert made.look(seen, "n1", 101.0, WALL + 101).content == OLD, "once over, it stays over"
    another = Picture(OLD, record("c2", NEWER))
    assert made.look(another, called, 102.0, WALL + 102).content == OLD, "which names somebody else"
    assert made.look(another, "n1", 103.0, WALL + 103).content == NEWER


@pytest.mark.parametrize("seen", [Picture(OLD, record()), Picture(None, record())])
def test_its_time_ends_it_whatever_consul_shows(seen):
    """The record is still there; the key's content counts, and of a key that has gone the last one."""
    made = running()
    choice = made.look(seen, "n1", 100.0, WALL)
    assert choice.ended is not None
    assert (choice.content, choice.ended.how, made.due) == (OLD, "expired", None)
    assert made.look(seen, "n1", 101.0, WALL).content == OLD, "once over, it stays over"
    assert made.look(seen, "n1", 102.0, WALL).ended is None


@pytest.mark.parametrize(
    ("seen", "content", "how", "why"),
    [
        (Picture(OLD), OLD, "taken_back", ""),
        (Picture(NEW), NEW, "promoted", ""),
        (Picture(None), OLD, "taken_back", ""),
        (Picture(OLD, record("c1", NEW, "n2")), OLD, "taken_back", ""),
        (Picture(OLD, over("taken_back", "web: 9% failed")), OLD, "taken_back", "web: 9% failed"),
        (Picture(NEW, over("promoted", "as good")), NEW, "promoted", "as good"),
        (Picture(OLD, over("set_aside")), OLD, "set_aside", ""),
        (Picture(OLD, record("c2", NEWER)), NEWER, "replaced", ""),
    ],
)
def test_how_it_ends(seen, content, how, why):
    """As its end says, else as the key's content tells."""
    choice = running().look(seen, "n1", 1.0, WALL + 1)
    assert choice.ended is not None
    assert (choice.content, choice.ended.how, choice.ended.why) == (content, how, why)


def test_another_id_begins_again_where_the_last_one_was_over():
    """Somebody has said so."""
    made = running()
    made.look(Picture(OLD, record()), "n1", 100.0, WALL)
    choice = made.look(Picture(OLD, record("c2")), "n1", 200.0, WALL)
    assert choice.began is not None
    assert (choice.content, made.due, choice.ended) == (NEW, 300.0, None)


@pytest.mark.parametrize(
    ("later_s", "left_s"),
    [(30.0, 70.0), (0.0, 100.0), (-3600.0, 100.0), (100.0, 0.0), (1e6, 0.0)],
)
def test_a_restart_takes_nothing_from_it_and_adds_nothing(later_s, left_s):
    """The wall clock says how much is left, also one that was set back."""
    memory = running().memory
    assert memory is not None
    made = rule(Memory.of_json(asdict(memory)), WALL + later_s)
    assert made.due == left_s
    if left_s:
        assert made.look(Picture(OLD, record()), "n1", 0.0, WALL + later_s).content == NEW
    assert made.look(Picture(OLD, record()), "n1", left_s, WALL + later_s + left_s).content == OLD


def test_it_ends_without_consul_after_a_restart():
    """The key's content of before is remembered: it counts when the time is up."""
    made = rule(running().memory, WALL + 30)
    assert made.look(None, "n1", 69.0, WALL + 99).content is None, "what was taken holds"
    choice = made.look(None, "n1", 70.0, WALL + 100)
    assert choice.ended is not None
    assert (choice.content, choice.ended.how) == (OLD, "expired")


def test_over_stays_over_after_a_restart():
    """Its record may be there for as long as it likes."""
    before = running()
    before.look(Picture(OLD, record()), "n1", 100.0, WALL + 100)
    made = rule(before.memory, WALL + 101)
    choice = made.look(Picture(OLD, record()), "n1", 0.0, WALL + 101)
    assert (choice.content, choice.ended, made.due) == (OLD, None, None)


@pytest.mark.parametrize(("later_s", "content", "due"), [(40.0, NEW, 60.0), (100.0, OLD, None)])
def test_a_start_without_memory_counts_from_the_record(later_s, content, due):
    """It may have run here before: nobody gives it its time twice. Also while the node does not know its name yet."""
    made = rule(None, WALL + later_s)
    made.look(Picture(OLD, record()), None, 0.0, WALL + later_s)
    assert made.look(Picture(OLD, record()), "n1", 0.0, WALL + later_s).content == content
    assert made.due == due


def test_promoted_elsewhere_is_told_where_the_content_arrives():
    """The history of every node has the evidence."""
    seen = Picture(NEW, over("promoted", "web: 0.1% of 900 failed, others 0.1% of 1800"))
    choice = rule().look(seen, "n2", 0.0, WALL)
    assert choice.note == "canary c1 of ann on hill promoted: web: 0.1% of 900 failed, others 0.1% of 1800"
    later = Picture(NEWER, seen.canary)
    assert rule().look(later, "n2", 0.0, WALL).note == "", "that content is another one"


def test_what_was_written_down_is_checked():
    """Another version may have written it."""
    memory = running().memory
    assert memory is not None
    with pytest.raises(TypeError):
        Memory.of_json({"id": "x"})
    with pytest.raises(ValueError, match="another kind"):
        Memory.of_json({**asdict(memory), "seen": "yesterday"})
