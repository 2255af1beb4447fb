"""One real agent: everything that changes in it arrives, and whatever happens to it takes nothing away."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from tempfile import TemporaryDirectory

import pytest

from controlplane.cluster.lock import Holder, Lock, holder_said
from controlplane.cluster.looking import Keys
from controlplane.daemon.registration import Registering
from controlplane.daemon.standing import Standing
from controlplane.discovery.consul.client import ConsulClient, connected
from controlplane.discovery.consul.key import KeySource, put_key, read_key
from controlplane.discovery.consul.kv import set_if, transact, unchanged
from controlplane.discovery.consul.settings import ConsulError, with_address
from controlplane.operations.drain_file import DrainFile
from schemas.discovery import Consul
from tests.controlplane.fakes import ReadyFleet
from tests.support.consul import Agent, checked
from tests.support.discovery import FAST, RUNTIME, Discovering, eventually
from tests.support.ports import HeldPort
from tests.support.programs import require
from tests.support.wait import wait_for

pytestmark = [pytest.mark.needs("consul")]

IMPATIENT = type(FAST)(wait_s=0.3, slack_s=0.5, rate=200.0)


@pytest.fixture(scope="module")
def shared():
    """An agent for the tests that leave it as it was."""
    with Agent() as agent:
        yield agent


@pytest.fixture
async def agent(shared):
    """The shared agent, without services."""
    yield shared
    for name in await shared.call("GET", "/v1/agent/services"):
        await shared.deregister(name)


@contextmanager
def own_agent(**options):
    """An agent that a test may do anything to."""
    with Agent(**options) as agent:
        yield agent


async def register(agent, *names):
    """Register instances of `web`, each at its own port."""
    for name in names:
        await agent.register(name, 1000 + ord(name[0]))


async def test_every_change_arrives(agent):
    """Registering, weights, tags, maintenance, checks and deregistering reach the backends."""
    async with Discovering(
        agent.address, {"web": "web", "blue": {"service": "web", "tags": ["blue"]}}
    ) as found:
        await register(agent, "a", "b", "c")
        await found.shows("dev/a", "dev/b", "dev/c")
        assert found.backend("dev/a").address == "127.0.0.1:1097"
        await agent.register("a", 1097, Weights={"Passing": 7, "Warning": 2}, Tags=["blue"])
        await eventually(lambda: found.backend("dev/a").weight == 7, "the weight")
        await found.shows("dev/a", service="blue")
        await agent.check("a", "warning")
        await eventually(lambda: found.backend("dev/a").weight == 2, "the warning weight")
        await agent.check("a", "critical")
        await found.shows("dev/b", "dev/c")
        await agent.check("a", "passing")
        await found.shows("dev/a", "dev/b", "dev/c")
        await agent.maintain("b", on=True)
        await eventually(lambda: found.backend("dev/b").state == "drain", "maintenance")
        await agent.maintain("b", on=False)
        await eventually(lambda: found.backend("dev/b").state == "enabled", "its end")
        await agent.deregister("c")
        await found.shows("dev/a", "dev/b")


async def test_blue_and_green(agent):
    """Tags and meta data move from four instances to three others, all of which run: the three serve, nobody is held."""

    async def live(*names, on):
        for name in names:
            await agent.register(
                name, 1000 + ord(name), Tags=["live"] if on else ["dark"], Meta={"live": str(on)}
            )

    queries = {
        "tags": {"service": "web", "tags": ["live"]},
        "filter": {"service": "web", "filter": 'Service.Meta.live == "True"'},
    }
    await live(*"abcd", on=True)
    await live(*"efg", on=False)
    async with Discovering(agent.address, queries, answers=lambda *_: True) as found:
        for service in queries:
            await found.shows(*(f"dev/{name}" for name in "abcd"), service=service)
        await live(*"abcd", on=False)
        await live(*"efg", on=True)
        for service in queries:
            await found.shows(*(f"dev/{name}" for name in "efg"), service=service)
        assert [row["state"] for row in found.discovery.status()] == ["ok", "ok"]
        assert all(rows for known in found.history for rows in known.values())


async def test_twenty_registrations(agent):
    """Twenty instances that come one by one arrive all, and so does their going."""
    names = [f"s{number:02}" for number in range(20)]
    async with Discovering(agent.address, {"web": "web"}) as found:
        for number, name in enumerate(names):
            await agent.register(name, 2000 + number)
        await found.shows(*(f"dev/{name}" for name in names))
        for name in names[:9]:
            await agent.deregister(name)
        await found.shows(*(f"dev/{name}" for name in names[9:]))


async def test_bad_instances_are_skipped(agent):
    """An instance with port 70000 or a hostname full of blanks is skipped and shown while the others serve."""
    await agent.call("PUT", "/v1/agent/service/register", checked("bad-port", 70000))
    await agent.call("PUT", "/v1/agent/service/register", checked("bad-host", Address="not a host; rm -rf"))
    await register(agent, "a")
    async with Discovering(agent.address, {"web": "web"}) as found:
        await found.shows("dev/a")
        rejected = {row["id"]: row["why"] for row in found.status()["rejected"]}
        assert rejected.keys() == {"dev/bad-port", "dev/bad-host"}
        assert "70000" in rejected["dev/bad-port"]


async def test_meta(agent):
    """The tier and weight of an instance's meta data are used."""
    await agent.register("a", Meta={"lb-tier": "1", "lb_weight": "300"})
    async with Discovering(agent.address, {"web": "web"}) as found:
        await found.shows("dev/a")
        assert (found.backend("dev/a").tier, found.backend("dev/a").weight) == (1, 256)
        assert "divided by" in found.status()["warnings"][0]["why"]


