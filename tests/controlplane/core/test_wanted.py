"""Which instances are wanted, on virtual time."""

from __future__ import annotations

from controlplane.core.instances import Condition, Instance
from controlplane.core.wanted import Wanted

ABSENT_S = 300.0


def seen(**conditions):
    """Return instances with these conditions."""
    return tuple(
        Instance(name, f"{name}:1", condition=condition) for name, condition in sorted(conditions.items())
    )


def never(_backend):
    """Nobody answers."""
    return False


def ids(wanted, now):
    """Return the ids of those that are wanted."""
    return "".join(wanted.table(now, ABSENT_S))


def test_critical_ones_are_not_wanted():
    """All other conditions are."""
    wanted = Wanted(never)
    wanted.note(seen(**dict(zip("abcde", Condition, strict=True))), 0.0)
    assert ids(wanted, 0.0) == "abcd"


def test_lost_ones_are_wanted_for_a_time():
    """From when the agent fell silent, whatever replies come meanwhile; and from anew when it has come back."""
    wanted = Wanted(never)
    for now in (0.0, 200.0):
        wanted.note(seen(a=Condition.LOST), now)
    assert wanted.dues("a", ABSENT_S) == [ABSENT_S]
    assert (ids(wanted, 299.0), ids(wanted, 300.0)) == ("a", "")
    wanted.note(seen(a=Condition.PASSING), 400.0)
    wanted.note(seen(a=Condition.LOST), 500.0)
    assert (ids(wanted, 799.0), ids(wanted, 800.0)) == ("a", "")


def test_lost_ones_that_answer_stay():
    """The balancer's own checks know better than a silent agent."""
    wanted = Wanted(lambda backend: backend == "a")
    wanted.note(seen(a=Condition.LOST, b=Condition.LOST), 0.0)
    assert ids(wanted, 10 * ABSENT_S) == "a"


def test_only_what_is_published_falls_due():
    """Nobody need be woken for the end of what nobody sees."""
    wanted = Wanted(never)
    wanted.note(seen(a=Condition.LOST), 0.0)
    assert wanted.dues("b", ABSENT_S) == []


def test_flapping_ones_wait():
    """What goes up and down all the time is not wanted until it has calmed, and that falls due."""
    wanted = Wanted(never)
    for now in range(8):
        wanted.note(seen(a=Condition.PASSING if now % 2 else Condition.CRITICAL), float(now))
    assert ids(wanted, 7.0) == ""
    assert wanted.flapping(7.0) == ["a"]
    (calm_at,) = wanted.dues((), ABSENT_S)
    assert (ids(wanted, calm_at - 1.0), ids(wanted, calm_at)) == ("", "a")
    assert wanted.flapping(calm_at) == []
