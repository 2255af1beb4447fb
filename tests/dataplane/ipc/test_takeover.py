"""Sockets go from one process to its successor, or stay where they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from dataplane.errors import TakeoverError
from dataplane.ipc.takeover import Giver, Offer, Taken, giver_path, orphans, take
from dataplane.telemetry.events import Events
from tests.support.wait import DEADLINE_S


class Holder:
    """Offers what it is told to."""

    def __init__(self, address: str, sock: socket.socket) -> None:
        self._offer = {"generation": 7}, [(address, sock)]
        self.words: list[str] = []
        self.said = asyncio.Event()

    async def offer(self) -> Offer:
        """Offer."""
        self.words.append("offer")
        return self._offer

    def keep(self, cause: str) -> None:
        """Note it."""
        self.words.append(f"keep: {cause}")
        self.said.set()

    async def release(self) -> None:
        """Note it."""
        self.words.append("release")


@contextlib.asynccontextmanager
async def giving(path: Path, holder: Holder, events: Events | None = None):
    """Run a giver."""
    task = asyncio.create_task(Giver(path, holder, events or Events(lambda *_, **__: None, time.time)).run())
    while not path.exists():  # noqa: ASYNC110, ASYNC240 - the giver has no word for it
        await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def listener():
    """One listening socket and its address."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock, f"127.0.0.1:{sock.getsockname()[1]}"


async def test_a_confirmed_handover_ends_the_giver(tmp_path: Path, listener) -> None:
    """The taker gets state and sockets; the giver releases when it confirms, and is done when it serves."""
    sock, address = listener
    holder = Holder(address, sock)
    async with giving(tmp_path / "h", holder) as giver, take(tmp_path / "h") as taken:
        assert (taken.state, list(taken.sockets)) == ({"generation": 7}, [address])
        copy = taken.sockets[address][0]
        assert copy.getsockname() == sock.getsockname()
        assert holder.words == ["offer"]
        await taken.confirm()
        assert holder.words == ["offer", "release"]
        assert not giver.done()
        taken.serve()
        await asyncio.wait_for(giver, DEADLINE_S)
        copy.close()
    assert not (tmp_path / "h").exists()


async def test_a_giver_that_has_stopped_waiting_has_not_released(tmp_path: Path, listener) -> None:
    """Who confirms too late learns that the giver goes on, and does not wait for it."""
    sock, address = listener
    holder = Holder(address, sock)
    async with giving(tmp_path / "h", holder) as giver, take(tmp_path / "h") as taken:
        giver.cancel()
        await asyncio.wait({giver}, timeout=DEADLINE_S)
        await taken.confirm()
        assert taken.not_released
        for copy in taken.sockets[address]:
            copy.close()
    assert "release" not in holder.words


async def _take_and_fail(path: Path) -> None:
    async with take(path):
        raise RuntimeError("no memory")


async def test_a_taker_that_fails_changes_nothing(tmp_path: Path, listener) -> None:
    """The giver keeps everything, knows why, and gives to the next one."""
    sock, address = listener
    holder = Holder(address, sock)
    async with giving(tmp_path / "h", holder) as giver:
        with pytest.raises(RuntimeError, match="no memory"):
            await _take_and_fail(tmp_path / "h")
        await asyncio.wait_for(holder.said.wait(), DEADLINE_S)
        assert holder.words[0] == "offer"
        assert holder.words[1].startswith("keep: ")
        async with take(tmp_path / "h") as taken:
            await taken.confirm()
            taken.serve()
            await asyncio.wait_for(giver, DEADLINE_S)
            for copy in taken.sockets[address]:
                copy.close()


@pytest.mark.parametrize("fault", ["elsewhere", "silent"])
async def test_what_is_not_as_announced_is_refused(tmp_path: Path, listener, fault: str) -> None:
    """A socket at another address, or one that does not listen, ends the handover on both sides."""
    sock, _ = listener
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        holder = {
            "elsewhere": Holder("127.0.0.1:1", sock),
            "silent": Holder(f"127.0.0.1:{silent.getsockname()[1]}", silent),
        }[fault]
        async with giving(tmp_path / "h", holder):
            with pytest.raises(TakeoverError):
                async with take(tmp_path / "h"):
                    pytest.fail("it was taken")
            await asyncio.wait_for(holder.said.wait(), DEADLINE_S)
    assert "release" not in holder.words


async def test_fewer_sockets_than_announced(listener) -> None:
    """The giver had no descriptors left for the others: they are missed, and nothing is taken."""
    sock, address = listener
    taken = Taken({}, {})
    taken.refuse("it goes on")
    with pytest.raises(TakeoverError, match="it goes on"):
        await taken.answer("sockets", ({}, [address, address]), [os.dup(sock.fileno())], print)
    assert (taken.problem, taken.sockets) == ("2 sockets were announced, and 1 came", {})


async def test_nobody_to_take_from(tmp_path: Path) -> None:
    """Without a giver there is nothing to take over."""
    with pytest.raises(TakeoverError, match="nothing to take over"):
        async with take(tmp_path / "h"):
            pytest.fail("it was taken")


def test_orphans_are_those_of_the_name(tmp_path: Path) -> None:
    """A data plane asks its own orphans, not those of one whose name begins alike."""
    for name, pid in (("a", 12), ("a.5", 7), ("ab", 3)):
        giver_path(tmp_path, name, pid).touch()
    assert [path.name for path in orphans(tmp_path, "a")] == ["handover-a.12.orphan"]
    assert [path.name for path in orphans(tmp_path, "a.5")] == ["handover-a.5.7.orphan"]


async def test_a_path_that_cannot_be_had_is_told_and_tried_again(
    tmp_path: Path, listener, monkeypatch
) -> None:
    """A full disk is no reason to end: who gives sockets away does so as soon as it can."""
    monkeypatch.setattr("dataplane.ipc.takeover.RETRY_S", 0.001)
    sock, address = listener
    told = asyncio.Event()
    path = tmp_path / "folder" / "h"
    events = Events(lambda kind, **_: told.set() if kind == "takeover_not_offered" else None, time.time)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Giver(path, Holder(address, sock), events).run())
        await told.wait()
        path.parent.mkdir()
        while not path.exists():  # noqa: ASYNC110 - the giver has no word for it
            await asyncio.sleep(0.001)
        task.cancel()
