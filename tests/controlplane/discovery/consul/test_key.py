"""An lb.yaml in a key: handed on when it changes, read again when asked, never overwritten unseen."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from controlplane.core.canary import Picture
from controlplane.core.canary_record import CanaryRecord, digest_of_content
from controlplane.discovery.consul import key
from controlplane.discovery.consul.client import ConsulClient
from controlplane.discovery.consul.key import MAX_VALUE_BYTES, KeySource, put_key, read_key
from controlplane.discovery.consul.settings import ConsulError, SettingsError, with_address
from tests.support.discovery import FAST, RUNTIME, eventually
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

    async def take(picture, forced):
        if picture.content is not None:
            seen.append((picture.content, forced))

    source = KeySource("lb/web", with_address(consul.address), pace=FAST)
    task = asyncio.create_task(source.run(take))
    try:
        yield source, seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def write(consul, raw):
    """Write the key."""
    consul.keys["lb/web"] = (raw, consul.index + 1)
    await consul.wake()


def test_a_key_is_called_as_a_command_calls_it():
    """It has no folder: files of services have to be absolute, and Consul's are looked for where the daemon was started."""
    home = KeySource("lb/edge", with_address("http://127.0.0.1:1"))
    name = "consul-kv:lb/edge"
    assert (home.word, home.name, home.place, home.folder) == ("key", name, name, None)


async def test_changes_are_handed_on(consul):
    """Each new content comes once; asked for, the same one comes again."""
    async with watched(consul) as (source, seen):
        await write(consul, b"one")
        await eventually(lambda: seen == [(b"one", False)], "the first content")
        await write(consul, b"two")
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


class Keys:
    """The keys of an agent, each call over a connection of its own."""

    def __init__(self, consul):
        self.consul = consul

    async def _call(self, ask, *how):
        client = ConsulClient(with_address(self.consul.address))
        try:
            return await ask(client, *how, 5.0)
        finally:
            await client.close()

    async def put_cas(self, path, raw, index):
        """Write a key."""
        return await self._call(put_key, path, raw, index)

    async def read(self, path):
        """Read a key."""
        return await self._call(read_key, path)


@contextlib.asynccontextmanager
async def watching(consul, pace=FAST):
    """Watch the key `lb`; yields who does, and the list of its values."""
    values = []

    async def take(picture, _forced):
        if picture.content is not None:
            values.append(picture.content)

    settings = with_address(consul.address)
    source = KeySource("lb", settings, pace=pace, runtime=RUNTIME)
    task = asyncio.create_task(source.run(take))
    try:
        yield source, values
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_write_and_read(consul):
    """What was written is read, with the index for the next write."""
    kv = Keys(consul)
    assert await kv.put_cas("lb/site", b"version: 1\n", 0)
    raw, index = await kv.read("lb/site")
    assert raw == b"version: 1\n"
    assert await kv.put_cas("lb/site", b"version: 1 # two\n", index)


async def test_the_second_writer_loses(consul):
    """Of two who read the same only the first can write."""
    kv = Keys(consul)
    await kv.put_cas("lb", b"one", 0)
    _, index = await kv.read("lb")
    assert await kv.put_cas("lb", b"two", index)
    assert not await kv.put_cas("lb", b"three", index)
    assert not await kv.put_cas("lb", b"first", 0)
    assert (await kv.read("lb"))[0] == b"two"


async def test_missing_key(consul):
    """A key that is not there is an error that names it."""
    with pytest.raises(ConsulError, match="consul-kv:none"):
        await Keys(consul).read("none")


async def test_too_large(consul):
    """What Consul would refuse is refused before it is sent."""
    with pytest.raises(ConsulError, match="takes 524288"):
        await Keys(consul).put_cas("lb", b"x" * (MAX_VALUE_BYTES + 1), 0)
    assert consul.asked == []


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", "a/../b", ".", "a\nb"])
async def test_paths_that_are_none(consul, path):
    """A path that a URL would not carry as it is, is refused."""
    with pytest.raises(SettingsError):
        await Keys(consul).read(path)


async def test_watch_hands_on_every_value_once(consul, no_blocking):
    """The first value comes at once, each new one when it is written, and an equal one not at all."""
    await Keys(consul).put_cas("lb", b"one", 0)
    async with watching(consul) as (source, values):
        await eventually(lambda: values == [b"one"], "the first value")
        await eventually(lambda: consul.blocked, "the watch")
        consul.keys["lb"] = (b"one", consul.index + 1)
        await consul.wake()
        consul.keys["lb"] = (b"two", consul.index + 1)
        await consul.wake()
        await eventually(lambda: values == [b"one", b"two"], "the second value")
        assert source.status()["state"] == "ok"
        assert source.status()["name"] == "consul-kv:lb"


