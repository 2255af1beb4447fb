"""The rows of hostile and newer behaviour that a real Consul 1.8 does not show."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from controlplane.discovery.consul.settings import SettingsError
from controlplane.discovery.consul.watch import Runtime
from schemas.discovery import Consul, ConsulQuery
from tests.support.discovery import FAST, RUNTIME, Discovering, eventually
from tests.support.fakeconsul import FakeConsul, entry


def many(*names, **kwargs):
    """Entries of these ids, each at its own address."""
    return [entry(name, address=f"10.0.0.{number}", **kwargs) for number, name in enumerate(names, 1)]


@pytest.fixture
async def consul():
    """A Consul with a service `web` of four."""
    await asyncio.to_thread(int)  # the loop's thread, which ends with the loop, is no leak
    async with FakeConsul() as fake:
        await fake.put("web", many("a", "b", "c", "d"))
        yield fake


FOUR = ("n1/a", "n1/b", "n1/c", "n1/d")


async def quiet(consul, polls=3):
    """Let a watch ask some more times."""
    seen = len(consul.asked)
    await eventually(lambda: len(consul.asked) >= seen + polls, "more questions")


async def test_backends_are_discovered(consul, no_blocking):
    """What is registered becomes backends, in the order of their ids; changes follow."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        assert found.ids() is None
        await found.shows(*FOUR)
        backend = found.backend("n1/a")
        assert (backend.address, backend.weight, backend.tier, backend.state) == (
            "10.0.0.1:80",
            1,
            0,
            "enabled",
        )
        await consul.put("web", many("a", "b", "c", "d", "e"))
        await found.shows(*FOUR, "n1/e")
        await consul.put("web", many("a", "b", "c"))
        await found.shows("n1/a", "n1/b", "n1/c")
        row = await found.is_in("ok")
        assert row["counts"]["passing"] == 3
        assert (row["name"], row["services"], row["last_error"]) == ("consul:web", ["web"], None)


