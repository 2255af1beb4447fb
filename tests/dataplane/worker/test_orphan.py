"""A worker whose supervisor has died."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from types import SimpleNamespace

import pytest

from dataplane.ipc.takeover import take
from dataplane.telemetry.events import Events
from dataplane.telemetry.line_writer import LineSink
from dataplane.worker import orphan as module
from dataplane.worker.orphan import Orphan, event_writer


class Accepting:
    """A worker's node, with one listening socket."""

    def __init__(self):
        sock = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{sock.getsockname()[1]}"
        self.listeners = {self.address: SimpleNamespace(address=self.address, sock=sock)}
        self.siblings = self
        self.parted = False

    def part(self):
        """Hand clients to nobody any more."""
        self.parted = True

    def leave_all(self):
        """Stop accepting."""
        for listener in self.listeners.values():
            listener.sock.close()
        self.listeners.clear()


@pytest.fixture
def node():
    """What accepts."""
    node = Accepting()
    yield node
    node.leave_all()


async def test_nobody_asks(node, tmp_path, monkeypatch):
    """It accepts for a while, and returns with its sockets."""
    monkeypatch.setattr(module, "ORPHAN_S", 0.0)
    told = []
    events = Events(lambda kind, **_: told.append(kind), time.time)
    await Orphan(node, node, events).serve(tmp_path / "it.orphan")
    assert (told, node.parted, list(node.listeners)) == (["orphaned"], True, [node.address])


async def test_a_new_supervisor_has_its_sockets(node, tmp_path):
    """From the moment when that one accepts, the worker does not."""
    events = Events(lambda _kind, **_: None, time.time)
    path = tmp_path / "it.orphan"
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(Orphan(node, node, events).serve(path))
        while not path.exists():  # noqa: ASYNC110 - as soon as it listens, which takes some turns of the loop
            await asyncio.sleep(0)
        async with take(path) as taken:
            assert (list(taken.sockets), bool(node.listeners)) == ([node.address], True)
            await taken.confirm()
            taken.serve()
            await serving
            for sock in taken.sockets[node.address]:
                sock.close()
    assert not node.listeners


def test_what_it_logs_by_itself():
    """A line of JSON, as its supervisor would have written it, with what it is."""
    read, write = os.pipe()
    log = LineSink(write)
    event_writer(log, "json")("orphaned", worker=1)
    log.close()
    os.close(write)
    with os.fdopen(read, "rb") as lines:
        line = json.loads(lines.read())
    assert (line["event"], line["worker"], line["level"]) == ("orphaned", 1, "warning")
