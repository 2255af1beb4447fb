"""Who is there, and what all of them are asked or told."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from dataplane.errors import PeerError, PeerGone
from dataplane.ipc.channel import Channel
from dataplane.supervisor import workers as members
from dataplane.supervisor.workers import WorkerProcess
from tests.dataplane.supervisor.fleet import fleet


async def test_who_dies_is_left_out_of_the_answers():
    """An answer of the others is one; an error of one is everybody's."""
    async with fleet(3) as site:
        site.fails[1, "report"] = PeerGone()
        assert [worker.index for worker, _, _ in await site.workers.ask_all("report")] == [0, 2]
        site.fails[2, "report"] = PeerError("no")
        with pytest.raises(PeerError):
            await site.workers.ask_all("report")


async def test_those_that_drain_are_asked_too():
    """What they count is part of the sum; what is changed is not for them."""
    async with fleet(1) as site:
        await site.succession.bring_up(0)
        assert len(await site.workers.ask_all("report", former=True)) == 2
        assert len(await site.workers.ask_all("report")) == 1
        site.noted.clear()
        site.workers.tell_all("arm")
        site.workers.reopen()
        assert [kind for _, kind, _ in site.noted] == ["arm", "reopen", "reopen"]


async def test_the_last_one():
    """Waiting ends with it, and not before."""
    async with fleet(2) as site:
        site.lending.stopped = True
        site.workers.kill_all()
        await site.workers.wait_empty()
        assert [kind for _, kind in site.told] == ["ended", "ended"]


class Process:
    """As much of a process as is needed to end it."""

    def __init__(self) -> None:
        self.killed = asyncio.Event()

    def kill(self) -> None:
        """Note it."""
        self.killed.set()


class Answering:
    """A worker's end of the channel."""

    def __init__(self, error: Exception | None = None, *, hangs: bool = False) -> None:
        self._error = error
        self._hangs = hangs
        self.asked: list[tuple[str, Any]] = []

    async def answer(self, kind: str, body: Any, sockets: list[int], part: Any) -> None:
        """Do as told."""
        self.asked.append((kind, body))
        if self._hangs:
            await asyncio.Event().wait()
        if self._error is not None:
            raise self._error

    def notice(self, kind: str, body: Any) -> None:
        """Take no note."""


async def parted(worker: Answering) -> WorkerProcess:
    """Have a worker part, and return it."""
    ours, theirs = socket.socketpair()
    heard: list[str] = []
    member = WorkerProcess(0, 0, lambda _member, kind, _fields: heard.append(kind))
    member.process = Process()  # type: ignore[assignment] # as much of one as is needed
    async with asyncio.TaskGroup() as group:
        member.channel, other = Channel(ours), Channel(theirs, worker.answer)
        running = [group.create_task(channel.run()) for channel in (member.channel, other)]
        await member.part(last=True)
        for task in running:
            task.cancel()
    return member


async def test_who_lets_go_is_left_alone() -> None:
    """Its answer says that it holds no listening socket any more."""
    worker = Answering()
    member = await parted(worker)
    assert worker.asked == [("drain", True)]
    assert not member.process.killed.is_set()  # type: ignore[attr-defined] # it is the class above


@pytest.mark.parametrize(
    "worker", [Answering(hangs=True), Answering(ValueError("x"))], ids=["hangs", "fails"]
)
async def test_who_does_not_let_go_is_ended(worker: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would hold a port open for ever that it does not accept from."""
    monkeypatch.setattr(members, "ANSWER_S", 0.05)
    member = await parted(worker)
    assert member.process.killed.is_set()  # type: ignore[attr-defined] # it is the class above
