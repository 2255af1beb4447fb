"""Connections stay with their address: a backend's id that goes, changes or is exchanged cuts nobody."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.reasons import CloseReason
from dataplane.core.spec import OperatorState
from dataplane.net.sockopts import to_sockaddr
from dataplane.node.drain import closing_times, drain, home_of, undrain
from dataplane.report.reader import live_bytes
from schemas.api import BackendPatch
from tests.dataplane.node.bench import Bench, benched, greeter
from tests.support.checked import backend, saying

LONG = {"drain": {"timeout": "1h", "close": "0s"}}


@pytest.fixture
async def bench():
    """A node."""
    async with benched() as bench:
        yield bench


def named(**addresses: str) -> list[dict[str, Any]]:
    """Backends by id; `a="ADDRESS drain"` is drained."""
    rows = []
    for name, text in addresses.items():
        address, _, state = text.partition(" ")
        rows.append({"id": name, "address": address, "state": state or "enabled"})
    return rows


def accounts(bench: Bench) -> dict[str, int]:
    """Return the number of connections by backend, removed ones included."""
    service = bench.service
    return {one.id: one.active for one in [*service.backends.values(), *service.leaving] if one.active}


async def impact(bench: Bench, *backends: object, **options: Any) -> Any:
    """Return what a change would do."""
    planned = await bench.applier.plan(bench.body(*backends, **options))
    bench.generation -= 1
    return planned["impact"]


async def test_a_renamed_backend_keeps_its_connections(bench):
    """Another id at the same address: nobody is drained, and the plan says so; the old one is gone at once."""
    async with greeter() as one:
        await bench.put(*named(old=one.address), **LONG)
        _, writer = await bench.connect()
        assert (await impact(bench, *named(new=one.address), **LONG))["drain"] == []
        await bench.put(*named(new=one.address), **LONG)
        (flow,) = bench.service.flows
        assert (flow.backend.id, flow.deadline) == ("new", 0.0)
        assert accounts(bench) == {"new": 1}
        assert bench.service.leaving == []
        writer.close()
        await bench.until(lambda: not bench.service.flows)
        assert accounts(bench) == {}


async def test_a_renamed_backend_with_a_host_name_is_found_at_once(bench):
    """Its name has been looked up under the old id: nobody is refused until somebody looks again."""
    async with greeter() as one:
        name = f"localhost:{one.address.partition(':')[2]}"
        await bench.put(*named(old=name), **LONG)
        running = bench.node.running["s"]
        found = to_sockaddr(one.address)
        assert found is not None
        bench.node.backend_addresses.put(running, bench.service.backends["old"], (found,), None)
        clients = [await bench.connect()]
        await bench.put(*named(new=name), **LONG)
        clients.append(await bench.connect())
        assert accounts(bench) == {"new": 2}
        await bench.put(*named(new=name, other="localhost:1"), **LONG)
        assert bench.service.backends["other"].address is None
        for _, writer in clients:
            writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_a_twin_that_stays_takes_them(bench):
    """Of two ids at one address one goes, as in a registry that has a server twice: the other has all of them."""
    async with greeter() as one:
        await bench.put(*named(a=one.address, b=one.address), **LONG)
        clients = [await bench.connect() for _ in range(4)]
        assert accounts(bench) == {"a": 2, "b": 2}
        await bench.put(*named(b=one.address), **LONG)
        assert accounts(bench) == {"b": 4}
        assert ("connections_moved", {"service": "s", "connections": 2}) in bench.told
        assert not any(flow.deadline for flow in bench.service.flows)
        for _, writer in clients:
            writer.close()
        await bench.until(lambda: not bench.service.flows)


@pytest.mark.parametrize("mode", ["rr", "leastconn"])
async def test_exchanged_addresses(bench, mode):
    """Two backends that exchange their addresses exchange their connections, and the balancer knows it."""
    async with greeter() as one, greeter() as two:
        await bench.put(*named(a=one.address, b=two.address), mode=mode, **LONG)
        clients = [await bench.connect() for _ in range(3)]
        before = {flow.place: 0 for flow in bench.service.flows}
        for flow in bench.service.flows:
            before[flow.place] += 1
        changed = named(a=two.address, b=one.address)
        assert (await impact(bench, *changed, mode=mode, **LONG))["drain"] == []
        await bench.put(*changed, mode=mode, **LONG)
        assert accounts(bench) == {"a": before[two.address], "b": before[one.address]}
        assert not any(flow.deadline for flow in bench.service.flows)
        if mode == "leastconn":
            clients.append(await bench.connect())
            assert accounts(bench) == {"a": 2, "b": 2}
        for _, writer in clients:
            writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_an_address_that_nobody_has_drains(bench):
    """Whose address is gone drains under the old name, as the plan says, and is taken back with the address."""
    async with greeter() as one, greeter() as two:
        await bench.put(*named(a=one.address), **LONG)
        _, writer = await bench.connect()
        gone = named(a=two.address)
        assert (await impact(bench, *gone, **LONG))["drain"] == [
            {"service": "s", "id": "a", "connections": 1}
        ]
        await bench.put(*gone, **LONG)
        (flow,) = bench.service.flows
        assert flow.deadline
        for back in (named(a=two.address, b=one.address), gone, named(a=one.address)):
            await bench.put(*back, **LONG)
            assert bool(flow.deadline) is (back is gone)
        assert flow.backend.id == "a"
        writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_a_backend_that_returns_elsewhere_does_not_keep_them(bench):
    """An id that comes back at another address has nothing to do with the connections to its old one."""
    async with greeter() as one, greeter() as two:
        await bench.put(*named(a=one.address), **LONG)
        _, writer = await bench.connect()
        await bench.put(**LONG)
        (flow,) = bench.service.flows
        deadline = flow.deadline
        await bench.put(*named(a=two.address), **LONG)
        assert flow.deadline == deadline > 0
        writer.close()
        await bench.until(lambda: not bench.service.flows)


@pytest.mark.parametrize("state", ["drain", "disabled"])
async def test_the_heirs_rules_hold(bench, state):
    """At a backend that is drained or disabled those who come drain, too, and the plan says so; enabled, it ends that."""
    async with greeter() as one:
        await bench.put(*named(a=one.address), **LONG)
        _, writer = await bench.connect()
        drained = named(b=f"{one.address} {state}")
        assert (await impact(bench, *drained, **LONG))["drain"] == [
            {"service": "s", "id": "a", "connections": 1}
        ]
        await bench.put(*drained, **LONG)
        (flow,) = bench.service.flows
        assert flow.backend.id == "b"
        assert flow.deadline
        await bench.put(*named(c=one.address), **LONG)
        assert (flow.backend.id, flow.deadline) == ("c", 0.0)
        writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_the_whole_node_drains_and_returns(bench):
    """Every connection gets its deadline, a later one when it is said again; taken back, only an operator's word holds."""
    async with greeter() as one, greeter() as two:
        await bench.put(*named(a=one.address, b=two.address), **LONG)
        clients = [await bench.connect() for _ in range(2)]
        await bench.applier.patch("s", "a", BackendPatch(state="drain"))
        (kept,) = [flow.deadline for flow in bench.service.flows if flow.deadline]
        await bench.applier.drain_all(draining=True)
        assert all(flow.deadline for flow in bench.service.flows)
        clients.append(await bench.connect())
        assert sum(not flow.deadline for flow in bench.service.flows) == 1
        await bench.applier.drain_all(draining=True)
        assert all(flow.deadline for flow in bench.service.flows)
        connecting = next(flow for flow in bench.service.flows if flow.backend.id == "b")
        home, connecting.backend = connecting.backend, None
        await bench.applier.drain_all(draining=False)
        connecting.backend = home
        assert sorted((flow.backend.id, flow.deadline) for flow in bench.service.flows) == [
            ("a", kept),
            ("b", 0.0),
            ("b", 0.0),
        ]
        assert bench.node.overrides.keys() == {("s", "a")}
        for _, writer in clients:
            writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_an_override_goes_with_the_id(bench):
    """An operator drained one id; another at its address is as lb.yaml has it."""
    async with greeter() as one:
        await bench.put(*named(a=one.address), **LONG)
        _, writer = await bench.connect()
        running = bench.node.running["s"]
        spec = running.service.backends["a"].spec
        drained = type(spec)(spec.id, spec.address, spec.weight, spec.tier, OperatorState.DRAIN)
        changer = bench.applier.changer
        await changer.obey(await changer.prepare_words(running, [drained]))
        (flow,) = bench.service.flows
        assert flow.deadline
        await bench.put(*named(b=one.address), **LONG)
        assert (flow.backend.id, flow.deadline) == ("b", 0.0)
        writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_a_service_that_returns_with_other_ids(bench):
    """A removed service drains; brought back with the addresses under other names, it has its connections again."""
    async with greeter() as one, greeter() as two:
        await bench.put(*named(a=one.address, b=two.address), **LONG)
        clients = [await bench.connect() for _ in range(2)]
        bench.generation += 1
        await bench.applier.apply({"version": 1, "generation": bench.generation, "services": {}})
        assert all(flow.deadline for flow in bench.node.leaving["s"].service.flows)
        await bench.put(*named(x=one.address), **LONG)
        assert {flow.place: bool(flow.deadline) for flow in bench.service.flows} == {
            one.address: False,
            two.address: True,
        }
        assert accounts(bench) == {"x": 1, "b": 1}
        for _, writer in clients:
            writer.close()
        await bench.until(lambda: not bench.service.flows)