async def test_filters(agent):
    """A filter chooses; one that is wrong is told as the operator's, and takes nothing away."""
    await agent.register("a", 1, Meta={"color": "blue"})
    await agent.register("b", 2, Meta={"color": "green"})
    query = {"service": "web", "filter": 'Service.Meta.color == "blue"', "near": "_agent"}
    async with Discovering(agent.address, {"web": query}) as found:
        await found.shows("dev/a")
        found.update({"web": {**query, "filter": "Service.Nothing =="}})
        row = await found.is_in("error")
        assert row["last_error"].startswith("misconfigured")


async def test_prepared_query(agent):
    """A prepared query's instances are discovered."""
    made = await agent.call("POST", "/v1/query", {"Name": "near-web", "Service": {"Service": "web"}})
    await register(agent, "a", "b")
    try:
        async with Discovering(agent.address, {"web": {"prepared_query": "near-web"}}) as found:
            await found.shows("dev/a", "dev/b")
    finally:
        await agent.call("DELETE", f"/v1/query/{made['ID']}")


async def test_unknown_datacenter(agent):
    """A datacenter that Consul does not know is an error with Consul's words."""
    async with Discovering(agent.address, {"web": {"service": "web", "datacenter": "dc9"}}) as found:
        row = await found.is_in("error")
        assert "No path to datacenter" in row["last_error"]


async def test_keys(agent):
    """A key is written with check-and-set, read and watched."""
    settings = with_address(agent.address)
    values = []

    async def take(picture, _forced):
        if picture.content is not None:
            values.append(picture.content)

    source = KeySource("lb/site", settings, pace=FAST, runtime=RUNTIME)
    watch = asyncio.create_task(source.run(take))
    client = ConsulClient(settings)
    try:
        assert await put_key(client, "lb/site", b"one", 0, 5.0)
        _, index = await read_key(client, "lb/site", 5.0)
        await eventually(lambda: values == [b"one"], "the first value")
        assert not await put_key(client, "lb/site", b"lost", index - 1, 5.0)
        assert await put_key(client, "lb/site", b"two", index, 5.0)
        await eventually(lambda: values == [b"one", b"two"], "the second value")
        await agent.call("DELETE", "/v1/kv/lb/site")
        await eventually(lambda: source.status()["state"] == "stale", "the loss")
        assert values == [b"one", b"two"]
    finally:
        await client.close()
        watch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watch


async def test_keys_at_once(agent):
    """Several keys are read as one picture, and written together or not at all; a lock is one command's until it ends."""
    holder = Holder("ann", "hill", 7, "2027-01-15T08:00:00Z", "a canary")
    keys = Keys("lb/many")
    async with connected(with_address(agent.address)) as client:
        one, two = Lock(client, keys, holder), Lock(client, keys, holder)
        assert await one.take(set_if(keys.canary, b"canary", 0))
        assert not await two.take(set_if(keys.canary, b"another", 0))
        rows = await keys.read(client)
        assert (rows[keys.canary].value, rows[keys.lock].session is not None) == (b"canary", True)
        assert holder_said(rows[keys.lock]) == f"a canary by ann on hill (pid 7) since {holder.since}"
        index = rows[keys.canary].index
        assert not await transact(
            client, [set_if("lb/many", b"new", 0), set_if(keys.canary, b"end", index - 1)], timeout_s=5.0
        )
        assert not await transact(client, [unchanged(keys.canary, index - 1)], timeout_s=5.0)
        done = [
            unchanged(keys.canary, index),
            set_if("lb/many", b"new", 0),
            set_if(keys.canary, b"end", index),
        ]
        assert await transact(client, done, timeout_s=5.0)
        async with one.renewed():
            assert keys.lock in await keys.read(client)
        rows = await keys.read(client)
        assert ({path: row.value for path, row in rows.items()}) == {"lb/many": b"new", keys.canary: b"end"}
        assert await two.take()


