"""What every data plane is as a process, in this process: it serves, gives its name away, and has an end."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import pytest

from dataplane.api.credentials import CredentialFiles
from dataplane.api.server import api_path
from dataplane.core.phase import Phase
from dataplane.errors import Refused
from dataplane.ipc.takeover import giver_path, take
from dataplane.node.initial import state_of
from dataplane.options import Options
from dataplane.process import Process
from dataplane.single import Single
from dataplane.telemetry.connection_log import RecordingOptions
from dataplane.telemetry.line_writer import LineSink
from schemas.system.unix_socket import OwnSocket


@pytest.fixture
def options(tmp_path):
    """A data plane that is told nothing, in a folder of its own."""
    return Options(
        name="x",
        workers=1,
        takeover=False,
        cpu_affinity=False,
        runtime_dir=tmp_path / "run",
        state_dir=tmp_path / "state",
        reuse_port=False,
        config=None,
        log_format="json",
        recording=RecordingOptions(),
        api=None,
        metrics=None,
        credentials=CredentialFiles(None, None, None, None),
    )


class Living:
    """One that serves."""

    def __init__(self, options, log, group):
        self.own = OwnSocket(api_path(options.runtime_dir, options.name))
        self.own.acquire()
        self.process = Process(options, log, self.own, group)
        self.role = Single(self.process)
        self.giver = giver_path(options.runtime_dir, options.name)
        self.told = []
        emit = self.process.events._log
        self.process.events._log = lambda kind, **fields: (self.told.append(kind), emit(kind, **fields))
        self.running = group.create_task(self.process.run(self.role))

    async def until(self, holds):
        """Let the loop turn until `holds()`."""
        while not holds() and not self.running.done():  # noqa: ASYNC110 - it takes only some turns of the loop
            await asyncio.sleep(0)

    def stop(self):
        """Do as a signal does."""
        self.process.stop(signal.SIGTERM)


@asynccontextmanager
async def living(options):
    """Have one that serves; it has ended after the block."""
    log = LineSink(2)
    async with asyncio.TaskGroup() as group:
        one = Living(options, log, group)
        await one.until(lambda: "started" in one.told and one.giver.exists())
        yield one
        await asyncio.wait([one.running])
    log.close()


async def test_it_serves_until_it_is_told_to_end(options):
    """Then it has given its name away, and leaves nothing behind."""
    async with living(options) as one:
        assert one.process.life.phase is Phase.SERVING
        assert one.own.path.exists()
        one.stop()
        assert one.process.life.phase is Phase.DRAINING
        assert one.process._endpoints._plane.report.not_ready() == "the process is ending"
    assert one.told[-3:] == ["stopping", "draining", "stopped"]
    assert one.process.life.phase is Phase.ENDED
    assert [path.suffix for path in options.runtime_dir.iterdir() if path.suffix == ".sock"] == []


async def test_another_process_takes_over(options):
    """Whoever has the sockets may have the name; this one changes nothing any more, and ends."""
    async with living(options) as one, take(one.giver) as taken:
        await taken.confirm()
        assert one.process.life.phase is Phase.RELEASED
        assert one.role.applier.refusal.code == "handed_over"
        OwnSocket(one.own.path).acquire()
        taken.serve()
    assert "stopping" not in one.told
    assert one.told[-1] == "stopped"


@pytest.mark.parametrize("taken", [True, False])
async def test_nothing_changes_while_somebody_takes_over(options, taken):
    """What runs is locked from the offer on; afterwards changes are refused, or go on if nobody took over."""
    async with living(options) as one:
        applier = one.role.applier
        assert await one.process.offer() == (state_of(applier), [])
        change = asyncio.create_task(applier.apply({"version": 1, "generation": 1, "services": {}}))
        await asyncio.sleep(0)
        assert not change.done()
        if taken:
            await one.process.release()
            with pytest.raises(Refused, match="another process has taken over"):
                await change
            one.running.cancel()
        else:
            one.process.keep("it died")
            await change
            assert one.told[-3:] == ["takeover_begins", "takeover_failed", "applied"]
            one.stop()


async def test_told_to_end_while_another_process_takes_over(options):
    """It ends: nobody waits for a process that has not said yet that it accepts."""

    async def stopped_meanwhile(one):
        async with take(one.giver) as taken:
            one.stop()
            await asyncio.wait([one.running])
            await taken.gone.wait()
            raise ValueError("given up")

    async with living(options) as one:
        with pytest.raises(ValueError, match="given up"):
            await stopped_meanwhile(one)
        assert one.told[-1] == "stopped"


async def test_a_second_signal(options, monkeypatch):
    """It ends at once, and leaves no socket."""
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    async with living(options) as one:
        one.stop()
        one.stop()
        assert (ended, one.told[-2:]) == ([1], ["stopping", "stopping_now"])
        one.running.cancel()
