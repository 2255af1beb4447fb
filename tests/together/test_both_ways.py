"""Two ways to one answer: a command through the daemon, and the same command without one, do the same.

Each way has a data plane in memory and a state directory of its own; both ask one Consul. Documents, what Consul lists, its
faults, the data planes' refusals and operators' words are drawn at random, and after each command the exit code, the refusal,
what the data plane runs, the overrides and the history are compared.

A daemon hears of Consul between commands, and remembers holds and high waters of the guard, which a command alone cannot. So
each change around them is followed by an apply, and a list changes only once after the first one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import web
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from controlplane.cli import files, operate
from controlplane.daemon.api import Api
from controlplane.daemon.events import Events
from controlplane.daemon.http import bound
from controlplane.dataplanes.blocking_client import BlockingClient
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import ControlError
from controlplane.operations.gateway import Direct, Remote
from controlplane.store import Store
from schemas.system.ownership import user_name
from tests.controlplane.fakes import Blocking, FakeDataPlane
from tests.controlplane.operations.test_controller import daemon
from tests.support.discovery import eventually
from tests.support.fakeconsul import FakeConsul, entry
from tests.together.test_discovery import following

COMMANDS = {"plan": files.plan, "apply": files.apply, "rollback": files.rollback, "drain": operate.drain, "weight": operate.weight}  # fmt: skip

BRIEFLY = ("--timeout", "2s")


class Way:
    """One way for commands to reach a data plane, and what has come of them."""

    def __init__(self, directory):
        self.directory = directory
        self.plane = FakeDataPlane()
        self.gateway = None

    def run(self, words):
        """Run a command; return its exit code, and what was refused."""
        chosen = SimpleNamespace(gateway=lambda: self.gateway)
        done = CliRunner().invoke(COMMANDS[words[0]], list(words[1:]), obj=chosen)
        error = done.exception
        if error is None or isinstance(error, SystemExit):
            return done.exit_code, None
        assert isinstance(error, ControlError), error
        return error.exit_code, (error.code, str(error).partition("\n")[0])

    def outcome(self):
        """Return what it has led to, as far as both ways are to agree."""
        state = Store(self.directory).load()
        entries = [each for each in Store(self.directory).history().entries if each.origin != "discovery"]
        words = [(each.place(), each.value) for each in state.overrides]
        return {
            "runs": (self.plane.hash, self.plane.services),
            "told": self.plane.overrides,
            "overrides": words,
            "waits": sorted(set(state.discovered) - set(state.services)),
            "history": [(each.origin, each.document) for each in entries],
        }


class Api2Node:
    """What the daemon's API serves."""

    def __init__(self, controller):
        self.controller, self.events = controller, Events()


