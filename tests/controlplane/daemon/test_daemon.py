"""The daemon as a whole, in this process: what it takes up, tells and serves, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from aiohttp import ClientSession, UnixConnector, web

from controlplane.daemon.daemon import Daemon, DaemonSettings, run
from controlplane.daemon.http import bound
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.dataplanes.tls import Tls
from controlplane.desired.location import FileSource
from controlplane.errors import BusyError, ControlError, StoreError
from controlplane.operations.options import ApplyOptions, Origin
from controlplane.store import Store
from tests.controlplane.operations.test_controller import document, proposal
from tests.support.discovery import eventually

BY = Origin("op", "apply")
QUICK = ApplyOptions(timeout_s=5.0)


class Lines(list):
    """Stands for the log."""

    trouble = None

    def __call__(self, message, **more):
        """Keep a line."""
        self.append(message)


def settings(directory, **more):
    """Tell a daemon about a machine without data planes."""
    told = {
        "home": None,
        "runtime_dir": directory / "run",
        "state_dir": directory / "state",
        "find": tuple,
        "find_draining": tuple,
        "token": None,
        "tls": Tls(),
    }
    return DaemonSettings(**{**told, **more})


@pytest.fixture
def directory(tmp_path_factory):
    """A short one: sockets are below it."""
    return tmp_path_factory.mktemp("d")


@contextlib.asynccontextmanager
async def running(given):
    """Run a daemon until SIGTERM; yields it, and a way to ask it."""
    path = given.runtime_dir / "control.sock"
    with bound(path) as listener:
        log = Lines()
        one = Daemon(given, Store(given.state_dir), log)
        async with asyncio.TaskGroup() as group, ClientSession(connector=UnixConnector(str(path))) as session:
            task = group.create_task(one.run(listener))

            async def ask(what):
                async with session.get(f"http://localhost/v1/{what}") as response:
                    return await response.json()

            await eventually(lambda: "ready" in log or task.done(), "it to be ready")
            yield one, ask
            os.kill(os.getpid(), signal.SIGTERM)


def source(status, name):
    """Return the state and the words of a source in a status; None: it has no row."""
    found = [each for each in status["sources"] if each["name"] == name]
    return (found[0]["state"], found[0]["last_error"]) if found else None


async def test_it_serves_until_a_signal(directory):
    """Nothing is left that runs, and nobody has to come to an end by himself: an event stream ends, too."""
    before = asyncio.all_tasks()
    async with running(settings(directory)) as (one, ask):
        assert (await ask("status"))["dataplanes"] == []
        follower = one.events.follow(60.0)
        first = asyncio.ensure_future(anext(follower, None))
        await asyncio.sleep(0)
    assert await first is None
    assert asyncio.all_tasks() == before


async def test_the_file_is_taken_and_again_at_sighup(directory):
    """It is a source; what is wrong with it is the status's first word."""
    file = directory / "lb.yaml"
    file.write_text(json.dumps(document()))
    async with running(settings(directory, home=FileSource(file))) as (one, ask):
        await eventually(lambda: one.controller.accepted.state.generation == 1, "the file to be taken")
        assert source(await ask("status"), f"file {file}") == ("ok", None)
        file.unlink()
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: one.file.config_error, "the file to be missed")
        status = await ask("status")
        assert status["config_error"]["path"] == str(file)
        assert source(status, f"file {file}")[0] == "error"


async def test_sighup_without_a_file_ends_nothing(directory):
    """There is nothing to read again."""
    async with running(settings(directory)) as (_, ask):
        os.kill(os.getpid(), signal.SIGHUP)
        assert (await ask("status"))["config_error"] is None


async def test_what_was_accepted_before_is_taken_up(directory):
    """A daemon that was killed goes on with what it had written down."""
    for generation in (1, 2):
        async with running(settings(directory)) as (one, ask):
            assert (await ask("snapshot"))["generation"] == generation - 1
            await one.controller.apply(proposal(generation), QUICK, BY)


async def test_events_have_a_time_and_an_id_of_their_own(directory):
    """Those that say only that data planes are worth a look are not remembered for who comes later."""
    async with running(settings(directory)) as (one, _):
        await one.controller.apply(proposal(1), QUICK, BY)
        one._happened({"type": "dataplanes"})
        await one.controller.apply(proposal(2), QUICK, BY)
        told = []
        async for event in one.events.follow(60.0, remembered=True):
            told.append(event)
            if len(told) == 2:
                break
    assert [(each["type"], each["generation"]) for each in told] == [("generation", 1), ("generation", 2)]
    assert all(each["at"].endswith("Z") for each in told)
    first, second = (each["id"].rpartition("-") for each in told)
    assert first[0] == second[0]
    assert int(first[2]) < int(second[2])


