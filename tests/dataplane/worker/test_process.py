"""A worker's life, with a supervisor that is the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager

from dataplane.core.phase import Phase
from dataplane.ipc.channel import Channel
from dataplane.ipc.messages import StagedChange, Welcome, WorkerSettings
from dataplane.ipc.shared_counters import CounterBoard
from dataplane.telemetry.connection_log import RecordingOptions
from dataplane.telemetry.line_writer import LineSink
from dataplane.worker import requests
from dataplane.worker.process import Worker, _event_writer


class Supervisor:
    """The other end of a worker's channel."""

    def __init__(self, sock, runtime_dir):
        self.channel = Channel(sock, notice=self.notice)
        self.board = CounterBoard(4)
        settings = WorkerSettings("x", runtime_dir, RecordingOptions(), "json", affinity=False)
        self.hello = Welcome(0, self.board.take_row(), self.board.rows, settings)
        self.noticed = []

    def notice(self, kind, body):
        """Note what the worker tells."""
        self.noticed.append((kind, body))

    async def welcome(self):
        """Have the worker begin."""
        pid, _ = await self.channel.request("welcome", self.hello, [self.board.fd])
        assert pid == os.getpid()
        await self.channel.request("stage", StagedChange(1, "hash", [], [], None))
        await self.channel.request("commit", [])


@asynccontextmanager
async def working(tmp_path):
    """A worker that lives in this process; it has ended after the block."""
    ours, theirs = socket.socketpair()
    supervisor, worker = Supervisor(ours, tmp_path), Worker(theirs)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(worker.run())
        group.create_task(supervisor.channel.run())
        yield supervisor, worker
        await running
        supervisor.channel.close()
    supervisor.board.close()
    assert worker._life.phase is Phase.ENDED


async def test_it_drains_when_it_is_told_to(tmp_path):
    """Its last word has its numbers."""
    async with working(tmp_path) as (supervisor, worker):
        await supervisor.welcome()
        assert worker._life.phase is Phase.SERVING
        await supervisor.channel.request("drain", True)
        assert worker._life.phase is Phase.DRAINING
        await supervisor.channel.closed.wait()
    assert [kind for kind, _ in supervisor.noticed] == ["farewell"]


async def test_it_ends_with_a_supervisor_that_never_said_welcome(tmp_path):
    """It has nothing to serve, and nothing to write to."""
    async with working(tmp_path) as (supervisor, worker):
        worker.notice("reopen", None)
        await asyncio.sleep(0)
        supervisor.channel.close()


async def test_it_is_told_to_end_before_it_has_begun(tmp_path):
    """It ends, and its supervisor learns that."""
    async with working(tmp_path) as (supervisor, worker):
        worker._on_terminate()
        await supervisor.channel.closed.wait()
        assert [body[0] for _, body in supervisor.noticed] == ["worker_terminated"]


async def test_a_signal_asks_for_a_successor(tmp_path):
    """The first time it serves on; the second time it drains."""
    async with working(tmp_path) as (supervisor, worker):
        await supervisor.welcome()
        os.kill(os.getpid(), signal.SIGTERM)
        while not supervisor.noticed:  # noqa: ASYNC110 - it takes only some turns of the loop
            await asyncio.sleep(0)
        assert (supervisor.noticed[0][1][0], worker._life.phase) == ("worker_terminated", Phase.SERVING)
        worker._on_terminate()
        assert worker._life.phase is Phase.DRAINING


async def test_an_orphan_accepts_for_a_while(tmp_path, monkeypatch, capfd):
    """Then it drains; it has said so itself."""
    monkeypatch.setattr(requests, "ORPHAN_S", 0.0)
    async with working(tmp_path) as (supervisor, _):
        await supervisor.welcome()
        supervisor.channel.close()
    assert '"orphaned"' in capfd.readouterr().err


def test_what_it_logs_by_itself(monkeypatch):
    """A line of JSON, as its supervisor would have written it, where what writes for people cannot be loaded."""
    monkeypatch.setitem(sys.modules, "dataplane.telemetry.text_log", None)
    read, write = os.pipe()
    log = LineSink(write)
    _event_writer(log, "text")("orphaned", worker=1)
    log.close()
    os.close(write)
    with os.fdopen(read, "rb") as lines:
        line = json.loads(lines.read())
    assert (line["event"], line["worker"], line["level"]) == ("orphaned", 1, "warning")
