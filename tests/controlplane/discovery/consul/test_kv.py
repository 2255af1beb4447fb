"""Several keys at once: read as one picture, and written together or not at all."""

from __future__ import annotations

import pytest
from aiohttp import web

from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.kv import (
    MAX_VALUE_BYTES,
    Row,
    lock_as,
    read_rows,
    set_if,
    transact,
    unchanged,
)
from controlplane.discovery.consul.settings import ConsulError, SettingsError, with_address
from tests.support.fakeconsul import FakeConsul


@pytest.fixture
async def consul():
    """A Consul with three keys that begin alike."""
    async with FakeConsul() as fake:
        fake.keys |= {"lb": (b"one", 3), "lb.canary": (b"two", 4), "lbx": (b"three", 5)}
        yield fake


@pytest.fixture
async def client(consul):
    """Its client."""
    async with connected(with_address(consul.address)) as made:
        yield made


async def read(client, *paths):
    """Read keys that begin with `lb`."""
    return await read_rows(client, "lb", paths, timeout_s=5.0)


async def test_only_those_that_are_asked_for(client):
    """With what is needed to write them; what is not there is missing."""
    assert await read(client, "lb", "lb.canary", "lb.none") == {
        "lb": Row(b"one", 3),
        "lb.canary": Row(b"two", 4),
    }


async def test_nothing_there(client, consul):
    """No key is an answer as well."""
    consul.keys.clear()
    assert await read(client, "lb") == {}


async def test_all_or_nothing(client, consul):
    """Of two writes one finds something else: neither is made."""
    stale = [set_if("lb", b"new", 3), set_if("lb.canary", b"new", 3)]
    assert not await transact(client, stale, timeout_s=5.0)
    assert consul.keys["lb"] == (b"one", 3)
    good = [set_if("lb", b"new", 3), set_if("lb.canary", b"new", 4), unchanged("lbx", 5)]
    assert await transact(client, good, timeout_s=5.0)
    assert (consul.keys["lb"][0], consul.keys["lb.canary"][0]) == (b"new", b"new")
    assert not await transact(client, [set_if("lb.a", b"", 0), unchanged("lbx", 4)], timeout_s=5.0)


async def test_a_lock_shows_whose_it_is(client, consul):
    """And is nobody else's."""
    consul.sessions |= {"s1": {}, "s2": {}}
    assert await transact(client, [lock_as("lb.lock", b"me", "s1")], timeout_s=5.0)
    assert (await read(client, "lb.lock"))["lb.lock"].session == "s1"
    assert not await transact(client, [lock_as("lb.lock", b"me", "s2")], timeout_s=5.0)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (404, b"", {}),
        (200, b"{}x", {}),
        (200, b"7", {}),
        (200, b'[{"Key": "lb"}]', {}),
        (200, b'[{"Key": "lb", "Value": "!", "ModifyIndex": 1}]', {}),
        (200, b'[{"Key": "lb", "Value": null, "ModifyIndex": "x"}]', {}),
        (
            200,
            b'[{"Key": "lb", "Value": "%b", "ModifyIndex": 1}]' % (b"AAAA" * (MAX_VALUE_BYTES // 3 + 1)),
            {},
        ),
    ],
)
async def test_what_is_no_answer(client, consul, status, body, headers):
    """Whatever answers there is not Consul, or has gone mad."""

    async def fault(_request):
        return web.Response(status=status, body=body, headers=headers)

    consul.fault = fault
    with pytest.raises(ConsulError, match="protocol"):
        await read(client, "lb")


async def test_no_transactions_there(client, consul):
    """An address that is no agent's."""

    async def fault(_request):
        return web.Response(status=404)

    consul.fault = fault
    with pytest.raises(ConsulError, match="no Consul agent"):
        await transact(client, [unchanged("lb", 3)], timeout_s=5.0)


def test_a_path_that_is_none():
    """It is refused before it is sent."""
    with pytest.raises(SettingsError):
        set_if("a//b", b"", 0)


async def test_what_consul_does_not_do(client, consul):
    """A token that may not write is told as such, though Consul answers as if something had been written meanwhile."""

    async def fault(_request):
        errors = [{"OpIndex": 0, "What": "Permission denied"}]
        return web.json_response({"Results": None, "Errors": errors}, status=409)

    consul.fault = fault
    with pytest.raises(ConsulError, match="denied: the token may not write"):
        await transact(client, [set_if("lb", b"x", 3)], timeout_s=5.0)
    asked = len(consul.asked)
    with pytest.raises(ConsulError, match="Consul takes 524288"):
        await transact(client, [set_if("lb", b"x" * 400_000, 3)], timeout_s=5.0)
    assert len(consul.asked) == asked
