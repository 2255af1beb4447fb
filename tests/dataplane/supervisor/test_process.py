"""What signals mean to a supervisor; the rest of it is tested where it is done."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from dataplane.background import Background
from dataplane.core.phase import Life, Turn
from dataplane.errors import Refused
from dataplane.net.reactor import Reactor
from dataplane.node.snapshot_file import SnapshotStore
from dataplane.supervisor.process import Supervision
from dataplane.telemetry.connection_log import RecordingOptions
from dataplane.telemetry.events import Events
from tests.support.discovery import eventually


@pytest.fixture
async def process(tmp_path):
    """As much of a process as a supervisor needs before it begins."""
    options = SimpleNamespace(
        name="x",
        workers=2,
        config=None,
        runtime_dir=Path(tmp_path),
        recording=RecordingOptions(),
        log_format="json",
        cpu_affinity=False,
    )
    told = []
    async with asyncio.TaskGroup() as group:
        process = SimpleNamespace(
            options=options,
            group=group,
            background=Background(group),
            events=Events(lambda kind, **_: told.append(kind), lambda: 0.0),
            reactor=Reactor(asyncio.get_running_loop(), 1024),
            store=SnapshotStore(tmp_path, "x", Events(lambda *_, **__: None, lambda: 0.0)),
            life=Life(),
            log=SimpleNamespace(dropped=0, close=lambda: told.append("closed")),
            told=told,
        )
        process.role = Supervision(process)
        yield process
        await process.role.close()
        process.role._board.close()
        process.reactor.close()


async def test_hanging_up_replaces_the_workers(process):
    """Not while it starts; and once it leaves, that is refused quietly."""
    process.role.hang_up()
    assert process.told == ["restart_refused"]
    process.life.turn(Turn.SERVE, 1.0)
    process.role.applier.refusal = Refused(503, "stopping", "the process is ending")
    process.role.hang_up()
    process.role.hang_up()
    assert process.told == ["restart_refused", "restart_refused"]
    for _ in range(9):
        await asyncio.sleep(0)
    process.role.hang_up()
    assert process.told == ["restart_refused", "restart_refused"]


async def test_without_its_keeper_it_dies_as_that_one_did(process, monkeypatch):
    """Its workers serve until the next process has their sockets; once it leaves, it only drains on."""
    exits = []
    monkeypatch.setattr(os, "_exit", exits.append)
    process.role.lose_keeper()
    assert (exits, process.told) == ([1], ["closed"])
    process.life.turn(Turn.STOP, 1.0)
    process.role.lose_keeper()
    assert exits == [1]


async def test_a_process_that_leaves_changes_nothing(process):
    """It says who does."""
    process.role.applier.refusal = Refused(503, "handed_over", "another process")
    for call in (process.role.restart(), process.role.resize(1)):
        with pytest.raises(Refused, match="another process"):
            await call
    assert process.told == []


async def test_it_has_no_connection_of_its_own(process):
    """What is told at the end is what the workers count."""
    assert process.role.connections() == 0
    assert process.role.sockets() == []


async def test_hanging_up_reads_the_configuration_first(process, tmp_path):
    """What cannot be run is told."""
    config = process.options.config = tmp_path / "lb.yaml"
    config.write_text(
        '{version: 1, services: {web: {listen: "unix:/x", backends: ["127.0.0.1:1"], mode: none}}}'
    )
    process.life.turn(Turn.SERVE, 1.0)
    process.role.applier.refusal = Refused(503, "stopping", "the process is ending")
    process.role.hang_up()
    await eventually(lambda: process.told == ["apply_refused"], lambda: str(process.told))


async def test_what_a_change_costs_is_not_left_to_the_collector(process, monkeypatch):
    """A full collection takes longer than a change of 10,000 backends: it is tuned before the first one."""
    done = []
    monkeypatch.setattr("dataplane.supervisor.process.tune_collector", lambda: done.append("tuned"))
    monkeypatch.setattr(process.role, "_begin_anew", lambda _: done.append("begun") or asyncio.sleep(0))
    process.options.takeover = False
    await process.role.begin(None)
    assert done == ["tuned", "begun"]