async def test_first_from_the_leader_then_blocking(consul):
    """The first read is the leader's; after it, queries block in stale mode with the last index."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        await eventually(lambda: consul.blocked == 1, "a blocking query")
    first, second = consul.asked[:2]
    assert not first.blocking
    assert not first.stale
    assert second.stale
    assert second.query["index"] == str(consul.index)


async def test_equal_queries_share_a_watch(consul):
    """Services that ask the same cost one connection; what they make of it may differ."""
    queries = {"one": "web", "two": "web", "three": {"service": "web", "port": 9000}}
    async with Discovering(consul.address, queries) as found:
        for service in queries:
            await found.shows(*FOUR, service=service)
        await eventually(lambda: consul.blocked == 1, "one watch")
        assert found.backend("n1/a", "three").address == "10.0.0.1:9000"
        assert [row["services"] for row in found.discovery.status()] == [["one", "two"], ["three"]]
        assert consul.blocked == 1


async def test_queries_come_and_go(consul):
    """An update keeps the watches that are still wanted, starts new ones and ends the others."""
    await consul.put("db", many("x"))
    async with Discovering(consul.address, {"web": "web", "old": "nothing"}) as found:
        await found.shows(*FOUR)
        await eventually(lambda: consul.blocked == 2, "two watches")
        before = sum(asked.path.endswith("/web") for asked in consul.asked)
        found.update({"web": "web", "db": "db"})
        assert found.ids() == list(FOUR)
        await found.shows("n1/x", service="db")
        await eventually(lambda: consul.blocked == 2, "two watches again")
        assert sum(asked.path.endswith("/web") for asked in consul.asked) == before
        found.update({"web": "web", "again": {"service": "web", "port": 81}})
        await found.shows(*FOUR, service="again")  # at once, not after the next change


async def test_everything_that_can_be_asked_is_asked(consul):
    """Tags, filter, datacenter, near, namespace and partition reach Consul."""
    query = {"service": "web", "tags": ("x", "y"), "filter": 'Service.Meta.v == "1"', "datacenter": "dc9"}
    async with Discovering(
        consul.address, {"web": {**query, "near": "_agent", "namespace": "team", "partition": "p"}}
    ):
        await eventually(lambda: consul.asked, "a question")
    asked = consul.asked[0].query
    assert asked.items() >= {"dc": "dc9", "near": "_agent", "ns": "team", "partition": "p"}.items()
    assert consul.asked[0].tags == ("x", "y")
    assert asked["filter"] == 'Service.Meta.v == "1"'


async def test_maintenance_drains_and_critical_is_out(consul):
    """Maintenance becomes drain, critical is taken away, warning stays with its weight."""
    rows = [
        entry("a", Weights={"Passing": 9, "Warning": 2}, status="warning"),
        entry("b", address="10.0.0.2", status="critical"),
        *many("x", "y", "c", "d")[2:],
    ]
    rows[3]["Checks"].append({"CheckID": "_service_maintenance:d", "Status": "critical"})
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        await consul.put("web", rows)
        await found.shows("n1/a", "n1/c", "n1/d")
        await eventually(lambda: found.backend("n1/a").weight == 2, "the warning weight")
        assert found.backend("n1/d").state == "drain"
        counts = found.status()["counts"]
        assert counts == {
            "passing": 1,
            "warning": 1,
            "lost": 0,
            "maintenance": 1,
            "critical": 1,
            "rejected": 0,
        }


async def test_large_weights_keep_their_proportion(consul):
    """Weights that balancers do not take are divided, for all of a service and also for what is held; it is shown."""

    def weighted(**weights):
        return [
            entry(name, address=f"10.0.0.{number}", Weights={"Passing": weight, "Warning": 1})
            for number, (name, weight) in enumerate(weights.items(), 1)
        ]

    def shown():
        return {item.id: item.weight for item in found.discovery.discovered()["web"]}

    await consul.put("web", weighted(a=1000, b=300))
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows("n1/a", "n1/b")
        assert shown() == {"n1/a": 256, "n1/b": 77}
        assert found.status()["warnings"] == [
            {"id": "n1/a", "why": "weight 1000 is above 256: all weights of its tier are divided by 3.906"}
        ]
        saved = found.discovery.saved()
        await consul.put("web", weighted(a=200, b=60))
        await eventually(lambda: shown() == {"n1/a": 200, "n1/b": 60}, "weights that fit, as they are")
        assert found.status()["warnings"] == []
        await consul.put("web", weighted(a=200, b=60, c=512))
        await eventually(lambda: shown() == {"n1/a": 100, "n1/b": 30, "n1/c": 256}, "the new proportion")
    later = Discovering(consul.address, {"web": "web"})
    later.discovery.restore(saved)
    assert {item.id: item.weight for item in later.discovery.discovered()["web"]} == {"n1/a": 256, "n1/b": 77}


async def test_bad_instances_are_skipped_and_shown(consul):
    """A port of 70000 or a hostname full of blanks costs only that instance."""
    bad = [
        entry("p", port=70000),
        entry("h", address="not a host; rm -rf"),
        entry("m", address="169.254.169.254"),
    ]
    await consul.put("web", [*bad, *many("a")])
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows("n1/a")
        rejected = {row["id"]: row["why"] for row in found.status()["rejected"]}
        assert rejected.keys() == {"n1/p", "n1/h", "n1/m"}
        assert found.status()["counts"]["rejected"] == 3


async def test_one_id_on_two_nodes(consul):
    """Two nodes may have instances of one id."""
    await consul.put("web", [entry("a"), entry("a", node="n2", address="10.0.0.2")])
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows("n1/a", "n2/a")


def answer(status=200, text="", **headers):
    """A fault: this answer to every question."""

    async def fault(_request):
        return web.Response(status=status, text=text, headers=headers)

    return fault


def body(raw, **headers):
    """A fault: these bytes, as a health answer."""

    async def fault(_request):
        return web.Response(body=raw, headers={"X-Consul-Index": "99", **headers})

    return fault


async def cut_off(request):
    """A fault: an answer that ends too early."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "X-Consul-Index": "99"})
    await response.prepare(request)
    await response.write(b"[")
    request.transport.abort()
    return response


async def hang_up(request):
    """A fault: a reset instead of an answer."""
    request.transport.abort()
    return web.Response()


