from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from controlplane.discovery.consul.client import ConsulError
from controlplane.discovery.consul.kv import MAX_VALUE_BYTES, ConsulKV
from controlplane.discovery.consul.settings import SettingsError, with_address
from controlplane.discovery.consul.status import rfc3339
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


async def test_a_frozen_agent_is_noticed(consul):
    """A key's blocking query waits as long as its service's: an agent that hangs is stale, and in order when it answers."""
    pace = type(FAST)(wait_s=60.0, pulse_s=0.02, pulse_timeout_s=0.1)
    kv = ConsulKV(with_address(consul.address), pace=pace, runtime=RUNTIME)
    thawed = asyncio.Event()

    async def hang(_request):
        await thawed.wait()
        return web.json_response("127.0.0.1:8300")

    await store(consul).put_cas("lb", b"one", 0)
    async with watching(kv, "lb") as values:
        await eventually(lambda: values == [b"one"] and consul.blocked == 1, "the first value")
        await eventually(lambda: kv.status()["state"] == "ok", "its state")
        consul.fault = hang
        await eventually(lambda: kv.status()["state"] == "stale", "the silence to be noticed")
        row = kv.status()
        assert row["last_error"].startswith("timeout: ")
        assert row["since"] < rfc3339(RUNTIME.clock(), RUNTIME)
        assert consul.blocked == 1
        consul.fault = None
        thawed.set()
        await eventually(lambda: kv.status()["state"] == "ok", "the end of the silence")
        assert kv.status()["last_error"] is None


async def test_a_silent_agent_is_asked_at_once_when_it_answers(consul, monkeypatch):
    """A read that failed in a silence is repeated when it ends, not after a pause that has grown for as long."""
    pace = type(FAST)(wait_s=60.0, pulse_s=0.02, pulse_timeout_s=1.0)
    kv = ConsulKV(with_address(consul.address), pace=pace, runtime=RUNTIME)
    failed = kv._failed
    monkeypatch.setattr(kv, "_failed", lambda *how: failed(*how) + 3600.0)

    async def hang_up(request):
        request.transport.abort()
        return web.Response()

    consul.fault = hang_up
    async with watching(kv, "lb") as values:
        await eventually(lambda: kv._pulse.error, "the silence")
        consul.fault = None
        consul.keys["lb"] = (b"one", 1)
        await eventually(lambda: values == [b"one"], "the value")
