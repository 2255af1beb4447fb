"""Who had a reason to fail, and who had none: what every test of a cluster ends with."""

from __future__ import annotations

from tests.support.aftermath import Aftermath, unexcused
from tests.support.load import Visit

BEFORE = Visit(False, 1.0, "b1@n1", 2.0, "reset")
ACROSS = Visit(False, 3.0, "", 5.5, "reset")
MEANWHILE = Visit(False, 5.2, "", 20.0, "timeout")
AFTER = Visit(False, 6.5, "", 7.0, "refused")
SERVED = Visit(False, 6.6, "b1@n2", 6.7)
LOST = Visit(True, 0.5, "b1@n1", 6.1, "reset")
KEPT = Visit(True, 0.5, "b2@n2")
ALL = (BEFORE, ACROSS, MEANWHILE, AFTER, SERVED, LOST, KEPT)


def test_unexcused():
    """Who was under way when the router changed its mind has a reason; who came afterwards, or was over, has none."""
    assert unexcused(ALL, [(5.0, 6.0)]) == [BEFORE, AFTER]
    assert unexcused(ALL, [(5.0, 6.0), (1.5, 1.6), (6.8, 6.9)]) == []
    assert unexcused(ALL, []) == [BEFORE, ACROSS, MEANWHILE, AFTER, LOST]


def test_aftermath():
    """Flows are counted by their node, clients by whether the router knew when they began."""
    after = Aftermath(5.0, 6.0, ALL, {"b1@n1": "node1", "b1@n2": "node2", "b2@n2": "node2"})
    assert after.flows == {"node1": 1, "node2": 1}
    assert after.lost_flows == {"node1": 1}
    assert after.failed_before == {"reset": 2, "timeout": 1}
    assert after.failed_after == [AFTER]
    assert after.failed_ahead == [BEFORE]
    assert after.served_after == {"node2": 1, "nobody": 1}
