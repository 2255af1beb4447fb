"""A session of Consul's: made, renewed, lost, and what is written under it."""

from __future__ import annotations

import pytest
from aiohttp import web

from controlplane.cluster.session import LostSession, Session
from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.settings import ConsulError, with_address
from tests.support.fakeconsul import FakeConsul

PATH = "/v1/kv/livelb/edge/nodes/n1"
KEY = "livelb/edge/nodes/n1"


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


@pytest.fixture
async def client(consul):
    """A client of it."""
    async with connected(with_address(consul.address)) as made:
        yield made


async def test_it_is_made_once_and_renewed(consul, client):
    """With the TTL, the behaviour and no delay, so that the next one need not wait."""
    session = Session(client, "livelb n1")
    assert await session.ensure()
    assert consul.sessions == {
        session.id: {"Name": "livelb n1", "TTL": "10s", "Behavior": "release", "LockDelay": "0s"}
    }
    assert not await session.ensure()
    assert [each.path for each in consul.asked] == ["/v1/session/create", f"/v1/session/renew/{session.id}"]


async def test_a_lost_one_is_made_anew(consul, client):
    """Consul says that it does not know it any more."""
    session = Session(client, "livelb n1")
    await session.ensure()
    lost = session.id
    await consul.expire(lost)
    with pytest.raises(LostSession):
        await session.acquire(PATH, b"one")
    assert session.id is None
    assert await session.ensure()
    assert session.id != lost
    await consul.expire(session.id)
    assert await session.ensure()


async def test_a_key_is_its_own_while_it_lives(consul, client):
    """Another one does not get it, and nothing of what that one says is written."""
    session, other = Session(client, "livelb n1"), Session(client, "livelb n1")
    await session.ensure()
    await other.ensure()
    assert await session.acquire(PATH, b"one")
    assert await session.acquire(PATH, b"two")
    assert not await other.acquire(PATH, b"three")
    assert (consul.keys[KEY][0], consul.locks) == (b"two", {KEY: session.id})
    await consul.expire(session.id)
    assert (consul.keys[KEY][0], consul.locks) == (b"two", {})
    assert await other.acquire(PATH, b"three")


async def test_it_ends_in_good_order(consul, client):
    """What is said last stays, and nobody holds it."""
    session = Session(client, "livelb n1")
    await session.ensure()
    await session.acquire(PATH, b"one")
    assert await session.release(PATH, b"left")
    await session.destroy()
    assert (consul.keys[KEY][0], consul.locks, consul.sessions) == (b"left", {}, {})
    asked = len(consul.asked)
    await session.destroy()
    assert len(consul.asked) == asked


async def test_a_lock_goes_with_its_session(consul, client):
    """Made so, its keys are deleted."""
    session = Session(client, "lock", "delete")
    await session.ensure()
    await session.acquire(PATH, b"mine")
    await session.destroy()
    assert consul.keys == {}


async def test_nothing_is_written_without_one(client):
    """Before it is made there is none."""
    with pytest.raises(LostSession):
        await Session(client, "livelb n1").acquire(PATH, b"one")


async def test_what_is_no_answer_is_an_error(consul, client):
    """A session that may still live is kept when Consul does not answer as it should."""
    session = Session(client, "livelb n1")

    async def nonsense(_request):
        return web.Response(text="[]")

    consul.fault = nonsense
    with pytest.raises(ConsulError, match="no session"):
        await session.ensure()
    consul.fault = None
    await session.ensure()
    kept = session.id

    async def away(_request):
        return web.Response(status=500, text="No cluster leader")

    consul.fault = away
    with pytest.raises(ConsulError, match="No cluster leader"):
        await session.ensure()
    with pytest.raises(ConsulError, match="No cluster leader"):
        await session.acquire(PATH, b"one")
    assert session.id == kept
