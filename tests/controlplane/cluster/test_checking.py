"""Before a file is written for all nodes it is checked for each of them, with what that node says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.cluster.checking import check_for_all
from controlplane.core.node_record import NodeRecord
from controlplane.desired.document import Given
from controlplane.discovery.consul.settings import ConsulError, with_address
from controlplane.errors import InputError
from controlplane.operations.options import now_text
from tests.support.fakeconsul import FakeConsul
from tests.support.ports import HeldPort

AT = now_text()
"""Who has been gone for a day is forgotten."""
TEXT = b"""\
version: 1
cluster: {name: edge}
services:
  web:
    listen: ${NODE_IP}:443
    backends: []
"""


def given(text: bytes = TEXT) -> Given:
    """Return a file that was read."""
    return Given(text, "lb.yaml", Path())


def tell(consul: FakeConsul, node: str, *, live: bool = True, **variables: str) -> None:
    """Have a node tell its variables."""
    key = f"livelb/edge/nodes/{node}"
    consul.keys[key] = (NodeRecord(node, AT, variables=variables).encode(), 1)
    if live:
        consul.locks[key] = f"session of {node}"


async def test_every_live_node_is_asked():
    """Whoever could not run it is named, with the line; who is gone has no say."""
    async with FakeConsul() as consul:
        settings = with_address(consul.address)
        assert (await check_for_all(settings, given())).desired.services["web"].listen == ("192.0.2.1:443",)
        tell(consul, "lb1", NODE_IP="10.0.0.1")
        tell(consul, "lb2", NODE_IP="10.0.0.2")
        tell(consul, "lb3", live=False)
        await check_for_all(settings, given())
        tell(consul, "lb4", NODE_NAME="lb4")
        with pytest.raises(InputError) as refused:
            await check_for_all(settings, given())
    assert str(refused.value) == (
        "lb.yaml:5:13: services.web.listen: node lb4: has ${NODE_IP}, which is not known: the node has no such variable"
    )


@pytest.mark.parametrize("gone", [b"cluster: {name: edge}\n", b"${NODE_IP}"])
async def test_what_is_the_same_everywhere_needs_nobody(gone):
    """Without a cluster, or without a variable, Consul is not asked."""
    with HeldPort() as port:
        await check_for_all(with_address(f"http://{port.address}"), given(TEXT.replace(gone, b"")))


async def test_who_the_nodes_are_must_be_known():
    """A file is not written for nodes that nobody has asked."""
    with HeldPort() as port, pytest.raises(ConsulError, match="unreachable"):
        await check_for_all(with_address(f"http://{port.address}"), given())
