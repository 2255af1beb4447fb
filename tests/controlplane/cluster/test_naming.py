"""What a node is called: as its file says, else as the machine is."""

from __future__ import annotations

import pytest

from controlplane.cluster import naming
from controlplane.cluster.naming import node_name
from schemas.cluster import Cluster


@pytest.mark.parametrize(
    ("node", "host", "name"),
    [
        ("a", "hill", "a"),
        (None, "hill", "hill"),
        (None, "the hill/é", "the-hill--"),
        (None, "x" * 70, "x" * 64),
    ],
)
def test_the_name_of_a_node(monkeypatch, node, host, name):
    """The machine's is made fit for a key."""
    monkeypatch.setattr(naming, "here", lambda: host)
    assert node_name(Cluster(name="edge", node=node)) == name
