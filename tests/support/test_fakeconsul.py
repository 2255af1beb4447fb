"""What tests rely on in the Consul that says what they want."""

from __future__ import annotations

import asyncio

import aiohttp

from tests.support.discovery import eventually
from tests.support.fakeconsul import FakeConsul


async def test_a_query_waits_for_a_change():
    """A blocking query outlives a wake-up that brings no change, as a cancelled one gives to another on Python 3.13."""
    async with FakeConsul() as consul, aiohttp.ClientSession() as session:
        where = f"{consul.address}/v1/health/service/web?index={consul.index}"
        question = asyncio.create_task(session.get(where))
        await eventually(lambda: consul.blocked == 1, "a blocking query")
        async with consul._changed:
            consul._changed.notify(1)
        async with session.get(f"{consul.address}/v1/health/service/other") as answer:
            await answer.read()  # long enough for the query to have returned
        assert not question.done()
        assert consul.blocked == 1
        await consul.put("web", [])
        async with await question as answer:
            assert answer.headers["X-Consul-Index"] == str(consul.index)
