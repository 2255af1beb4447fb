"""What became of a record's end when Consul did not say; what a command does with that, tests of the canary hold."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from aiohttp import web

from controlplane.cluster import record_writing
from controlplane.cluster.canaries import Ending, with_end
from controlplane.cluster.lock import Holder, Lock
from controlplane.cluster.looking import Keys, Looker
from controlplane.cluster.record_writing import Fate, RecordWriting
from controlplane.core.canary_record import CanaryRecord, digest_of_content
from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.kv import set_if
from controlplane.discovery.consul.settings import with_address
from controlplane.errors import HeldBackError
from controlplane.operations.options import now_text
from tests.support.fakeconsul import FakeConsul

KEYS = Keys("lb")
RECORD = CanaryRecord("c1", "ann", now_text(), 3600.0, ("n1",), 60.0, "a" * 64, digest_of_content(b"x"), "x")
END = with_end(RECORD, Ending.PROMOTED, "good")


@pytest.fixture
async def consul():
    """A Consul with a canary."""
    async with FakeConsul() as fake:
        fake.keys |= {"lb": (b"old", 3), "lb.canary": (RECORD.encode(), 4)}
        yield fake


@pytest.fixture
async def writing(consul):
    """What writes its record."""
    async with connected(with_address(consul.address)) as client:
        yield RecordWriting(Looker(client, "edge", KEYS, lambda _: None, asyncio.Event()))


def end(writing, *, index=4, within_s=30.0, also=()):
    """Write the end."""
    return writing.end(END, index, time.monotonic() + within_s, also)


@pytest.mark.parametrize(
    ("record", "also", "fate"),
    [
        ((RECORD, 4), [set_if("lb", b"new", 3)], Fate.WRITTEN),
        ((RECORD, 4), [set_if("lb", b"new", 2)], Fate.BLOCKED),
        ((END, 9), (), Fate.WRITTEN),
        ((replace(RECORD, id="c2"), 9), (), Fate.LOST),
        (None, (), Fate.LOST),
    ],
)
async def test_what_is_there_tells(consul, writing, record, also, fate):
    """Ours, somebody else's, or what a transaction has written whose answer was lost."""
    consul.keys.pop("lb.canary")
    if record is not None:
        consul.keys["lb.canary"] = (record[0].encode(), record[1])
    assert await end(writing, also=also) is fate


async def test_who_is_not_answered_does_not_know(consul, writing):
    """When its time is over."""

    async def fault(_request):
        return web.Response(status=500, text="No cluster leader")

    consul.fault = fault
    assert await end(writing, within_s=0.01) is Fate.UNKNOWN
    assert await writing.content_hash() is None
    consul.fault = None
    assert await writing.content_hash() == digest_of_content(b"old")


async def test_a_beginning_without_an_answer(consul, writing, monkeypatch):
    """It is said that it may have begun, and when it ends then."""
    monkeypatch.setattr(record_writing, "GIVE_UP_S", 0.01)
    lock = Lock(writing._client, KEYS, Holder("ann", "hill", 7, "now", "a canary"))

    async def fault(_request):
        return web.Response(status=500, text="No cluster leader")

    consul.fault = fault
    with pytest.raises(HeldBackError, match=r"whether a canary has begun on n1: .* within 3600 s"):
        await writing.begin(RECORD, lock, [])
