from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from controlplane.sources.consul_client import ConsulError
from controlplane.sources.consul_kv import MAX_VALUE_BYTES, ConsulKV
from controlplane.sources.consul_settings import SettingsError, with_address
from tests.support.discovery import FAST, RUNTIME, eventually
from tests.support.fakeconsul import FakeConsul


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


def store(consul):
    """Its keys."""
    return ConsulKV(with_address(consul.address), pace=FAST, runtime=RUNTIME)


@asynccontextmanager
async def watching(kv, path):
    """Watch a key; yields the list of its values."""
    values = []

    async def take(raw, _index):
        values.append(raw)

    task = asyncio.create_task(kv.watch(path, take))
    try:
        yield values
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_write_and_read(consul):
    """What was written is read, with the index for the next write."""
    kv = store(consul)
    assert await kv.put_cas("lb/site", b"version: 1\n", 0)
    raw, index = await kv.read("lb/site")
    assert raw == b"version: 1\n"
    assert await kv.put_cas("lb/site", b"version: 1 # two\n", index)


async def test_the_second_writer_loses(consul):
    """Of two who read the same only the first can write."""
    kv = store(consul)
    await kv.put_cas("lb", b"one", 0)
    _, index = await kv.read("lb")
    assert await kv.put_cas("lb", b"two", index)
    assert not await kv.put_cas("lb", b"three", index)
    assert not await kv.put_cas("lb", b"first", 0)
    assert (await kv.read("lb"))[0] == b"two"


async def test_missing_key(consul):
    """A key that is not there is an error that names it."""
    with pytest.raises(ConsulError, match="consul-kv:none"):
        await store(consul).read("none")


async def test_too_large(consul):
    """What Consul would refuse is refused before it is sent."""
    with pytest.raises(ConsulError, match="takes 524288"):
        await store(consul).put_cas("lb", b"x" * (MAX_VALUE_BYTES + 1), 0)
    assert consul.asked == []


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "a/../b", ".", "a\nb"])
async def test_paths_that_are_none(consul, path):
    """A path that a URL would not carry as it is, is refused."""
    with pytest.raises(SettingsError):
        await store(consul).read(path)


async def test_watch_hands_on_every_value_once(consul, no_blocking):
    """The first value comes at once, each new one when it is written, and an equal one not at all."""
    kv = store(consul)
    await kv.put_cas("lb", b"one", 0)
    async with watching(kv, "lb") as values:
        await eventually(lambda: values == [b"one"], "the first value")
        await eventually(lambda: consul.blocked, "the watch")
        consul.keys["lb"] = (b"one", consul.index + 1)
        await consul.wake()
        consul.keys["lb"] = (b"two", consul.index + 1)
        await consul.wake()
        await eventually(lambda: values == [b"one", b"two"], "the second value")
        assert kv.status()["state"] == "ok"
        assert kv.status()["name"] == "consul-kv:lb"


async def test_a_key_that_goes_is_no_value(consul):
    """A deleted or emptied key hands nothing on: the last value holds, and status tells."""
    kv = store(consul)
    await kv.put_cas("lb", b"one", 0)
    async with watching(kv, "lb") as values:
        await eventually(lambda: values, "the first value")
        for gone in (None, b""):
            consul.keys.pop("lb", None)
            if gone is not None:
                consul.keys["lb"] = (gone, consul.index + 1)
            await consul.wake()
            await eventually(lambda: kv.status()["state"] == "stale", "staleness")
            assert "missing or empty" in kv.status()["last_error"]
        assert values == [b"one"]
        consul.keys["lb"] = (b"back", consul.index + 1)
        await consul.wake()
        await eventually(lambda: values == [b"one", b"back"], "the new value")
        assert kv.status()["state"] == "ok"


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (500, b"No cluster leader", "stale"),
        (403, b"Permission denied", "denied"),
        (200, b"{}", "stale"),
        (200, b"[]", "stale"),
    ],
)
async def test_errors_change_nothing(consul, status, body, state):
    """Whatever goes wrong: nothing is handed on, status says what, and the watch goes on."""
    kv = store(consul)
    await kv.put_cas("lb", b"one", 0)

    async def fault(_request):
        return web.Response(status=status, body=body, headers={"X-Consul-Index": "99"})

    async with watching(kv, "lb") as values:
        await eventually(lambda: values, "the first value")
        consul.fault = fault
        await consul.wake()
        await eventually(lambda: kv.status()["state"] == state, state)
        consul.fault = None
        consul.keys["lb"] = (b"two", consul.index + 1)
        await consul.wake()
        await eventually(lambda: values == [b"one", b"two"], "the next value")


async def test_a_key_that_appears_later(consul):
    """A watch may begin before its key exists."""
    kv = store(consul)
    async with watching(kv, "lb") as values:
        await eventually(lambda: kv.status()["last_error"], "the missing key")
        assert kv.status()["state"] == "error"
        await kv.put_cas("lb", b"one", 0)
        await eventually(lambda: values == [b"one"], "the value")