@contextlib.asynccontextmanager
async def telling(path):
    """Serve the events of a data plane that can do nothing else; yields how many are followed now."""
    followers = []

    async def events(request):
        response = web.StreamResponse()
        await response.prepare(request)
        followers.append(request)
        try:
            await response.write(b'id: aa-1\nevent: backend_up\ndata: {"at": "x", "backend": "b"}\n\n')
            await asyncio.Event().wait()
        finally:
            followers.remove(request)

    app = web.Application()
    app.router.add_get("/v1/events", events)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        yield followers
    finally:
        await runner.cleanup()


async def test_data_planes_are_followed_while_they_are_there(directory):
    """What happens there is told as it is, with its name; and who has gone is let go."""
    path = directory / "dataplane-a.sock"
    there = [Endpoint("a", str(path))]
    async with (
        telling(path) as followers,
        running(settings(directory, find=lambda: tuple(there))) as (one, _),
    ):
        await eventually(lambda: followers, "somebody to follow")
        async for event in one.events.follow(60.0, remembered=True):
            if event["type"] == "backend_up":
                break
        assert event == {"at": "x", "backend": "b", "id": "aa-1", "type": "backend_up", "dataplane": "a"}
        there.clear()
        await eventually(lambda: not followers, "it to be let go")


async def test_what_is_out_of_order_is_a_source(directory):
    """Each with its words, only for as long as it is: what was lost, and files that are read again."""
    broken = SimpleNamespace(trouble="cannot be read")
    async with running(settings(directory)) as (one, ask):
        status = await ask("status")
        names = ["history", "overrides", "log", "certificates", "token", "http token"]
        assert [source(status, name) for name in names] == [None] * 6
        one.controller.accepted.keeping.error = "no room"
        one.controller.accepted.lost = "overrides are unknown"
        one.log.trouble = "2 lines are lost"
        object.__setattr__(one.settings, "token", broken)
        object.__setattr__(one.settings, "http_token", broken)
        object.__setattr__(one.settings, "tls", broken)
        status = await ask("status")
    assert [source(status, name) for name in names] == [
        ("error", "no room"),
        ("error", "overrides are unknown"),
        ("error", "2 lines are lost"),
        ("error", "cannot be read"),
        ("error", "cannot be read"),
        ("error", "cannot be read"),
    ]


async def test_metrics_say_what_the_status_says(directory):
    """Of the same moment."""
    async with running(settings(directory)) as (one, _):
        await one.controller.apply(proposal(), QUICK, BY)
        assert b"\nlb_control_generation 1.0\n" in await one.metrics()


async def test_a_page_is_served_where_it_is_asked_for(directory):
    """Its address is logged."""
    async with running(settings(directory, http="127.0.0.1:0")) as (one, _), ClientSession() as session:
        (said,) = [line for line in one.log if line.startswith("dashboard at ")]
        async with session.get(f"{said.removeprefix('dashboard at ')}v1/status") as response:
            assert (response.status, (await response.json())["generation"]) == (200, 0)


def logged(capfd):
    """Return what `run` has logged."""
    return [json.loads(line) for line in capfd.readouterr().err.splitlines()]


def test_a_bug_in_what_decides_ends_it_and_is_told(directory, monkeypatch, capfd):
    """As a line of the log, with the traceback, and exit code 1; the socket is gone."""

    def broken(_fleet):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("controlplane.dataplanes.fleet.Fleet._look", broken)
    with pytest.raises(SystemExit) as caught:
        run(settings(directory))
    assert caught.value.code == 1
    (bug,) = [line for line in logged(capfd) if "a bug of ours" in line["event"]]
    assert bug["event"] == "a bug of ours: the daemon ends; data planes go on"
    assert "ZeroDivisionError: of ours" in bug["traceback"]
    assert not (directory / "run" / "control.sock").exists()


class Hand:
    """A home that ends the daemon, with what its status would say."""

    word, name, place, folder = "key", "x", "x", Path()
    ends = None

    async def run(self, on_content, _):
        """End it."""
        raise self.ends or ControlError(on_content.__self__._controller.accepted.keeping.error)


def test_what_an_operator_has_to_see_is_raised_as_it_is(directory):
    """Whatever groups of tasks it has come through."""
    home = Hand()
    home.ends = ControlError("this cannot be watched")
    with pytest.raises(ControlError, match="this cannot be watched") as caught:
        run(settings(directory, home=home))
    assert type(caught.value) is ControlError


def unwritable(_store):
    """Be no writer."""
    raise StoreError("the disk is full")


def test_a_directory_that_cannot_be_written_stops_nobody(directory, monkeypatch, capfd):
    """It is logged, and shown; but a second writer is refused."""
    told = settings(directory, home=Hand())
    with monkeypatch.context() as patched:
        patched.setattr(Store, "writer", unwritable)
        with pytest.raises(ControlError, match="nothing will be written down: the disk is full"):
            run(told)
    assert logged(capfd)[0]["event"] == "nothing will be written down: the disk is full"
    with Store(directory / "state").writer(), pytest.raises(BusyError):
        run(told)