HOSTILE = {
    "404": (answer(404, "not found"), "protocol"),
    "no index": (answer(200, "[]"), "protocol"),
    "index banana": (body(b"[]", **{"X-Consul-Index": "banana"}), "protocol"),
    "null": (body(b"null"), "protocol"),
    "dict": (body(b"{}"), "protocol"),
    "HTML": (body(b"<html>sign in</html>"), "protocol"),
    "bad UTF-8": (body(b'["\xff\xfe"]'), "protocol"),
    "deep": (body(b"[" * 100_000), "protocol"),
    "truncated": (cut_off, "unreachable"),
    "reset": (hang_up, "unreachable"),
    "301": (answer(301, Location="http://127.0.0.1:1/v1/health/service/web"), "protocol"),
    "302 elsewhere": (answer(302, Location="http://198.51.100.1/"), "protocol"),
    "500": (answer(500, "No cluster leader"), "failed"),
    "429": (answer(429, "Your IP is issuing too many requests", **{"Retry-After": "0"}), "overloaded"),
    "503": (answer(503, "busy", **{"Retry-After": "soon"}), "overloaded"),
    "403": (answer(403, "ACL not found"), "denied"),
    "401": (answer(401, "ACL support disabled"), "denied"),
    "400": (answer(400, "Invalid index"), "misconfigured"),
    "bad filter of 1.8": (answer(500, "Failed to create boolean expression evaluator: 1:7"), "misconfigured"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_error_takes_anything_away(consul, name):
    """Whatever goes wrong: what is known stays, status says what, and everything goes on when it is over."""
    fault, kind = HOSTILE[name]
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        changes = found.changes
        consul.fault = fault
        await consul.wake()
        state = {"denied": "denied", "misconfigured": "error"}.get(kind, "stale")
        row = await found.is_in(state)
        assert row["last_error"].startswith(kind)
        await quiet(consul)
        assert found.ids() == list(FOUR)
        assert found.changes == changes
        assert found.status()["errors"][kind] >= 2
        consul.fault = None
        await consul.put("web", many("a", "b", "c", "d", "e"))
        await found.shows(*FOUR, "n1/e")
        row = await found.is_in("ok")
        assert row["last_error"] is None


async def test_an_error_at_the_start_is_an_error(consul):
    """With nothing known yet, an error is no staleness: the service is pending."""
    consul.fault = answer(500, "No cluster leader")
    async with Discovering(consul.address, {"web": "web"}) as found:
        row = await found.is_in("error")
        assert "No cluster leader" in row["last_error"]
        assert found.ids() is None
        assert found.discovery.discovered() == {}
        consul.fault = None
        await found.shows(*FOUR)


async def test_a_silent_agent_is_given_up(consul):
    """An agent that takes a question and never answers costs one deadline."""

    async def hang(_request):
        await asyncio.Event().wait()

    pace = type(FAST)(wait_s=0.05, slack_s=0.05, rate=200.0)
    async with Discovering(consul.address, {"web": "web"}, pace=pace) as found:
        await found.shows(*FOUR)
        consul.fault = hang
        row = await found.is_in("stale")
        assert row["last_error"].startswith("timeout")
        consul.fault = None
        await found.is_in("ok")


async def test_a_frozen_agent_is_noticed(consul):
    """An agent that hangs is stale though its blocking queries only wait, with since when; thawed, it is in order again."""
    thawed = asyncio.Event()

    async def hang(request):
        await thawed.wait()
        return await consul._health(request, "web")

    queries = {"web": "web", "far": {"service": "web", "datacenter": "dc2"}, "db": "web"}
    consul.services["dc2/web"] = many("x")
    pace = type(FAST)(wait_s=60.0, pulse_s=0.02, pulse_timeout_s=0.1)
    async with Discovering(consul.address, queries, pace=pace) as found:

        def states():
            return {row["state"] for row in found.discovery.status()}

        await eventually(lambda: consul.blocked == 2 and states() == {"ok"}, "both watches")
        polls = len(consul.asked)
        consul.fault = hang
        await eventually(lambda: states() == {"stale"}, "the silence to be noticed")
        assert found.ids() == list(FOUR)
        assert (consul.blocked, len(consul.asked)) == (2, polls)  # the watches have met nothing yet
        for row in found.discovery.status():
            assert row["last_error"].startswith("timeout: ")
            assert row["since"] < RUNTIME.rfc3339(RUNTIME.clock())
        assert set(consul.pulses) == {"", "dc2"}
        consul.fault = None
        thawed.set()
        await eventually(lambda: states() == {"ok"}, "the end of the silence")
        assert [row["last_error"] for row in found.discovery.status()] == [None, None]


async def test_one_pulse_for_all_watches(consul):
    """However many services are watched, an agent is asked once whether it answers."""
    names = [f"s{number}" for number in range(50)]
    for name in names:
        consul.services[name] = many("a")
    pace = type(FAST)(pulse_s=3600.0)
    asleep = []

    async def sleep(seconds):
        asleep.append(seconds)
        await asyncio.sleep(seconds)

    runtime = Runtime(clock=RUNTIME.clock, wall=RUNTIME.wall, random=lambda: 0.0, sleep=sleep)
    async with Discovering(
        consul.address, {name: name for name in names}, pace=pace, runtime=runtime
    ) as found:
        await eventually(lambda: consul.blocked == 50, "all watches")
        assert asleep.count(3600.0) == 1
        found.update({"s1": "s1"})
        await eventually(lambda: consul.blocked == 1, "one watch")
        assert asleep.count(3600.0) == 1


async def test_who_failed_in_a_silence_asks_at_once_when_it_ends(consul):
    """A watch whose pause has grown meanwhile does not sit it out when the agent answers again."""

    async def silent(request):
        request.transport.abort()
        return web.Response()

    sits = asyncio.Event()

    async def sleep(seconds):
        if 0.2 < seconds < 0.3:  # the first pause after an error
            sits.set()
            await asyncio.Event().wait()
        await asyncio.sleep(min(seconds, 0.005))

    runtime = Runtime(clock=RUNTIME.clock, wall=RUNTIME.wall, random=lambda: 0.999, sleep=sleep)
    pace = type(FAST)(rate=1e9, pulse_s=0.1)
    async with Discovering(consul.address, {"web": "web"}, pace=pace, runtime=runtime) as found:
        await found.shows(*FOUR)
        consul.fault = silent
        await consul.wake()
        await sits.wait()
        await found.is_in("stale")
        await eventually(lambda: found.discovery._watches._pulses[""].error, "the silence")
        consul.fault = None
        await found.is_in("ok")


async def test_agent_gone_and_back(consul):
    """An agent that does not listen takes nothing away, and is found again when it is back."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        await consul.__aexit__(None, None, None)
        row = await found.is_in("stale")
        assert row["last_error"].startswith("unreachable")
        assert found.ids() == list(FOUR)
        await consul.__aenter__()
        await found.is_in("ok")


async def test_stale_reads_ride_through_an_election(consul):
    """While no leader answers, a stale read of any server takes its place."""

    async def no_leader(request):
        if "stale" not in request.query:
            return web.Response(status=500, text="No cluster leader")
        return await consul._health(request, "web")

    consul.fault = no_leader
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)


async def test_index_backwards(consul):
    """After a restored snapshot the index is lower: the watch starts again and misses nothing."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        await eventually(lambda: consul.blocked, "a blocking query")
        consul.services["web"] = many("a", "b", "c", "d", "e")
        await consul.wake(index=5)
        await found.shows(*FOUR, "n1/e")
        assert found.status()["resets"] == 1
        await eventually(lambda: consul.asked[-1].query.get("index") == "5", "the new index")


async def test_older_answers_are_dropped(consul):
    """A server that has not caught up, though it knows a leader, takes nothing away; the leader's word does."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)

        async def behind(request):
            if "stale" not in request.query:
                return web.Response(status=500, text="No cluster leader")
            headers = {"X-Consul-Index": "3", "X-Consul-KnownLeader": "true", "X-Consul-LastContact": "5"}
            return web.json_response(many("a", "b", "c"), headers=headers)

        consul.fault = behind
        await consul.wake()
        await eventually(lambda: found.status()["errors"].get("failed", 0) >= 3, "the leader to be asked")
        assert found.ids() == list(FOUR)
        assert found.changes == 1
        consul.fault = None
        consul.services["web"] = many("a", "b", "c")
        await consul.wake(index=4)
        await found.shows("n1/a", "n1/b", "n1/c")


async def test_index_zero_is_no_busy_loop(consul):
    """An index of 0 is sent as 1, so that the next query can block."""
    consul.headers["X-Consul-Index"] = "0"
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        await eventually(lambda: any(asked.blocking for asked in consul.asked), "a blocking query")
    assert {asked.query["index"] for asked in consul.asked if asked.blocking} == {"1"}


async def test_streaming_answers(consul):
    """Consul 1.10 and later leave the leader's header out: additions are believed, removals confirmed first."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        consul.headers = {
            "X-Consul-KnownLeader": None,
            "X-Consul-LastContact": None,
            "X-Consul-Query-Backend": "streaming",
        }
        await consul.put("web", many("a", "b", "c", "d", "e"))
        await found.shows(*FOUR, "n1/e")
        questions = len(consul.asked)
        await consul.put("web", many("a", "b", "c", "d"))
        await found.shows(*FOUR)
        assert any(not asked.stale and not asked.blocking for asked in consul.asked[questions:])
        row = await found.is_in("ok")
        assert row["headers"]["backend"] == "streaming"


async def test_hidden_by_acls(consul):
    """Entries that the token may not read are not gone: denied, and held for as long as it takes."""
    async with Discovering(consul.address, {"web": "web"}, {"hold": "0s"}) as found:
        await found.shows(*FOUR)
        consul.headers["X-Consul-Results-Filtered-By-ACLs"] = "true"
        await consul.put("web", many("a", "b", "c"))
        row = await found.is_in("denied")
        assert row["held"]["why"] == "denied"
        assert row["held"]["missing"] == ["n1/d"]
        await quiet(consul)
        assert found.ids() == list(FOUR)


async def test_emptiness_is_not_believed(consul):
    """A valid, empty answer takes nothing away, however often it is given."""
    async with Discovering(consul.address, {"web": "web"}, {"hold": "0s"}) as found:
        await found.shows(*FOUR)
        changes = found.changes
        await consul.put("web", [])
        row = await found.is_in("held")
        assert row["held"]["why"] == "empty"
        assert row["held"]["count"] == 4
        assert row["held"]["ends_in_s"] is None
        await consul.wake()
        await quiet(consul, 2)
        assert found.ids() == list(FOUR)
        assert found.changes == changes
        found.discovery.release()
        assert found.ids() == []  # at once, before anybody could ask for less


async def test_a_shrink_is_held_and_then_believed(consul):
    """More than half at once is held, asked again of the leader, and believed when the hold is over."""
    async with Discovering(consul.address, {"web": "web"}, {"hold": "1s"}) as found:
        await found.shows(*FOUR)
        questions = len(consul.asked)
        await consul.put("web", many("a"))
        row = await found.is_in("held")
        assert (row["held"]["why"], row["held"]["seen"]) == ("shrink", 1)
        assert found.ids() == list(FOUR)
        await found.shows("n1/a")
        assert any(not asked.stale for asked in consul.asked[questions:])
        await found.is_in("ok")


def tagged(tag, *names):
    """Entries of these ids with a tag, each at an address of its own."""
    return [entry(name, address=f"10.0.0.{ord(name)}", Tags=[tag]) for name in names]


async def test_blue_and_green_by_tags(consul):
    """Four instances lose the tag and three others gain it: the three serve alone, without a hold, all seven answering."""
    await consul.put("web", [*tagged("live", *"abcd"), *tagged("dark", *"efg")])
    query = {"service": "web", "tags": ("live",)}
    async with Discovering(consul.address, {"web": query}, answers=lambda *_: True) as found:
        await found.shows(*FOUR)
        await eventually(lambda: consul.blocked == 1, "a watch")
        questions = len(consul.asked)
        await consul.put("web", [*tagged("dark", *"abcd"), *tagged("live", *"efg")])
        await found.shows("n1/e", "n1/f", "n1/g")
        assert all(row["web"] != [] for row in found.history)
        assert (await found.is_in("ok"))["held"] is None
        await eventually(lambda: consul.blocked == 1, "the watch again")
        whole = [asked for asked in consul.asked[questions:] if not asked.tags]
        assert len(whole) == 1
        assert not whole[0].blocking
        assert not whole[0].stale


async def test_blue_and_green_by_a_filter(consul):
    """The same with an expression that only Consul can evaluate."""
    live = 'Service.Meta.colour == "blue"'
    consul.filters[live] = lambda each: each["Service"]["Meta"]["colour"] == "blue"

    def coloured(colour, *names):
        return [
            {**each, "Service": {**each["Service"], "Meta": {"colour": colour}}}
            for each in tagged("", *names)
        ]

    await consul.put("web", [*coloured("blue", *"abcd"), *coloured("green", *"efg")])
    query = {"service": "web", "filter": live}
    async with Discovering(consul.address, {"web": query}, answers=lambda *_: True) as found:
        await found.shows(*FOUR)
        await consul.put("web", [*coloured("green", *"abcd"), *coloured("blue", *"efg")])
        await found.shows("n1/e", "n1/f", "n1/g")
        await found.is_in("ok")


async def test_only_what_is_absent_is_held(consul):
    """Of those that a narrowed query no longer shows, the ones that are gone from Consul are doubted, as ever."""
    await consul.put("web", [*tagged("live", *"abcd"), *tagged("dark", *"e")])
    query = {"service": "web", "tags": ("live",)}
    async with Discovering(consul.address, {"web": query}) as found:
        await found.shows(*FOUR)
        await consul.put("web", [*tagged("dark", "a"), *tagged("live", *"e")])
        row = await found.is_in("held")
        await found.shows("n1/b", "n1/c", "n1/d", "n1/e")
        assert found.status()["held"]["missing"] == ["n1/b", "n1/c", "n1/d"]
        await consul.put("web", [*tagged("dark", *"abcd"), *tagged("live", *"e")])
        await found.shows("n1/e")
        row = await found.is_in("ok")
        assert row["held"] is None


async def test_nobody_looks_elsewhere_without_need(consul):
    """All of the service is asked for only when something is missing, and once for each index, however long it is held."""
    pace = type(FAST)(rate=200.0, whole_s=0.0)
    await consul.put("web", tagged("live", *"abcd"))
    async with Discovering(
        consul.address, {"web": {"service": "web", "tags": ("live",)}}, pace=pace
    ) as found:

        def whole():
            return sum(not asked.tags for asked in consul.asked)

        def confirmed():
            return sum(asked.tags == ("live",) and not asked.stale for asked in consul.asked)

        await found.shows(*FOUR)
        await consul.put("web", tagged("live", *"abcde"))
        await found.shows(*FOUR, "n1/e")
        assert whole() == 0
        await consul.put("web", tagged("live", "a"))
        await found.is_in("held")
        before = confirmed()
        await eventually(lambda: confirmed() >= before + 2, "confirmations")
        assert whole() == 1
        await consul.wake()
        await eventually(lambda: whole() == 2, "another question for another index")


async def test_looking_elsewhere_has_a_pace(consul):
    """A large service that changes all the time is not asked for as a whole with each change."""
    pace = type(FAST)(rate=200.0, whole_s=3600.0)
    await consul.put("web", [*tagged("live", *"abcd"), *tagged("dark", *"efg")])
    async with Discovering(
        consul.address, {"web": {"service": "web", "tags": ("live",)}}, pace=pace
    ) as found:
        await found.shows(*FOUR)
        await consul.put("web", [*tagged("dark", *"abcd"), *tagged("live", *"efg")])
        await found.shows("n1/e", "n1/f", "n1/g")
        await consul.put("web", [*tagged("live", *"abcd"), *tagged("dark", *"efg")])
        await found.shows(*FOUR)  # three of seven are no cliff
        assert sum(not asked.tags for asked in consul.asked) == 1


async def test_without_an_answer_the_missing_are_absent(consul):
    """While nobody tells what all of the service is, what a narrowed query no longer shows is held."""
    await consul.put("web", [*tagged("live", *"abcd"), *tagged("dark", *"efg")])

    async def no_whole(request):
        if "tag" not in request.query:
            return web.Response(status=500, text="No cluster leader")
        return await consul._health(request, "web")

    consul.fault = no_whole
    pace = type(FAST)(rate=200.0, whole_s=0.0)
    async with Discovering(
        consul.address, {"web": {"service": "web", "tags": ("live",)}}, pace=pace
    ) as found:
        await found.shows(*FOUR)
        await consul.put("web", [*tagged("dark", *"abcd"), *tagged("live", *"e")])
        row = await found.is_in("held")
        assert row["errors"]["failed"] >= 1
        await found.shows(*FOUR, "n1/e")
        consul.fault = None
        await found.shows("n1/e")
        await found.is_in("ok")


async def test_release_during_a_hold(consul):
    """The operator's word ends a hold at once."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        await consul.put("web", many("a"))
        await found.is_in("held")
        found.discovery.release()
        await found.shows("n1/a")


async def test_what_answers_is_kept(consul):
    """What passes the balancer's own checks outlives the hold."""
    asked = set()

    def answers(service, backend):
        asked.add((service, backend))
        return backend == "n1/d"

    async with Discovering(consul.address, {"web": "web"}, {"hold": "0s"}, answers=answers) as found:
        await found.shows(*FOUR)
        await consul.put("web", many("a"))
        row = await found.is_in("held")
        assert row["held"]["ends_in_s"] > 200
        assert ("web", "n1/d") in asked


async def test_churn_is_bounded_and_ends_right(consul):
    """A hundred changes are asked about at the watch's rate, not at theirs, and the last state is what counts."""
    pace = type(FAST)(rate=10.0)
    async with Discovering(consul.address, {"web": "web"}, pace=pace) as found:
        await found.shows(*FOUR)
        questions = len(consul.asked)
        for number in range(100):
            await consul.put("web", many("a", "b", "c", "d", *(["e"] if number % 2 else [])))
            await asyncio.sleep(0)
        await found.shows(*FOUR, "n1/e")
        assert len(consul.asked) - questions < 20


async def test_backoff_is_bounded(consul):
    """In a storm of errors a watch asks at most as often as its backoff says, and never gives up."""
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        await asyncio.sleep(0)

    runtime = Runtime(clock=RUNTIME.clock, wall=RUNTIME.wall, random=lambda: 0.999, sleep=sleep)
    consul.fault = answer(500, "no")
    async with Discovering(
        consul.address, {"web": "web"}, runtime=runtime, pace=type(FAST)(rate=1e9, pulse_s=0.0)
    ) as found:
        await eventually(lambda: found.status()["errors"].get("failed", 0) >= 20, "twenty errors")
        long = [pause for pause in pauses if pause > 0.01][:20]
        assert long[:4] == pytest.approx([0.25, 0.5, 1.0, 2.0], rel=0.01)
        assert max(long) <= 30.0
        consul.fault = None
        await found.shows(*FOUR)


async def test_retry_after_is_heard(consul):
    """A server that asks for patience gets it, up to a limit."""
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)
        await asyncio.sleep(0)

    runtime = Runtime(clock=RUNTIME.clock, wall=RUNTIME.wall, random=lambda: 0.0, sleep=sleep)
    consul.fault = answer(429, "slow down", **{"Retry-After": "17"})
    async with Discovering(
        consul.address, {"web": "web"}, runtime=runtime, pace=type(FAST)(rate=1e9, pulse_s=0.0)
    ) as found:
        await eventually(lambda: found.status()["errors"].get("overloaded", 0) >= 2, "two refusals")
        assert 17.0 in pauses
        consul.fault = answer(429, "slow down", **{"Retry-After": "99999"})
        await eventually(lambda: 60.0 in pauses, "the limit")


