from __future__ import annotations

from controlplane.core.failover import Failover


def test_the_first_that_has_instances():
    """The first datacenter with instances serves."""
    assert Failover(0.0).choose([3, 2], 0.0) == 0
    assert Failover(0.0).choose([0, 2], 0.0) == 1


def test_silence_is_not_emptiness():
    """A datacenter that has served is not left because of others, nor when it has nothing and nobody else has."""
    failover = Failover(0.0)
    failover.choose([3, 2], 0.0)
    assert failover.choose([1, 9], 5.0) == 0
    assert failover.choose([0, 0], 6.0) == 0


def test_an_empty_one_is_left_at_once():
    """When the one that serves is empty, the next takes over at once."""
    failover = Failover(0.0)
    failover.choose([3, 2], 0.0)
    assert failover.choose([0, 2], 1.0) == 1


def test_no_hurry_to_go_back():
    """A better datacenter must have had instances for 30 s before it is chosen again."""
    failover = Failover(0.0)
    failover.choose([0, 2], 0.0)
    assert failover.choose([3, 2], 10.0) == 1
    assert failover.due(10.0) == 40.0
    assert failover.choose([0, 2], 20.0) == 1  # gone again: the time begins anew
    assert failover.choose([3, 2], 25.0) == 1
    assert failover.choose([3, 2], 54.0) == 1
    assert failover.choose([3, 2], 55.0) == 0


def test_at_the_start_silence_is_waited_for():
    """A first datacenter that has never answered is waited for as long as the hysteresis, then passed over."""
    failover = Failover(0.0)
    assert failover.choose([None, 2], 1.0) is None
    assert failover.due(1.0) == 30.0
    assert failover.choose([None, 2], 30.0) == 1


def test_nothing_anywhere():
    """Without instances anywhere there is nothing to choose."""
    assert Failover(0.0).choose([0, 0], 100.0) is None
