"""How a supervisor begins with the listening sockets of others; each failure leaves everything to them."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import pytest

from dataplane.core.phase import Life, Phase, Turn
from dataplane.errors import Refused, StartError
from dataplane.ipc.takeover import Giver, giver_path
from dataplane.supervisor.takeover import Successor
from dataplane.telemetry.events import Events


class Gives:
    """The process that runs (dataplane.ipc.takeover.Holder)."""

    def __init__(self, address, sock, listen):
        services = {"s": {"listen": listen, "backends": ["127.0.0.1:1"]}} if listen else {}
        snapshot = {"version": 1, "generation": 3, "services": services}
        self._offer = {"snapshot": snapshot, "overrides": [], "verdicts": []}, [(address, sock)]
        self.kept = asyncio.Event()
        self.released = False

    async def offer(self):
        """Offer it."""
        return self._offer

    def keep(self, cause):
        """Go on."""
        self.kept.set()

    async def release(self):
        """Leave."""
        self.released = True


class Takes:
    """As much of a supervisor as takes over: what it is asked to run, and what it inherits."""

    def __init__(self, tmp_path):
        self.told = []
        self.life = Life()
        self.options = SimpleNamespace(runtime_dir=tmp_path, name="x", config=None)
        self.events = Events(lambda kind, **_: self.told.append(kind), time.time)
        self.inherited = {}
        self.new = self
        self.on_start = lambda: None
        self.ran = []
        self.store = SimpleNamespace(owe=lambda snapshot: None)
        self.node = SimpleNamespace(reactor=SimpleNamespace(clock=lambda: 0.0), running={})
        self.successor = Successor(self, self, self, self)

    async def restore(self, snapshot):
        """Run it."""
        self.ran.append(snapshot.generation)

    async def start(self):
        """Start workers."""
        self.on_start()

    async def listen(self, *, relays):
        """Let callers of the API in."""

    def inherit(self, sockets):
        """Take sockets."""
        self.inherited.update(sockets)

    def close(self):
        """Close what was taken."""
        for sock in [sock for group in self.inherited.values() for sock in group]:
            sock.close()


@asynccontextmanager
async def giving(path, listen="same"):
    """Have a process that gives its one socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        holder = Gives(address, sock, address if listen == "same" else listen)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(Giver(path, holder, Events(lambda *_, **__: None, time.time)).run())
            while not path.exists():  # noqa: ASYNC110 - it takes only some turns of the loop
                await asyncio.sleep(0)
            yield holder
            task.cancel()


async def refused(taker):
    """Take over, which fails; return why."""
    with pytest.raises(StartError) as error:
        await taker.successor.take_over(taker)
    taker.close()
    return str(error.value)


def fail(error):
    """Raise it."""
    raise error


async def test_sockets_and_snapshot_have_to_agree(tmp_path):
    """Else an address would be served by nobody; the process that runs goes on."""
    taker = Takes(tmp_path)
    async with giving(giver_path(tmp_path, "x"), "127.0.0.1:2") as holder:
        assert "do not agree on 127.0.0.1:" in await refused(taker)
        await holder.kept.wait()
        assert not holder.released


async def test_who_is_told_to_end_takes_nothing_over(tmp_path):
    """The process that runs serves."""
    taker = Takes(tmp_path)
    taker.on_start = lambda: taker.life.turn(Turn.STOP, 1.0)
    async with giving(giver_path(tmp_path, "x")) as holder:
        assert await refused(taker) == "--takeover: this process was told to end"
        await holder.kept.wait()
    assert (taker.ran, taker.life.phase) == ([3], Phase.DRAINING)


async def test_what_cannot_be_run_here_goes_on_there(tmp_path):
    """It is said why."""
    taker = Takes(tmp_path)
    taker.on_start = lambda: fail(Refused(503, "bind_failed", "no"))
    async with giving(giver_path(tmp_path, "x")) as holder:
        assert await refused(taker) == "--takeover: what runs cannot be run here: no"
        await holder.kept.wait()


async def test_nobody_is_there(tmp_path):
    """Then there is nothing to take over."""
    assert "nothing to take over" in await refused(Takes(tmp_path))


async def test_orphans_give_and_the_dead_are_forgotten(tmp_path):
    """A worker whose supervisor was killed gives its sockets; one that is dead, too, leaves only a path."""
    taker = Takes(tmp_path)
    dead = giver_path(tmp_path, "x", 1)
    dead.touch()
    async with giving(giver_path(tmp_path, "x", 2)) as holder, AsyncExitStack() as stack:
        (taken,) = await taker.successor.take_from_orphans(stack)
        assert len(taker.inherited) == 1
        await taken.confirm()
        taken.serve()
        assert holder.released
    assert (taker.told, dead.exists()) == (["orphan_gives_nothing"], False)
    taker.close()