async def test_token_rotation(consul, tmp_path):
    """The token is read again when its file changes; a wrong one is told, and takes nothing away."""
    secret = tmp_path / "consul.token"
    secret.write_text("first\n")
    consul.token = "first"  # noqa: S105 - of a test
    async with Discovering(consul.address, {"web": "web"}, token_file=str(secret)) as found:
        await found.shows(*FOUR)
        consul.token = "second"  # noqa: S105 - of a test
        await consul.wake()
        row = await found.is_in("denied")
        assert "first" not in str(row)
        assert found.ids() == list(FOUR)
        secret.write_text("second\n")
        await found.is_in("ok")
        secret.unlink()
        await consul.wake()
        row = await found.is_in("error")
        assert "consul.token" in row["last_error"]
        secret.write_text("second")
        await found.is_in("ok")
        assert all("token" not in asked.query for asked in consul.asked)


async def test_tokens_are_not_sent_to_another_host(consul, tmp_path):
    """A redirect is not followed, so the token goes nowhere."""
    secret = tmp_path / "token"
    secret.write_text("secret")
    async with FakeConsul() as other:
        consul.fault = answer(301, Location=f"{other.address}/v1/health/service/web")
        async with Discovering(consul.address, {"web": "web"}, token_file=str(secret)) as found:
            row = await found.is_in("error")
            assert "redirect" in row["last_error"]
        assert other.asked == []