async def test_registration(agent, tmp_path):
    """The balancer is registered with a check that tells its readiness, and deregistered at the end."""
    fleet = ReadyFleet()
    fleet.is_ready = False
    standing = Standing(fleet, DrainFile(tmp_path))
    registering = Registering(fleet, standing, lambda _: None, node="edge", runtime=RUNTIME)
    registering.follow(Consul(address=agent.address, register=True), {"web": {"listen": ["10.0.0.9:4000"]}})
    run = asyncio.create_task(registering.run())

    def status():
        _, checks = agent.request("GET", "/v1/agent/checks")
        return [check["Status"] for check in checks.values()]

    try:
        await eventually(lambda: status() == ["critical"], "a critical check")
        fleet.is_ready = True
        registering.look()
        await eventually(lambda: status() == ["passing"], "a passing check")
        async with Discovering(agent.address, {"tier": "lb-web"}) as found:
            await found.shows("dev/lb-edge-web-10.0.0.9-4000", service="tier")
    finally:
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    assert await agent.call("GET", "/v1/agent/services") == {}


async def test_agent_killed_and_back_empty():
    """A killed agent takes nothing away, nor does its return without memory; instances that register are taken."""
    with own_agent() as agent:
        await register(agent, "a", "b", "c", "d")
        async with Discovering(agent.address, {"web": "web"}) as found:
            await found.shows("dev/a", "dev/b", "dev/c", "dev/d")
            changes = found.changes
            agent.kill()
            await found.is_in("stale")
            await asyncio.to_thread(agent.start)
            row = await found.is_in("held")
            assert row["held"]["why"] == "empty"
            await register(agent, "a", "b")
            await eventually(lambda: found.status()["counts"]["passing"] == 2, "two to be back")
            assert found.ids() == ["dev/a", "dev/b", "dev/c", "dev/d"]
            await register(agent, "c", "d")
            await found.is_in("ok")
            assert found.changes == changes


async def test_agent_frozen():
    """A frozen agent takes nothing away, and is asked again when it wakes."""
    with own_agent() as agent:
        await register(agent, "a", "b")
        async with Discovering(agent.address, {"web": "web"}, pace=IMPATIENT) as found:
            await found.shows("dev/a", "dev/b")
            agent.send_signal(signal.SIGSTOP)
            row = await found.is_in("stale")
            assert row["last_error"].startswith("timeout")
            agent.send_signal(signal.SIGCONT)
            await register(agent, "c")
            await found.shows("dev/a", "dev/b", "dev/c")


async def test_snapshot_restored():
    """After a restored snapshot, whose index is lower, changes still arrive."""
    with own_agent() as agent:
        await register(agent, "a", "b")
        snapshot = await agent.call("GET", "/v1/snapshot")
        for number in range(20):
            await agent.call("PUT", f"/v1/kv/{number}", b"x")
        await register(agent, "c")
        async with Discovering(agent.address, {"web": "web"}) as found:
            await found.shows("dev/a", "dev/b", "dev/c")
            await agent.call("PUT", "/v1/snapshot", snapshot)
            await agent.register("d", 1100)
            await eventually(lambda: "dev/d" in found.ids(), "the new instance")


async def test_acls(tmp_path):
    """A token that sees nothing, and one that was deleted, take nothing away; the second is told as denied."""
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": "root-secret"}}
    with own_agent(settings={"acl": acl}) as agent:
        agent.token = "root-secret"  # noqa: S105 - of a test

        def has_policies():
            return agent.request("GET", "/v1/acl/policies")[0] == 200

        await asyncio.to_thread(wait_for, has_policies, "ACLs")
        rules = 'service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }'
        await agent.call("PUT", "/v1/acl/policy", {"Name": "reader", "Rules": rules})
        token = await agent.call("PUT", "/v1/acl/token", {"Policies": [{"Name": "reader"}]})
        narrow = await agent.call("PUT", "/v1/acl/token", {"Description": "sees nothing"})
        await register(agent, "a", "b")
        secret = tmp_path / "token"
        secret.write_text(token["SecretID"])
        async with Discovering(
            agent.address, {"web": "web"}, pace=IMPATIENT, token_file=str(secret)
        ) as found:
            await found.shows("dev/a", "dev/b")
            secret.write_text(narrow["SecretID"])
            row = await found.is_in("held")
            assert row["held"]["why"] == "empty"
            secret.write_text(token["SecretID"])
            await found.is_in("ok")
            await agent.call("DELETE", f"/v1/acl/token/{token['AccessorID']}")
            row = await found.is_in("denied")
            assert "ACL not found" in row["last_error"]
            assert found.ids() == ["dev/a", "dev/b"]