async def test_totals_stay_where_they_were_counted(bench):
    """What connections carried is shown by backend, and neither figure falls when they change hands."""
    async with backend(saying(b"hello")) as one, backend(saying(b"hello")) as two:

        def shown() -> dict[str, tuple[int, int, int]]:
            live = live_bytes(bench.service.flows)
            return {
                each.id: (
                    each.totals.connections,
                    each.totals.bytes_in + live.get(each, (0, 0))[0],
                    each.totals.bytes_out + live.get(each, (0, 0))[1],
                )
                for each in bench.service.backends.values()
            }

        await bench.put(*named(a=one.address, b=two.address), **LONG)
        (_, first), (_, second) = [await bench.connect() for _ in range(2)]
        first.write(b"0123456789")
        await bench.until(lambda: sum(sent for _, sent, _ in shown().values()) == 10)
        before = shown()
        await bench.put(*named(a=two.address, b=one.address), **LONG)
        assert shown() == before
        first.close()
        second.close()
        await bench.until(lambda: not bench.service.flows)
        assert shown() == before


async def test_pooled_connections_make_room(bench):
    """Those who come count for `per_backend`: with them there are as many idle connections less."""
    pool = {"mode": "preconnect", "min_idle": 3, "max_idle": 3}
    options = {**LONG, "limits": {"per_backend": 4}, "pool": pool}
    async with backend(saying(b"hello", after=b"x")) as one:  # who greets is not dialled ahead

        async def connect() -> asyncio.StreamWriter:
            reader, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
            writer.write(b"x")
            assert await reader.readexactly(5) == b"hello"
            return writer

        await bench.put(*named(a=one.address, b=one.address), **options)
        clients = [await connect() for _ in range(4)]
        both = bench.service.backends.values()
        await bench.until(lambda: [(each.active, len(each.pool)) for each in both] == [(2, 2), (2, 2)])
        await bench.put(*named(b=one.address), **options)
        (left,) = bench.service.backends.values()
        assert (left.active, left.pool.held) == (4, 0)
        for writer in clients:
            writer.close()
        await bench.until(lambda: not bench.service.flows)
        await bench.put(*named(b=one.address), **LONG)  # without a pool
        (await connect()).close()  # whoever connected before has been accepted by now
        await bench.until(lambda: not bench.service.flows and one.ends.qsize() == one.accepted)