async def test_environment_changes_nothing(consul, monkeypatch):
    """What py-consul would take from the environment is not taken."""
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "stolen")
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "unix:///nowhere")
    monkeypatch.setenv("CONSUL_HTTP_SSL", "true")
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
    assert {asked.token for asked in consul.asked} == {""}


async def test_500_services(consul, no_leaks):
    """Five hundred watches block at the same time, and none waits for another's connection."""
    names = [f"s{number}" for number in range(500)]
    for name in names:
        consul.services[name] = many("a")
    async with Discovering(consul.address, {name: name for name in names}) as found:
        await eventually(lambda: len(found.discovery.discovered()) == len(names), "all services")
        await eventually(lambda: consul.blocked == 500, "all watches")
        await consul.put("s499", many("a", "b"))
        await found.shows("n1/a", "n1/b", service="s499")
    await eventually(lambda: consul.blocked == 0, "all to be gone")


async def test_prepared_queries_are_polled(consul):
    """A prepared query's instances are asked for again and again; a missing query is told."""
    consul.queries["near"] = "web"
    async with Discovering(consul.address, {"web": {"prepared_query": "near"}}) as found:
        await found.shows(*FOUR)
        consul.services["web"] = many("a", "b", "c")
        await found.shows("n1/a", "n1/b", "n1/c")
        assert found.status()["name"] == "consul:query/near"
        del consul.queries["near"]
        row = await found.is_in("error")
        assert "no prepared query" in row["last_error"]
        assert found.ids() == ["n1/a", "n1/b", "n1/c"]