async def test_rights_for_a_key_and_its_canary():
    """A daemon needs no more than to read both; a command without the right to a session or to a key is told so."""
    acl = {"enabled": True, "default_policy": "deny", "tokens": {"master": "root-secret"}}
    keys, holder = Keys("lb/site"), Holder("ann", "hill", 7, "2027-01-15T08:00:00Z", "a canary")
    rules = {
        "reader": 'key "lb/site" { policy = "read" } key "lb/site.canary" { policy = "read" }',
        "writer": 'key_prefix "lb/site" { policy = "write" }',
        "operator": 'key_prefix "lb/site" { policy = "write" } session_prefix "" { policy = "write" }',
    }
    with own_agent(settings={"acl": acl}) as agent:
        agent.token = "root-secret"  # noqa: S105 - of a test

        def has_policies():
            return agent.request("GET", "/v1/acl/policies")[0] == 200

        await asyncio.to_thread(wait_for, has_policies, "ACLs")
        for path in ("lb/site", "lb/site.canary", "lb/site2"):
            await agent.call("PUT", f"/v1/kv/{path}", b"value")
        tokens = {}
        for name, text in rules.items():
            await agent.call("PUT", "/v1/acl/policy", {"Name": name, "Rules": text})
            tokens[name] = await agent.call("PUT", "/v1/acl/token", {"Policies": [{"Name": name}]})

        @asynccontextmanager
        async def as_(name):
            settings = replace(with_address(agent.address), token=tokens[name]["SecretID"])
            async with connected(settings) as client:
                yield client

        async with as_("reader") as client:
            assert sorted(await keys.read(client)) == ["lb/site", "lb/site.canary"]
            with pytest.raises(ConsulError, match="denied"):
                await transact(client, [set_if("lb/site", b"new", 0)], timeout_s=5.0)
        async with as_("writer") as client:
            with pytest.raises(ConsulError, match="denied"):
                await Lock(client, keys, holder).take()
        async with as_("operator") as client:
            assert await Lock(client, keys, holder).take(set_if("lb/site.other", b"new", 0))
            with pytest.raises(ConsulError, match="denied: the token may not write"):
                await Lock(client, keys, holder).take(set_if("elsewhere", b"new", 0))


async def test_tls(tmp_path):
    """An agent that asks for a client's certificate is asked with one, over https."""

    def consul(*arguments):
        subprocess.run([require("consul"), *arguments], check=True, capture_output=True, cwd=tmp_path)

    consul("tls", "ca", "create")
    consul("tls", "cert", "create", "-server", "-additional-ipaddress=127.0.0.1")
    consul("tls", "cert", "create", "-client")
    files = {
        "ca_file": str(tmp_path / "consul-agent-ca.pem"),
        "cert_file": str(tmp_path / "dc1-server-consul-0.pem"),
        "key_file": str(tmp_path / "dc1-server-consul-0-key.pem"),
    }
    with HeldPort() as held:
        settings = {"verify_incoming_https": True, **files}
        agent = Agent(settings=settings, ports={"https": held.port})
        with agent:
            await register(agent, "a")
            client = {
                "ca_file": files["ca_file"],
                "cert_file": str(tmp_path / "dc1-client-consul-0.pem"),
                "key_file": str(tmp_path / "dc1-client-consul-0-key.pem"),
            }
            async with Discovering(f"https://127.0.0.1:{held.port}", {"web": "web"}, **client) as found:
                await found.shows("dev/a")
            async with Discovering(f"https://127.0.0.1:{held.port}", {"web": "web"}) as found:
                row = await found.is_in("error")
                assert row["last_error"].startswith("unreachable")


async def test_unix_socket():
    """An agent can be asked over its Unix socket."""
    with TemporaryDirectory(prefix="lb-test-") as folder:  # short: a socket's path has 107 bytes
        path = f"{folder}/http.sock"
        with own_agent(settings={"addresses": {"http": f"unix://{path} 127.0.0.1"}}) as agent:
            await register(agent, "a")
            async with Discovering(f"unix://{path}", {"web": "web"}) as found:
                await found.shows("dev/a")


async def test_frozen_and_thawed():
    """A real agent that is stopped is noticed while the watch of its service waits, and so is its return."""
    pace = type(FAST)(wait_s=600.0, rate=200.0, pulse_s=0.1, pulse_timeout_s=0.5)
    with own_agent() as agent:
        await register(agent, "a")
        async with Discovering(agent.address, {"web": "web"}, pace=pace) as found:
            await found.shows("dev/a")
            await found.is_in("ok")
            polls = found.status()["polls"]
            agent.send_signal(signal.SIGSTOP)
            row = await found.is_in("stale")
            assert row["last_error"].startswith("timeout: ")
            assert found.ids() == ["dev/a"]
            agent.send_signal(signal.SIGCONT)
            row = await found.is_in("ok")
            assert row["last_error"] is None
            assert found.status()["polls"] - polls <= 1  # the blocking query has waited through it
            await register(agent, "b")
            await found.shows("dev/a", "dev/b")
