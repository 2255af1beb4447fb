"""Which process answers."""

from __future__ import annotations

from controlplane.core.identity import Identity


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
