"""What nodes tell of themselves does not grow with the square of their number."""

import pytest

from controlplane.core.record_pace import numbers_every_s, read_pause_s, room_share


@pytest.mark.parametrize("nodes", [0, 1, 3, 16])
def test_few_nodes_tell_everything(nodes):
    """Up to 16 nodes have all the room, tell their numbers every 5 s, and see news within a second."""
    assert room_share(nodes) == 1.0
    assert numbers_every_s(nodes) == 5.0
    assert 0 < read_pause_s(nodes) < 1.0


@pytest.mark.parametrize("nodes", [17, 100, 1000])
def test_many_nodes_share_the_room(nodes):
    """The room of all together stays that of 16, they write no more than four records a second, and read the less often."""
    assert nodes * room_share(nodes) == pytest.approx(16)
    assert nodes / numbers_every_s(nodes) <= 4.0
    assert nodes / read_pause_s(nodes) == pytest.approx(20), (
        "reads of all records a second, by all nodes together"
    )
