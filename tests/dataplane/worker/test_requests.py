"""What a supervisor asks of a worker, without either process."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dataplane.core.balance.sticky_table import StickyTable
from dataplane.core.spec import OperatorState
from dataplane.ipc.messages import Running, StagedChange, Welcome, WorkerSettings, dump, pack, pack_columns
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.ipc.takeover import take
from dataplane.node.slices import SLICE
from dataplane.node.specs import service_spec
from dataplane.node.sticky_tables import build_tables, tables_hash
from dataplane.telemetry.connection_log import RecordingOptions
from dataplane.telemetry.events import Events
from dataplane.telemetry.line_writer import LineSink
from dataplane.worker.requests import Requests
from schemas.snapshot import parse_snapshot

ADDRESS = "127.0.0.1:9"


@asynccontextmanager
async def begun():
    """A worker's side of all requests, for a block."""
    board = CounterBoard(4)
    log = LineSink(2)
    settings = WorkerSettings("x", Path(), RecordingOptions(), "json", affinity=False)
    welcome = Welcome(0, board.take_row(), board.rows, settings)
    events = Events(lambda _kind, **_fields: None, time.time)
    requests = Requests(welcome, os.dup(board.fd), events, log)
    assert requests.start() == os.getpid()
    try:
        yield requests
    finally:
        requests.leave(last=False)
        await requests.recording.close()
        requests.node.reactor.close()
        log.close()
        board.close()


def change(generation, *backends, listen=ADDRESS):
    """Return a change as it travels."""
    quiet = {"pool": {"mode": "off"}, "health": {"active": {"type": "none"}}}
    service = {"listen": listen, "backends": list(backends), **quiet}
    snapshot = parse_snapshot({"version": 1, "generation": generation, "services": {"s": service}})
    packed = pack(service_spec("s", snapshot.services["s"]))
    return StagedChange(generation, snapshot.hash, [packed], [], None)


async def asked(requests, kind, body=None, sockets=()):
    """Ask it; return the result and the parts."""
    parts = []
    return await requests.answer(kind, body, list(sockets), parts.append), parts


async def test_a_change_runs_when_it_is_committed():
    """Until then the worker says that it runs what it ran; what is abandoned never runs."""
    async with begun() as requests:
        await asked(requests, "stage", change(1, "127.0.0.1:1"))
        assert (await asked(requests, "report", {"each": True}))[0] == (0, "", 0)
        assert requests.node.running == {}
        await asked(requests, "commit", [])
        await asked(requests, "stage", change(2, "127.0.0.1:1", "127.0.0.1:2"))
        requests.notice("abandon", None)
        assert list(requests.node.running["s"].service.backends) == ["127.0.0.1:1"]
        (generation, _, clients), _ = await asked(requests, "report", {"each": True})
        assert (generation, clients) == (1, 0)


def services_of(*backends, listen=ADDRESS, **options):
    """Return a snapshot's hash, and the service as it is run."""
    quiet = {"pool": {"mode": "off"}, "health": {"active": {"type": "none"}}}
    service = {"listen": listen, "backends": list(backends), **quiet, **options}
    snapshot = parse_snapshot({"version": 1, "generation": 1, "services": {"s": service}})
    return snapshot.hash, service_spec("s", snapshot.services["s"])


async def test_a_difference_from_what_runs():
    """It is prepared if that runs here, an override included; what is left out stays, columns too."""
    async with begun() as requests:
        digest, spec = services_of("127.0.0.1:1", "127.0.0.1:2")
        first = change(1, "127.0.0.1:1", "127.0.0.1:2")._replace(columns=pack_columns({"s": 1}))
        assert (await asked(requests, "stage", first))[0] is True
        await asked(requests, "commit", [])
        await asked(requests, "stage_words", ("s", [("127.0.0.1:1", OperatorState.DRAIN, 3)], dump({})))
        await asked(requests, "commit_words")
        service = requests.node.running["s"].service
        before = Running(spec, {one.id: one.spec for one in service.backends.values()})
        _, wanted = services_of({"address": "127.0.0.1:2", "weight": 5})
        wanted = replace(wanted, backends=(before.backends["127.0.0.1:1"], *wanted.backends))
        packed = pack(wanted, before, loops={})
        assert (packed.options, packed.ids, len(packed.slices)) == (None, None, 1)
        for base, taken in [((1, "other"), False), ((1, digest), True)]:
            difference = StagedChange(2, "two", [packed], None, base)
            assert (await asked(requests, "stage", difference))[0] is taken
        await asked(requests, "commit", [])
        assert [(one.spec.state.value, one.spec.weight) for one in service.backends.values()] == [
            ("drain", 3),
            ("enabled", 5),
        ]
        assert (await asked(requests, "report", {"each": True}))[0][:2] == (2, "two")
        assert requests.node.columns == {"s": 1}


