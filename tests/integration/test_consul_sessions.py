"""Sessions and locks of a real Consul: what the balancer relies on, and that the one which says what tests want says the same."""

from __future__ import annotations

import asyncio
import re

import aiohttp
import pytest

from tests.support.consul import Agent
from tests.support.fakeconsul import FakeConsul

pytestmark = [pytest.mark.needs("consul")]

NODE = "/v1/kv/livelb/edge/nodes/n1"
LOCK = "/v1/kv/lb/edge.lock"
NOBODY = "11111111-1111-1111-1111-111111111111"
RELEASE = {"Name": "livelb n1", "TTL": "10s", "Behavior": "release", "LockDelay": "0s"}


async def dialogue(address: str) -> list[object]:
    """Say the same to a Consul, and return what it answers, as far as that means something."""
    said: list[object] = []
    async with aiohttp.ClientSession(address) as http:

        async def ask(method: str, path: str, body: object = None) -> str:
            data = body if isinstance(body, bytes) or body is None else None
            how = {"data": data} if data is not None else {"json": body} if body is not None else {}
            async with http.request(method, path, **how) as answer:
                text = await answer.text()
                said.append((answer.status, outline(text)))
                return text

        async def session(**more: object) -> str:
            for _ in range(200):  # the agent may not have registered itself yet
                async with http.put("/v1/session/create", json={**RELEASE, **more}) as answer:
                    if answer.status == 200:
                        return str((await answer.json())["ID"])
                await asyncio.sleep(0.05)
            raise AssertionError("no session")

        one, two = await session(), await session()
        await ask("PUT", f"{NODE}?acquire={one}", b"first")
        await ask("PUT", f"{NODE}?acquire={one}", b"second")
        await ask("PUT", f"{NODE}?acquire={two}", b"stolen")
        await ask("PUT", f"{NODE}?acquire={NOBODY}", b"lost")
        await ask("PUT", f"/v1/session/renew/{NOBODY}")
        await ask("PUT", f"/v1/session/destroy/{NOBODY}")
        await ask("GET", "/v1/kv/livelb/edge/nodes/?recurse")
        await ask("PUT", f"{NODE}?release={two}", b"not mine")
        await ask("PUT", f"{NODE}?release={one}", b"left")
        await ask("GET", NODE)
        await ask("PUT", f"{NODE}?acquire={one}", b"again")
        await ask("PUT", f"/v1/session/destroy/{one}")
        await ask("GET", NODE)
        await ask("PUT", f"{NODE}?acquire={two}", b"mine")
        drop = {"KV": {"Verb": "delete-cas", "Key": "livelb/edge/nodes/n1", "Index": 1}}
        async with http.put("/v1/txn", json=[drop]) as answer:
            said.append(answer.status)
        lock = await session(Behavior="delete")
        await ask("PUT", f"{LOCK}?acquire={lock}", b"held")
        await ask("PUT", f"/v1/session/destroy/{lock}")
        await ask("GET", LOCK)
        async with http.put("/v1/session/create", json={**RELEASE, "TTL": "1s"}) as answer:
            said.append(answer.status)
    return said


def outline(text: str) -> object:
    """Leave what differs by right out of an answer: ids, indexes, and rows' further fields."""
    rows = re.findall(r'"(?:Key|Value|Session)": ?"[^"]*"', text)
    text = "\n".join(sorted(rows)) if rows else text.strip()
    ids = re.compile(r"(?!1{8})[0-9a-f]{8}-[0-9a-f-]{27}")
    return ids.sub("ID", text).replace(": ", ":")


async def test_the_stand_in_says_what_consul_says():
    """Acquire, release, renew, destroy, and check-and-set of a session's keys: word for word."""
    with Agent() as agent:
        real = await dialogue(agent.address)
    async with FakeConsul() as consul:
        assert await dialogue(consul.address) == real
