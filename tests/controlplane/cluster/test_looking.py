"""A command's look at a cluster: all of its keys at once. What it waits for, tests of the commands hold."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.cluster.looking import InterruptedHere, Keys, Looker
from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.settings import with_address
from tests.support.fakeconsul import FakeConsul


def test_the_keys_of_one_desired_state():
    """As people and Consul call them."""
    keys = Keys("lb/edge.yaml")
    assert (keys.name, keys.canary, keys.lock) == (
        "consul-kv:lb/edge.yaml",
        "lb/edge.yaml.canary",
        "lb/edge.yaml.lock",
    )


async def test_a_look_has_nodes_and_keys():
    """And is none while Consul is away, which is said once."""
    said = []
    async with FakeConsul() as consul, connected(with_address(consul.address)) as client:
        consul.keys |= {"lb": (b"one", 3), "lb.canary": (b"two", 4), "lbx": (b"no", 5)}
        looker = Looker(client, "edge", Keys("lb"), said.append, asyncio.Event())
        look = await looker.look()
        assert (sorted(look.rows), look.picture.cluster) == (["lb", "lb.canary"], "edge")
    async with connected(with_address("http://127.0.0.1:1")) as client:
        looker = Looker(client, "edge", Keys("lb"), said.append, asyncio.Event())
        assert (await looker.look(), await looker.look(), len(said)) == (None, None, 1)


async def test_a_pause_ends_when_somebody_interrupts():
    """At once."""
    stop = asyncio.Event()
    stop.set()
    with pytest.raises(InterruptedHere, match="interrupted"):
        await Looker(None, "edge", Keys("lb"), print, stop).pause()