async def test_what_is_abandoned_leaves_the_columns():
    """Backends that are made later count where the others look."""
    async with begun() as requests:
        await asked(requests, "stage", change(1, "127.0.0.1:1")._replace(columns=pack_columns({"s": 1})))
        await asked(requests, "commit", [])
        await asked(requests, "stage", change(2, "127.0.0.1:2")._replace(columns=pack_columns({"s": 2})))
        assert requests.node.columns == {"s": 2}
        requests.notice("abandon", None)
        assert requests.node.columns == {"s": 1}


async def test_many_overrides_are_prepared_in_slices():
    """The loop has its turn after each."""
    async with begun() as requests:
        many = [{"id": f"b{number}", "address": "127.0.0.1:1"} for number in range(2 * SLICE)]
        await asked(requests, "stage", change(1, *many))
        await asked(requests, "commit", [])
        turns = []

        async def others():
            while True:
                turns.append(len(turns))
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        words = [(one["id"], OperatorState.ENABLED, 2) for one in many]
        await asked(requests, "stage_words", ("s", words, dump({})))
        assert len(turns) == 2
        task.cancel()


async def test_a_table_that_comes_is_not_built(monkeypatch):
    """Neither with a change nor with an override: the supervisor has built it."""
    async with begun() as requests:
        digest, spec = services_of("127.0.0.1:1", "127.0.0.1:2", mode="sticky")
        sent = await build_tables(spec.mode, spec.seed, spec.backends, {}, spec.seed)
        others = [spec.backends[0]._replace(weight=7), spec.backends[1]]
        other = await build_tables(spec.mode, spec.seed, others, {}, spec.seed)
        monkeypatch.setattr(StickyTable, "build", None)
        staged = StagedChange(1, digest, [pack(spec, tables=sent)], [], None)
        await asked(requests, "stage", staged)
        await asked(requests, "commit", [])
        running = requests.node.running["s"]
        assert tables_hash(running.tables) == tables_hash(sent)
        await asked(requests, "stage_words", ("s", [("127.0.0.1:1", OperatorState.ENABLED, 7)], dump(other)))
        await asked(requests, "commit_words")
        assert tables_hash(running.tables) == tables_hash(other)


async def test_sockets_come_and_go():
    """What is lent is accepted from, what is dropped is not, and at the end nothing is left here."""
    async with begun() as requests:
        await asked(requests, "stage", change(1, "127.0.0.1:1"))
        await asked(requests, "commit", [])
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            lent = [(ADDRESS, 0), (ADDRESS, 1)]
            await asked(requests, "listen", lent, [os.dup(one.fileno()), os.dup(other.fileno())])
            assert len(requests.node.listeners) == 2
            requests.notice("drop", [(ADDRESS, 1)])
            assert len(requests.node.listeners) == 1
            requests.leave(last=False)
            (left,) = requests.node.listeners.values()  # for its count
            assert left.sock.fileno() < 0


async def test_a_backend_is_overridden_and_judged():
    """What the supervisor says of it counts."""
    async with begun() as requests:
        await asked(requests, "stage", change(1, "127.0.0.1:1", "127.0.0.1:2"))
        await asked(requests, "commit", [])
        await asked(requests, "stage_words", ("s", [("127.0.0.1:1", OperatorState.DRAIN, 3)], dump({})))
        backend = requests.node.running["s"].service.backends["127.0.0.1:1"]
        assert (backend.spec.state.value, backend.spec.weight) == ("enabled", 1)
        await asked(requests, "commit_words")
        assert (backend.spec.state.value, backend.spec.weight) == ("drain", 3)
        requests.notice("judge", [("s", "127.0.0.1:2", "down", "refused", False, False)])
        explained, _ = await asked(requests, "explain", ("s", "192.0.2.1"))
        assert [one["id"] for one in explained["skipped"]] == ["127.0.0.1:1", "127.0.0.1:2"]


async def test_a_new_supervisor_has_the_sockets_of_an_orphan(tmp_path):
    """It accepts on, and hands clients to nobody; from the moment when the new one accepts, the worker does not."""
    path = tmp_path / "it.orphan"
    async with begun() as requests, asyncio.TaskGroup() as group:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            address = f"127.0.0.1:{sock.getsockname()[1]}"
            await asked(requests, "stage", change(1, "127.0.0.1:1", listen=address))
            await asked(requests, "commit", [])
            await asked(requests, "listen", [(address, 0)], [os.dup(sock.fileno())])
        serving = group.create_task(requests.serve_alone(path))
        while not path.exists():  # noqa: ASYNC110 - as soon as it listens, which takes some turns of the loop
            await asyncio.sleep(0)
        async with take(path) as taken:
            (listener,) = requests.node.listeners.values()
            assert (list(taken.sockets), listener.sock.fileno() >= 0) == ([address], True)
            await taken.confirm()
            taken.serve()
            await serving
            for one in taken.sockets[address]:
                one.close()
        assert listener.sock.fileno() < 0
        assert requests.node.siblings.apart


async def test_what_it_does_not_know():
    """Both ends are one version: it is a bug."""
    async with begun() as requests:
        with pytest.raises(AssertionError):
            await asked(requests, "sing")