async def test_failover_between_datacenters(consul):
    """The second datacenter serves when the first is empty for sure, and ids begin with their datacenter."""
    consul.services["dc1/web"] = many("a", "b")
    consul.services["dc2/web"] = many("x")
    query = {"web": {"service": "web", "datacenter": ["dc1", "dc2"]}}
    async with Discovering(consul.address, query, {"hold": "0s"}) as found:
        await found.shows("dc1/n1/a", "dc1/n1/b")
        await consul.put("dc1/web", [])
        await found.shows("dc2/n1/x")
        assert found.status()["datacenter"] == "dc2"
        await consul.put("dc2/web", [])
        await found.is_in("held")
        assert found.ids() == ["dc2/n1/x"]
        found.discovery.release()
        await found.shows()


async def test_saved_state(consul):
    """What an earlier life knew is there at once, marked with its age, and holds until Consul answers."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        saved = found.discovery.saved()
    consul.fault = answer(500, "No cluster leader")
    for restore_first in (True, False):
        later = Discovering(consul.address, {} if restore_first else {"web": "web"})
        later.discovery.restore(saved)
        later.update({"web": "web"})
        assert later.ids() == list(FOUR)
        async with later:
            row = await later.is_in("stale")
            assert row["source"] == "saved"
            assert row["age_s"] >= 0
            assert later.changes == 0


async def test_saved_state_is_guarded(consul):
    """After a restart an empty Consul is believed no more than before."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        saved = found.discovery.saved()
    await consul.put("web", [])
    later = Discovering(consul.address, {"web": "web"})
    later.discovery.restore(saved)
    async with later:
        await later.is_in("held")
        assert later.ids() == list(FOUR)


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"version": 2},
        {"version": 1, "pools": []},
        {"version": 1, "pools": {"x": 3}},
        {"version": 1, "pools": None},
    ],
)
async def test_bad_saved_state_is_no_state(consul, saved):
    """A state that is none is as good as nothing."""
    found = Discovering(consul.address, {"web": "web"})
    found.discovery.restore(saved)
    assert found.ids() is None