async def test_a_dial_under_way_moves(bench):
    """Who waits for a handshake while an id changes is counted at the new one when it is through."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = f"127.0.0.1:{full.getsockname()[1]}"
        with socket.create_connection(full.getsockname()):  # nobody else gets in until it is accepted
            await bench.put(*named(a=address), timeouts={"connect": "10s"}, **LONG)
            _, writer = await asyncio.open_connection(bench.port.host, bench.port.port)
            await bench.until(lambda: bench.service.flows)
            (flow,) = bench.service.flows
            assert flow.dial is not None
            await bench.put(*named(b=address), timeouts={"connect": "10s"}, **LONG)
            assert accounts(bench) == {"b": 1}
            full.accept()[0].close()
        await bench.until(lambda: flow.server is not None)
        assert flow.backend.id == "b"
        assert bench.service.backends["b"].totals.connections == 1
        writer.close()
        await bench.until(lambda: bench.service.flows == set() or flow.client.eof)
    await bench.until(lambda: not bench.service.flows)
    assert accounts(bench) == {}


def test_whose_home_it_is():
    """Of several backends at one address an enabled one has its connections, the first of them; else the first."""

    def spec(address: str, *, enabled: bool) -> Any:
        state = OperatorState.ENABLED if enabled else OperatorState.DRAIN
        return SimpleNamespace(address=address, state=state)

    drained, first, second = spec("x", enabled=False), spec("x", enabled=True), spec("x", enabled=True)
    other = spec("y", enabled=False)
    assert home_of([drained, first, second, other]) == {"x": first, "y": other}


ADDRESSES = 3
tables = st.dictionaries(
    st.sampled_from("abcd"), st.tuples(st.integers(0, ADDRESSES - 1), st.sampled_from(["enabled", "drain"]))
)
moves = st.lists(st.one_of(tables, st.just("connect"), st.just("leave"), st.just("service")), max_size=12)


@settings(deadline=None, max_examples=60)
@given(moves, st.sampled_from(["rr", "leastconn"]))
def test_nobody_is_cut_whose_address_stays(steps, mode):
    """Whatever happens to ids, addresses and states: the accounts add up, and only lost addresses and drains end anybody."""
    asyncio.run(_play(steps, mode))


async def _play(steps: list[Any], mode: str) -> None:
    with tempfile.TemporaryDirectory(prefix="lb-test-") as name:
        folder = Path(name)
        async with contextlib.AsyncExitStack() as stack:
            bench = await stack.enter_async_context(benched())
            ends = [
                await stack.enter_async_context(greeter(path=str(folder / str(number))))
                for number in range(ADDRESSES)
            ]
            cut: list[CloseReason] = []
            writers: list[asyncio.StreamWriter] = []
            table: dict[str, Any] = {}
            bench.node.access_log = lambda _flow, reason, _server: cut.append(reason)

            async def put() -> None:
                rows = [
                    {"id": name, "address": ends[where].address, "state": state}
                    for name, (where, state) in table.items()
                ]
                await bench.put(*rows, mode=mode, **LONG)

            await put()
            for step in steps:
                usable = any(state == "enabled" for _, state in table.values())
                if step == "connect" and usable:
                    writers.append((await bench.connect())[1])
                elif step == "leave" and writers:
                    writers.pop(0).close()
                    left = len(writers)
                    await bench.until(lambda left=left: len(bench.service.flows) == left)
                elif step == "service":
                    bench.generation += 1
                    await bench.applier.apply({"version": 1, "generation": bench.generation, "services": {}})
                    await put()
                elif isinstance(step, dict):
                    table = step
                    await put()
                _check(bench, {ends[where].address: [] for where, _ in table.values()}, len(writers))
            assert set(cut) <= {CloseReason.CLIENT_CLOSED}
            for writer in writers:
                writer.close()


def _check(bench: Bench, addresses: dict[str, list[str]], clients: int) -> None:
    """Compare the accounts with the connections that there are, and the deadlines with what is configured."""
    service = bench.service
    assert len(service.flows) == clients
    counted: dict[Any, int] = {}
    enabled = {
        one.spec.address for one in service.backends.values() if one.spec.state is OperatorState.ENABLED
    }
    for flow in service.flows:
        counted[flow.backend] = counted.get(flow.backend, 0) + 1
        if flow.place in addresses:
            assert service.backends.get(flow.backend.id) is flow.backend
            assert flow.backend.spec.address == flow.place
            assert bool(flow.deadline) is (flow.backend.spec.state is not OperatorState.ENABLED)
        else:
            assert flow.deadline
        if flow.deadline and flow.place in enabled:
            assert (
                flow.backend.spec.state is OperatorState.DRAIN
            )  # its own backend has the address, and drains
    everybody = [*service.backends.values(), *service.leaving]
    assert {one: one.active for one in everybody if one.active} == counted
    assert all(one.removed and one.own for one in service.leaving)
    assert sum(one.active for one in everybody) == service.active == clients


def drained(*deadlines: float, reason: CloseReason = CloseReason.DRAIN_TIMEOUT) -> tuple[int, list[float]]:
    """Drain flows that have deadlines already, or 0; return the count and their deadlines then."""
    service: Any = SimpleNamespace(
        reactor=SimpleNamespace(now=100.0),
        spec=SimpleNamespace(drain=SimpleNamespace(timeout_s=10.0, close_s=4.0)),
        deadlines=SimpleNamespace(schedule=lambda _: None),
        drain_reason=None,
    )
    flows: Any = [SimpleNamespace(deadline=when, service=service) for when in deadlines]
    count = drain(service, flows, reason)
    assert service.drain_reason is reason
    after = [flow.deadline for flow in flows]
    undrain(flows)
    assert not any(flow.deadline for flow in flows)
    return count, after


def test_those_that_drain_already_keep_their_deadline():
    """The others share the time in which all are closed."""
    assert drained(0.0, 103.0, 0.0) == (2, [110.0, 103.0, 114.0])


def test_a_shutdown_concerns_all():
    """It is the process that ends."""
    assert drained(0.0, 3.0, 0.0, reason=CloseReason.SHUTDOWN) == (3, [110.0, 112.0, 114.0])


def test_spread_evenly():
    """From the end of the timeout to the end of `close`, at equal distances."""
    assert list(closing_times(5, 100.0, timeout_s=60.0, close_s=10.0)) == [160.0, 162.5, 165.0, 167.5, 170.0]


def test_one_alone_goes_first():
    """There is nothing to spread."""
    assert list(closing_times(1, 100.0, timeout_s=60.0, close_s=10.0)) == [160.0]


def test_at_once():
    """Without timeout and spread, everything ends now."""
    assert list(closing_times(3, 100.0, timeout_s=0.0, close_s=0.0)) == [100.0] * 3


@given(st.integers(0, 500), st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0, 1e3))
@settings(deadline=None)
def test_nobody_early_nobody_late(count, now, timeout_s, close_s):
    """As many times as connections, in order, none before the timeout and none after the spread."""
    times = list(closing_times(count, now, timeout_s=timeout_s, close_s=close_s))
    assert len(times) == count
    assert times == sorted(times)
    for when in times:
        assert now + timeout_s <= when
        assert when == pytest.approx(min(when, now + timeout_s + close_s))