async def test_a_key_that_goes_is_no_value(consul):
    """A deleted or emptied key hands nothing on: the last value holds, and status tells."""
    await Keys(consul).put_cas("lb", b"one", 0)
    async with watching(consul) as (source, values):
        await eventually(lambda: values, "the first value")
        for gone in (None, b""):
            consul.keys.pop("lb", None)
            if gone is not None:
                consul.keys["lb"] = (gone, consul.index + 1)
            await consul.wake()
            await eventually(lambda: source.status()["state"] == "stale", "staleness")
            assert "missing or empty" in source.status()["last_error"]
        assert values == [b"one"]
        consul.keys["lb"] = (b"back", consul.index + 1)
        await consul.wake()
        await eventually(lambda: values == [b"one", b"back"], "the new value")
        assert source.status()["state"] == "ok"


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
    await Keys(consul).put_cas("lb", b"one", 0)

    async def fault(_request):
        return web.Response(status=status, body=body, headers={"X-Consul-Index": "99"})

    async with watching(consul) as (source, values):
        await eventually(lambda: values, "the first value")
        consul.fault = fault
        await consul.wake()
        await eventually(lambda: source.status()["state"] == state, state)
        consul.fault = None
        consul.keys["lb"] = (b"two", consul.index + 1)
        await consul.wake()
        await eventually(lambda: values == [b"one", b"two"], "the next value")


async def test_a_key_that_appears_later(consul):
    """A watch may begin before its key exists."""
    async with watching(consul) as (source, values):
        await eventually(lambda: source.status()["last_error"], "the missing key")
        assert source.status()["state"] == "error"
        await Keys(consul).put_cas("lb", b"one", 0)
        await eventually(lambda: values == [b"one"], "the value")


async def test_a_frozen_agent_is_noticed(consul):
    """A key's blocking query waits as long as its service's: an agent that hangs is stale, and in order when it answers."""
    pace = type(FAST)(wait_s=60.0, pulse_s=0.02, pulse_timeout_s=0.1)
    thawed = asyncio.Event()

    async def hang(_request):
        await thawed.wait()
        return web.json_response("127.0.0.1:8300")

    await Keys(consul).put_cas("lb", b"one", 0)
    async with watching(consul, pace) as (source, values):
        await eventually(lambda: values == [b"one"] and consul.blocked == 1, "the first value")
        await eventually(lambda: source.status()["state"] == "ok", "its state")
        consul.fault = hang
        await eventually(lambda: source.status()["state"] == "stale", "the silence to be noticed")
        row = source.status()
        assert row["last_error"].startswith("timeout: ")
        assert row["since"] < RUNTIME.rfc3339(RUNTIME.clock())
        assert consul.blocked == 1
        consul.fault = None
        thawed.set()
        await eventually(lambda: source.status()["state"] == "ok", "the end of the silence")
        assert source.status()["last_error"] is None


async def test_a_silent_agent_is_asked_at_once_when_it_answers(consul, monkeypatch):
    """A read that failed in a silence is repeated when it ends, not after a pause that has grown for as long."""
    pace = type(FAST)(wait_s=60.0, pulse_s=0.02, pulse_timeout_s=1.0)
    failed = KeySource._failed
    monkeypatch.setattr(KeySource, "_failed", lambda *how: failed(*how) + 3600.0)

    async def hang_up(request):
        request.transport.abort()
        return web.Response()

    consul.fault = hang_up
    async with watching(consul, pace) as (source, values):
        await eventually(lambda: source._pulse.error, "the silence")
        consul.fault = None
        consul.keys["lb"] = (b"one", 1)
        await eventually(lambda: values == [b"one"], "the value")


async def test_the_canary_is_in_the_same_picture(consul):
    """Both are of one answer; keys that only begin alike are passed over, and a record that is none names nobody."""
    record = CanaryRecord(
        id="c1",
        by="ann",
        since="2027-01-15T08:00:00Z",
        lasts_s=60.0,
        nodes=("n1",),
        observe_s=1.0,
        base="a" * 64,
        content_hash=digest_of_content(b"new"),
        content="new",
    )
    pictures = []

    async def take(picture, _forced):
        pictures.append(picture)

    consul.keys |= {
        "lb": (b"old", 5),
        "lb.canary": (record.encode(), 6),
        "lb.lock": (b"x", 7),
        "lb2": (b"y", 8),
    }
    source = KeySource("lb", with_address(consul.address), pace=FAST, runtime=RUNTIME)
    task = asyncio.create_task(source.run(take))
    try:
        await eventually(lambda: pictures == [Picture(b"old", record)], "the picture")
        consul.keys |= {"lb": (b"new", consul.index + 1), "lb.canary": (b"{", consul.index + 1)}
        await consul.wake()
        await eventually(lambda: pictures[1:] == [Picture(b"new")], "the next one")
        assert "consul-kv:lb.canary is no canary" in source.status()["note"]
        consul.keys["lb2"] = (b"z", consul.index + 1)
        await consul.wake()
        consul.keys["lb"] = (b"newer", consul.index + 1)
        await consul.wake()
        await eventually(lambda: pictures[2:] == [Picture(b"newer")], "no picture for another key's sake")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_token_that_may_not_read_it_is_denied(consul):
    """Asked for many keys, Consul leaves out what the token may not read, as if there were none: so the one is asked for."""
    real = FakeConsul._kv

    async def narrow(request, path):
        if "recurse" in request.query:
            return web.Response(status=404, headers={"X-Consul-Index": "11"})
        return web.Response(status=403, text="Permission denied")

    async with watching(consul) as (source, values):
        consul._kv = narrow
        await consul.wake()
        await eventually(lambda: source.status()["state"] == "denied", "the state")
        consul._kv = lambda request, path: real(consul, request, path)
        await Keys(consul).put_cas("lb", b"one", 0)
        await eventually(lambda: values == [b"one"], "the value")
