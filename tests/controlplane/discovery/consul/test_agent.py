"""What an agent says of its node, and what an answer that is none becomes."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from controlplane.discovery.consul.agent import ask_agent
from controlplane.discovery.consul.settings import ConsulError, with_address
from tests.support.fakeconsul import FakeConsul


async def test_its_name_and_its_address():
    """As the other nodes know them."""
    async with FakeConsul(node=("lb-1", "10.0.0.7")) as consul:
        assert await ask_agent(with_address(consul.address)) == {"NODE_NAME": "lb-1", "NODE_IP": "10.0.0.7"}


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"Config": null, "Member": {}}', "<html>", "[" * 100000])
async def test_an_answer_that_is_no_agents(body):
    """Whatever it is, it is one kind of error."""

    async def answer(_request):
        return web.Response(text=body)

    async with FakeConsul(fault=answer) as consul:
        with pytest.raises(ConsulError) as refused:
            await ask_agent(with_address(consul.address))
    assert refused.value.kind == "protocol"


async def test_what_is_no_text_is_not_said():
    """The other one is."""
    async with FakeConsul(node=(7, "10.0.0.7")) as consul:
        assert await ask_agent(with_address(consul.address)) == {"NODE_IP": "10.0.0.7"}


async def test_it_does_not_wait_for_ever():
    """Somebody waits for a file to be checked."""

    async def hang(_request):
        await asyncio.Event().wait()

    async with FakeConsul(fault=hang) as consul:
        with pytest.raises(ConsulError) as refused:
            await ask_agent(with_address(consul.address), 0.05)
    assert refused.value.kind == "timeout"