@contextlib.asynccontextmanager
async def both(directory):
    """Set both ways up."""
    through, alone = Way(directory / "a"), Way(directory / "b")
    alone.gateway = Direct(lambda: (Blocking(alone.plane),), Store(alone.directory), user_name(os.geteuid()))
    async with contextlib.AsyncExitStack() as stack:
        controller = await stack.enter_async_context(daemon(through.directory, [through.plane]))
        await stack.enter_async_context(following(controller))
        listener = stack.enter_context(bound(directory / "control.sock"))
        runner = web.AppRunner(Api(Api2Node(controller)).application(), access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.SockSite(runner, listener).start()
        through.gateway = Remote(BlockingClient(Endpoint("the daemon", str(directory / "control.sock"))))
        yield through, alone, controller


class World:
    """Both ways, and what happens around them."""

    def __init__(self, directory, consul, ways):
        self.directory = directory
        self.consul = consul
        self.through, self.alone, self.controller = ways
        self._changed = set()

    async def offer(self, what, document, options):
        """Plan or apply an lb.yaml."""
        document = {**document, "consul": {**document["consul"], "address": self.consul.address}}
        path = self.directory / "lb.yaml"
        path.write_text(json.dumps(document))
        await self.command((what, str(path), *options))

    async def around(self, what, *drawn):
        """Change something around both ways, and apply what was taken last: then both have heard of it."""
        if what != "refuses" and self.alone.plane.refuses is not None:
            return  # a daemon takes what Consul says all the same, and pushes it later
        await getattr(self, what)(*drawn)
        document = self.controller.accepted.state.document
        if document is not None:
            await self.offer("apply", document, BRIEFLY)

    async def lists(self, name, numbers, status):
        """Let Consul list these instances of a service."""
        if self.controller.accepted.state.document is not None:
            if name in self._changed:
                return
            self._changed.add(name)
        entries = [entry(f"s{number}", port=80 + number, status=status) for number in sorted(numbers)]
        await self.consul.put(name, entries)
        await self.heard()

    async def breaks(self, fault):
        """Let Consul be in order, without a leader, or deny everything."""

        async def leaderless(_request):
            return web.Response(status=500, text="No cluster leader")

        self.consul.token = "needed" if fault == "denied" else ""
        self.consul.fault = leaderless if fault == "leaderless" else None
        await self.consul.wake()
        await self.heard()

    async def refuses(self, name, status):
        """Let both data planes say no to a service."""
        for way in (self.through, self.alone):
            way.plane.refuses, way.plane.refusal_status = name, status

    async def command(self, words):
        """Give a command both ways, and compare."""
        answers = [await asyncio.to_thread(way.run, words) for way in (self.through, self.alone)]
        assert answers[0] == answers[1], words
        # What the daemon pushes after its answer, for Consul or once more, is done when both agree.
        await eventually(
            lambda: self.through.outcome() == self.alone.outcome(),
            lambda: (
                f"{words}: {json.dumps([way.outcome() for way in (self.through, self.alone)], indent=1, default=str)}"
            ),
        )

    async def heard(self):
        """Wait until the daemon has heard what Consul says now: a command alone asks at its own start."""

        def knows():
            rows = self.controller.discovering.status()
            broken = self.consul.fault is not None or self.consul.token
            return all(row["last_error"] if broken else self._is_current(row) for row in rows)

        await eventually(knows, lambda: f"the daemon to hear: {self.controller.discovering.status()}")

    def _is_current(self, row):
        error = row["last_error"] or ""
        return row["index"] == self.consul.index and (not error or "Consul lists" in error)


CONSUL_NAMES = ("redis", "typo", "dc2/redis")
sources = st.fixed_dictionaries(
    {"service": st.sampled_from(["redis", "typo"])},
    optional={"datacenter": st.sampled_from(["dc2", ["dc2", "dc3"]]), "passing": st.booleans()},
)
listed = st.lists(st.sampled_from(["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]), min_size=1, unique=True)


def services(ports):
    """Draw a service at one of these ports."""
    where = st.sampled_from(ports).map(lambda port: {"listen": f"127.0.0.1:{port}"})
    static = st.tuples(where, listed).map(lambda drawn: {**drawn[0], "backends": drawn[1]})
    found = st.tuples(where, sources).map(lambda drawn: {**drawn[0], "discover": {"consul": drawn[1]}})
    return st.one_of(static, found, found)


@st.composite
def documents(draw):
    """Draw an lb.yaml, now and then one that is wrong."""
    names = draw(st.lists(st.sampled_from(["web", "cache", "db"]), unique=True))
    made = {name: draw(services([4000 + number])) for number, name in enumerate(names)}
    if draw(st.integers(0, 9)) == 0:
        made["bad"] = {"listen": "nowhere", "backends": []}
    # A hold that ends by itself would end it in the daemon only, which goes on.
    guard = {"hold": "1h", "absent_ttl": "1h", "allow_empty": draw(st.booleans())}
    return {
        "version": 1,
        "services": made,
        "guard": guard,
        "consul": draw(st.sampled_from([{}, {"datacenter": "dc2"}])),
    }


careful = st.sampled_from([(), (), ("--force",)])
steps = st.one_of(
    st.tuples(st.just("lists"), st.sampled_from(CONSUL_NAMES), st.sets(st.integers(1, 4)), st.sampled_from(["passing", "critical"])),
    st.tuples(st.just("breaks"), st.sampled_from(["", "leaderless", "denied"])),
    st.tuples(st.just("refuses"), st.sampled_from([None, "web", "db"]), st.sampled_from([422, 503])),
    st.tuples(st.sampled_from(["apply", "apply", "plan"]), documents(), careful),
    st.tuples(st.just("drain"), st.sampled_from(["web", "cache"]), st.sampled_from(["10.0.0.1:1", "n1/s1"])),
    st.tuples(st.just("weight"), st.sampled_from(["web", "cache"]), st.sampled_from(["10.0.0.2:1", "n1/s2"]), st.just("7")),
    st.just(("rollback", *BRIEFLY)),
)  # fmt: skip


async def play(script):
    """Play the steps in a world of their own."""
    with tempfile.TemporaryDirectory(prefix="lb-test-") as name:
        directory = Path(name)
        async with FakeConsul() as consul, both(directory) as ways:
            world = World(directory, consul, ways)
            for what, *drawn in script:
                if what in {"lists", "breaks", "refuses"}:
                    await world.around(what, *drawn)
                elif what in {"apply", "plan"}:
                    document, options = drawn
                    await world.offer(what, document, options if what == "plan" else (*options, *BRIEFLY))
                else:
                    await world.command((what, *drawn))


def found(datacenter=None, **consul):
    """Write an lb.yaml with one service that is found in Consul."""
    where = {"listen": "127.0.0.1:4000", "discover": {"consul": {"service": "redis", **consul}}}
    settings = {} if datacenter is None else {"datacenter": datacenter}
    guard = {"hold": "1h", "absent_ttl": "1h"}
    return {"version": 1, "services": {"web": where}, "guard": guard, "consul": settings}


def may_be_empty():
    """Write an lb.yaml with the same service, which may have no instance."""
    return {**found(), "guard": {"hold": "1h", "absent_ttl": "1h", "allow_empty": True}}


def lists(*numbers, name="redis"):
    """Let Consul list these."""
    return ("lists", name, set(numbers), "passing")


LISTED = {"listen": "127.0.0.1:4000", "backends": ["10.0.0.9:1"]}


def listed_and(**more):
    """Write an lb.yaml in which the service lists its backends, and others may be found in Consul."""
    guard = {"hold": "1h", "absent_ttl": "1h", "allow_empty": True}
    return {"version": 1, "services": {"web": LISTED, **more}, "guard": guard, "consul": {}}


FOUND = {"listen": "127.0.0.1:4001", "discover": {"consul": {"service": "redis"}}}


@example(
    [
        lists(1, 2),
        ("apply", found(), ()),
        ("apply", listed_and(), ()),
        ("breaks", "leaderless"),
        ("rollback", *BRIEFLY),
    ]
)
@example(
    [
        ("apply", listed_and(cache=FOUND), ("--force",)),
        (
            "apply",
            listed_and(
                cache={**LISTED, "listen": "127.0.0.1:4001"}, db={**FOUND, "listen": "127.0.0.1:4002"}
            ),
            (),
        ),
        ("breaks", "leaderless"),
        ("rollback", *BRIEFLY),
    ]
)
@example([lists(1), lists(2, 3, name="dc2/redis"), ("plan", found("dc2"), ()), ("apply", found("dc2"), ())])
@example(
    [
        lists(1, 2, 3, 4),
        ("apply", found(), ()),
        lists(1),
        ("plan", found(), ("--force",)),
        ("apply", found(), ()),
    ]
)
@example([lists(1, 2, 3, 4), ("apply", found(), ()), lists(1), ("apply", found(), ("--force",))])
@example([("apply", found(), ()), ("plan", may_be_empty(), ()), ("apply", may_be_empty(), ())])
@example(
    [("apply", found(), ()), ("apply", found(service="typo"), ("--force",)), lists(1), ("apply", found(), ())]
)
@example(
    [
        lists(1, 2),
        ("apply", found(), ()),
        ("drain", "web", "n1/s1"),
        ("breaks", "denied"),
        ("apply", found(), ()),
    ]
)
# A script is seconds long and is not made shorter: what fails is shown as it was drawn.
@pytest.mark.timeout(240)
@settings(
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    deadline=None,
    max_examples=25,
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(steps, min_size=1, max_size=6))
def test_random_commands(script):
    """For any documents, registries, faults and refusals both ways lead to the same."""
    asyncio.run(play(script))