async def test_bad_rows_of_saved_state(consul):
    """Of a saved state that was tampered with, the rows that are instances are used."""
    async with Discovering(consul.address, {"web": "web"}) as found:
        await found.shows(*FOUR)
        saved = found.discovery.saved()
    (pool,) = saved["pools"].values()
    rows = pool["datacenters"][""]
    rows[0]["address"] = "nowhere"
    rows[1]["weight"] = -1
    rows.append("row")
    later = Discovering(consul.address, {"web": "web"})
    later.discovery.restore(saved)
    assert later.ids() == ["n1/c", "n1/d"]


async def test_another_agent(consul):
    """With another address every watch moves to the new agent, and nothing is forgotten on the way."""
    async with FakeConsul() as other:
        await other.put("web", many("a", "b", "c", "d", "e"))
        async with Discovering(consul.address, {"web": "web"}) as found:
            await found.shows(*FOUR)
            await eventually(lambda: consul.blocked == 1, "a watch")
            found.settings = Consul(address=other.address)
            found.update({"web": "web"})
            assert found.ids() == list(FOUR)
            await found.shows(*FOUR, "n1/e")
            await eventually(lambda: consul.blocked == 0, "the old agent to be left")


async def test_no_sockets_are_left(consul, no_leaks):
    """The end of a discovery leaves no connection and no task."""
    async with Discovering(consul.address, {"web": "web", "two": "two"}) as found:
        await found.shows(*FOUR)
        await eventually(lambda: consul.blocked == 2, "both watches")
    await eventually(lambda: consul.blocked == 0, "both to be gone")
    assert len(asyncio.all_tasks()) <= 2


async def test_names_that_are_paths():
    """A name that would be read as a path is refused before anything changes."""
    found = Discovering("http://127.0.0.1:1", {"web": "web"})
    bad = ConsulQuery.model_construct(**{**ConsulQuery(service="x").model_dump(), "service": "../kv"})
    with pytest.raises(SettingsError):
        found.follow({"bad": bad})
    assert found.ids() is None
