"""The records of all nodes, read from Consul."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from controlplane.cluster.reading import (
    MAX_NODES,
    cluster_in,
    entries_of,
    nodes_prefix,
    read_cluster,
    read_nodes,
)
from controlplane.core.node_record import NodeRecord
from controlplane.core.nodes import Presence
from controlplane.discovery.consul.client import Reply, connected
from controlplane.discovery.consul.settings import ConsulError, with_address
from controlplane.errors import InputError
from tests.support.fakeconsul import FakeConsul

AT = "2999-01-02T03:04:05.000Z"


def record(name, **more):
    """Return a record as its node writes it."""
    return NodeRecord(node=name, at=AT, **more).encode()


def put(consul, name, raw, *, session=""):
    """Have a node's key in Consul."""
    consul.index += 1
    consul.keys[f"{nodes_prefix('edge')}{name}"] = (raw, consul.index)
    if session:
        consul.locks[f"{nodes_prefix('edge')}{name}"] = session


async def pictured(consul):
    """Return what a command sees."""
    async with connected(with_address(consul.address)) as client:
        return await read_nodes(client, "edge")


async def test_every_node_is_read():
    """Those of this cluster and of no other, those that are gone, and what is no record; folders and names that no node can have are nobody."""
    async with FakeConsul() as consul:
        put(consul, "a", record("a"), session="s1")
        put(consul, "b", record("b"))
        put(consul, "c", b"\xff", session="s2")
        put(consul, "", b"")
        put(consul, "d/e", record("e"))
        put(consul, "f\x1b[2J", record("f"))
        put(consul, "g" * 65, record("g"))
        consul.keys["livelb/edge2/nodes/z"] = (record("z"), 5)
        seen = await pictured(consul)
    assert [(each.name, each.presence) for each in seen.nodes] == [
        ("a", Presence.LIVE),
        ("b", Presence.GONE),
        ("c", Presence.UNREADABLE),
    ]


async def test_what_their_key_holds_is_read_as_well():
    """So one node alone can be seen to be behind; a key that cannot be read, or is no key, says nothing."""
    async with FakeConsul() as consul:
        content = hashlib.sha256(b"old").hexdigest()
        consul.keys["lb/edge"] = (b"new", 3)
        for name, key in (("a", "lb/edge"), ("b", "lb/none"), ("c", "lb/../x")):
            put(consul, name, record(name, key=key, content=content, converged=True), session="s")
        seen = await pictured(consul)
    assert [bool(each.behind) for each in seen.nodes] == [True, False, False]


async def test_no_node_is_an_empty_picture():
    """A cluster that nobody has joined has no key."""
    async with FakeConsul() as consul:
        assert (await pictured(consul)).nodes == ()


def reply(body, status=200, **headers):
    """Return an answer of somebody's."""
    return Reply(status, headers, body)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[1]", b'[{"Key": "a"}]', b'[{"Key": "a", "Value": "*", "ModifyIndex": 1}]', b"null"],
)
def test_what_is_no_list_of_keys_is_an_error(body):
    """Whatever answered, it was not Consul."""
    with pytest.raises(ConsulError, match="no list of keys"):
        entries_of(reply(body), "edge")


def test_nothing_found_is_an_answer_of_consul_only():
    """Another server says 404 as well."""
    assert entries_of(reply(b"", 404, **{"X-Consul-Index": "5"}), "edge") == []
    with pytest.raises(ConsulError, match="no Consul agent"):
        entries_of(reply(b"", 404), "edge")


def test_there_are_only_so_many():
    """Whoever may write there could write for ever."""
    rows = [
        {"Key": f"{nodes_prefix('edge')}{n}", "Value": None, "ModifyIndex": 1} for n in range(MAX_NODES + 5)
    ]
    assert len(entries_of(reply(json.dumps(rows).encode()), "edge")) == MAX_NODES


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"cluster: 5",
        b"cluster: {name: 5}",
        b"cluster: {name: ../x}",
        b"cluster: {}",
        b"{",
        b"\xff",
    ],
)
def test_a_file_without_a_name_is_an_error(raw):
    """Whatever else is in it."""
    with pytest.raises(InputError, match=r"consul-kv:lb: cluster\.name: missing"):
        cluster_in(raw, "consul-kv:lb")


async def test_a_command_needs_the_key_alone():
    """It names the cluster, however wrong the rest of it is: nobody has time for that now."""
    async with FakeConsul() as consul:
        consul.keys["lb/edge"] = (b"cluster: {name: edge}\nservices: nonsense\n", 3)
        put(consul, "a", record("a"), session="s1")
        report = await read_cluster(with_address(consul.address), "lb/edge", 5.0)
    assert (report["cluster"], report["live"], report["known"], report["node"]) == ("edge", 1, True, None)


async def test_a_command_does_not_wait_for_ever():
    """A Consul that hangs is told as such."""
    async with FakeConsul() as consul:
        hangs = asyncio.Event()

        async def hang(_request):
            await hangs.wait()

        consul.fault = hang
        with pytest.raises(ConsulError, match=r"timeout: .* no answer within 0\.05 s"):
            await read_cluster(with_address(consul.address), "lb/edge", 0.05)
        hangs.set()
