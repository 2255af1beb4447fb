"""An lb.yaml in a key: handed on when it changes, read again when asked, never overwritten unseen."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from controlplane.discovery.consul import key
from controlplane.discovery.consul.client import ConsulError
from controlplane.discovery.consul.key import KeySource, write_key
from controlplane.discovery.consul.settings import with_address
from controlplane.errors import HeldBackError
from tests.support.discovery import FAST, eventually
from tests.support.fakeconsul import FakeConsul


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


@contextlib.asynccontextmanager
async def watched(consul):
    """Watch a key."""
    seen = []

    async def take(raw, forced):
        seen.append((raw, forced))

    source = KeySource("lb/web", with_address(consul.address), on_content=take, pace=FAST)
    task = asyncio.create_task(source.run())
    try:
        yield source, seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def write(consul, raw, **options):
    """Write the key."""
    return await write_key(with_address(consul.address), "lb/web", raw, 5.0, **options)


async def test_changes_are_handed_on(consul):
    """Each new content comes once; asked for, the same one comes again."""
    async with watched(consul) as (source, seen):
        assert await write(consul, b"one")
        await eventually(lambda: seen == [(b"one", False)], "the first content")
        assert await write(consul, b"two")
        await eventually(lambda: seen[1:] == [(b"two", False)], "the second content")
        source.force()
        await eventually(lambda: seen[2:] == [(b"two", True)], "the same again")
        assert source.status()["state"] == "ok"


async def test_asked_for_while_consul_is_away(consul, monkeypatch):
    """What somebody asked for comes as soon as Consul answers."""
    monkeypatch.setattr(key, "_RETRY_S", 0.01)

    async def fault(_request):
        return web.Response(status=500, text="No cluster leader")

    async with watched(consul) as (source, seen):
        await write(consul, b"one")
        await eventually(lambda: seen, "the first content")
        consul.fault = fault
        before = len(consul.asked)
        source.force()
        await eventually(lambda: len(consul.asked) > before, "a question that fails")
        consul.fault = None
        await eventually(lambda: (b"one", True) in seen, "the content")


async def test_the_same_content_is_not_written(consul):
    """What is there already is no change."""
    assert await write(consul, b"one")
    assert not await write(consul, b"one")


@pytest.mark.parametrize("force", [False, True])
async def test_a_write_meanwhile_is_not_overwritten(consul, force):
    """Who comes second is told, unless he insists."""
    await write(consul, b"one")
    real = FakeConsul._kv

    async def interfered(request, path):
        answer = await real(consul, request, path)
        if request.method == "GET" and consul.keys[path][0] == b"one":
            consul.index += 1
            consul.keys[path] = (b"somebody else's", consul.index)
        return answer

    consul._kv = interfered
    if force:
        assert await write(consul, b"two", force=True)
    else:
        with pytest.raises(HeldBackError, match="nothing was changed: somebody else"):
            await write(consul, b"two")
    assert consul.keys["lb/web"][0] == (b"two" if force else b"somebody else's")


async def test_no_consul():
    """Nobody there is an error that says whom it asked."""
    with pytest.raises(ConsulError, match=r"127\.0\.0\.1:1"):
        await write_key(with_address("http://127.0.0.1:1"), "lb/web", b"one", 5.0)
