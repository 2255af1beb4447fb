"""Changes of a node while its connections come and go, in the test's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import pytest

from dataplane.core.reasons import DiscardCause
from tests.dataplane.node.bench import benched, greeter
from tests.support.checked import backend, saying


@pytest.fixture
async def bench():
    """A node."""
    async with benched() as bench:
        yield bench


async def test_a_backend_that_has_gone_before_it_comes_back(bench):
    """A removed backend may lose its last connection between the moment a change is prepared and when it is made."""
    async with greeter() as one, greeter() as two:
        await bench.put(one.address, two.address)
        _, writer = await bench.connect()
        await bench.put(two.address)
        assert [left.id for left in bench.service.leaving] == [one.address]
        draft = await bench.draft(one.address, two.address)
        writer.close()
        await bench.until(lambda: not bench.service.leaving)
        bench.listeners.new.prepare(draft.addresses())
        await bench.applier.changer.swap(draft, bench.listeners)
        assert set(bench.service.backends) == {one.address, two.address}
        clients = [await bench.connect() for _ in range(2)]
        assert {flow.backend.id for flow in bench.service.flows} == {one.address, two.address}
        for _, writer in clients:
            writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_a_service_that_has_gone_before_it_comes_back(bench):
    """The same for a removed service: it is made anew."""
    async with greeter() as one:
        await bench.put(one.address)
        _, writer = await bench.connect()
        await bench.applier.apply({"version": 1, "generation": 2, "services": {}})
        bench.generation = 2
        assert "s" in bench.node.leaving
        draft = await bench.draft(one.address)
        writer.close()
        await bench.until(lambda: not bench.node.leaving)
        bench.listeners.new.prepare(draft.addresses())
        await bench.applier.changer.swap(draft, bench.listeners)
        _, writer = await bench.connect()
        writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_a_backend_that_goes_while_the_change_is_made(bench):
    """A change of many backends is made in slices; a drained one may lose its last connection in between."""
    async with greeter() as one:
        many = [{"id": f"b{number}", "address": "127.0.0.1:1", "state": "drain"} for number in range(600)]
        await bench.put(*many, one.address)
        _, writer = await bench.connect()
        await bench.put(*many)
        (left,) = bench.service.leaving
        changing = asyncio.create_task(bench.put(*many, one.address, mode="leastconn"))
        await bench.until(lambda: bench.service.spec.mode.value == "leastconn" or changing.done())
        assert not changing.done(), "it is made in slices"
        for flow in list(bench.service.flows):
            flow.on_failure()
        assert left not in bench.service.leaving
        await changing
        writer.close()
        assert bench.service.backends[one.address] is left
        _, writer = await bench.connect()
        writer.close()
        await bench.until(lambda: not bench.service.flows)


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({}, True),
        ({"a": {"weight": 5}}, True),
        ({"a": {"weight": 5}, "b": {"weight": 3}}, True),
        ({"a": {"weight": 0}}, False),
        ({"a": {"weight": 5, "state": "drain"}}, False),
        ({"a": {"tier": 1}}, False),
        ({"a": {"address": "127.0.0.1:2"}}, True),
        ({"c": {}}, False),
        ({"a": None}, False),
        ({"a": {"weight": 5}, "mode": "leastconn"}, False),
    ],
)
async def test_a_selection_is_built_anew_only_for_what_concerns_others(bench, change, stays):
    """Another weight or address, or nothing, leaves the selection in place, with the weight in it; all else replaces it."""
    plain = {id_: {"id": id_, "address": "127.0.0.1:1"} for id_ in "ab"}
    await bench.put(*plain.values(), health={"active": {"type": "none"}})
    before = bench.service.selection
    mode = {"mode": change["mode"]} if "mode" in change else {}
    after = {
        id_: {"id": id_, "address": "127.0.0.1:1", **(change.get(id_) or {})}
        for id_ in "abc"
        if (id_ in plain or id_ in change) and change.get(id_, {}) is not None
    }
    await bench.put(*after.values(), health={"active": {"type": "none"}}, **mode)
    selection = bench.service.selection
    assert (selection is before) is stays
    if not mode:
        expected = {
            id_: backend.get("weight", 1)
            for id_, backend in after.items()
            if backend.get("weight", 1) and "state" not in backend and not backend.get("tier")
        }
        period = sum(expected.values())
        picked = [selection.pick(0, ()).id for _ in range(3 * period)][period:]
        assert Counter(picked) == {id_: 2 * weight for id_, weight in expected.items()}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"address": True}),
        ({"proxy_protocol": {"send": "v1"}, "pool": {"mode": "off"}}, {}),
    ],
    ids=["another address", "a header of before"],
)
async def test_what_reuse_takes_back(bench, before, after):
    """A connection to where the backend was, or on which another client's PROXY header was sent, is nobody's."""
    async with backend(saying(b"yes", after=b"mine")) as one, backend(saying()) as two:
        reuse = {"pool": {"mode": "reuse"}, "health": {"active": {"type": "none"}}}
        await bench.put({"id": "b", "address": one.address}, **{**reuse, **before})
        reader, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
        writer.write(b"mine")
        assert await reader.read(200) == b"yes"
        address = two.address if after else one.address
        await bench.put({"id": "b", "address": address}, **reuse)
        writer.close()
        await bench.until(lambda: not bench.service.flows)
        pool = bench.service.backends["b"].pool
        assert (len(pool), pool.backend.totals.discarded[DiscardCause.CHANGED]) == (0, 1)


async def test_a_service_that_comes_back_leaves_drains_alone(bench):
    """Connections of a backend that is drained, or was not brought back, keep their deadline; the others lose it."""
    async with greeter() as stays, greeter() as drains, greeter() as goes:
        options = {"drain": {"timeout": "1h", "close": "0s"}}
        drained = {"address": drains.address, "state": "drain"}
        await bench.put(stays.address, drains.address, goes.address, **options)
        clients = [await bench.connect() for _ in range(3)]
        await bench.put(stays.address, drained, goes.address, **options)
        bench.generation += 1
        await bench.applier.apply({"version": 1, "generation": bench.generation, "services": {}})
        assert all(flow.deadline for flow in bench.node.leaving["s"].service.flows)
        await bench.put(stays.address, drained, **options)
        deadlines = {flow.backend.id: bool(flow.deadline) for flow in bench.service.flows}
        assert deadlines == {stays.address: False, drains.address: True, goes.address: True}
        for _, writer in clients:
            writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_many_weights_at_once_are_built_anew(bench):
    """Searching for each of many would take longer than building."""
    many = [{"id": f"b{number}", "address": "127.0.0.1:1"} for number in range(40)]
    await bench.put(*many)
    before = bench.service.selection
    await bench.put(*({**each, "weight": 2} for each in many))
    assert bench.service.selection is not before


async def test_a_removed_backend_that_never_answered(bench):
    """A backend that is removed while it is dialled, and then refuses, is gone from the status."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = f"127.0.0.1:{full.getsockname()[1]}"
        with socket.create_connection(full.getsockname()):
            await bench.put(address, timeouts={"connect": "200ms"})
            _, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
            await bench.until(lambda: bench.service.flows)
            await bench.put(timeouts={"connect": "200ms"})
            assert len(bench.service.leaving) == 1
            await bench.until(lambda: not bench.service.flows)
            assert not bench.service.leaving
            writer.close()
