"""Workers as processes, from a supervisor's side: real ones, without a supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dataplane.errors import PeerGone
from dataplane.supervisor.fork_server import Forked, ForkServer
from dataplane.worker import fork_server
from tests.support.wait import wait_for


@pytest.fixture
async def server() -> AsyncIterator[ForkServer]:
    """One that ends with the test."""
    server = ForkServer()
    yield server
    await server.close()


@asynccontextmanager
async def worker(server: ForkServer) -> AsyncIterator[tuple[Forked, socket.socket]]:
    """Have a worker, and its channel's other end; a worker drains and ends without its supervisor."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = await server.fork(theirs)
        yield process, ours


def parent(pid: int) -> int:
    """Return the pid of the process that has forked it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_there(pid: int) -> bool:
    """Return whether anything is left of a process."""
    return Path(f"/proc/{pid}").exists()


def runs(pid: int) -> bool:
    """Return whether a process is there, and no zombie."""
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


async def test_one_process_forks_them_all(server: ForkServer) -> None:
    """And each tells how it has ended: by itself, since its supervisor is gone, or killed."""
    async with worker(server) as (first, channel), worker(server) as (second, _):
        assert first.pid != second.pid
        assert parent(first.pid) == parent(second.pid) != os.getpid()
        second.kill()
        assert await second.wait() == second.returncode == -signal.SIGKILL
        with pytest.raises(ProcessLookupError):
            second.kill()
        channel.close()
        assert await first.wait() == 0


@pytest.fixture
def begun() -> tuple[int, socket.socket]:
    """One that was forked from this process; its workers wait to be killed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        if fork_server.serve(theirs) is not None:
            theirs.close()
            signal.pause()
        os._exit(0)
    theirs.close()
    ours.setblocking(False)
    return pid, ours


async def test_one_that_is_there_forks_the_first(begun: tuple[int, socket.socket]) -> None:
    """Should it be killed, nothing is left of it, and the next worker has another."""
    server = ForkServer(begun)
    try:
        async with worker(server) as (first, _):
            assert parent(first.pid) == begun[0]
            os.kill(begun[0], signal.SIGKILL)
            await asyncio.to_thread(wait_for, lambda: not is_there(begun[0]), "its end")
            async with worker(server) as (second, _):
                assert parent(second.pid) != begun[0]
                for each in (first, second):
                    each.kill()
                    await each.wait()
    finally:
        await server.close()


async def test_one_that_is_there_ends_unused(begun: tuple[int, socket.socket]) -> None:
    """And is no zombie afterwards."""
    await ForkServer(begun).close()
    assert not is_there(begun[0])


async def test_if_it_is_killed_the_next_worker_has_another(server: ForkServer) -> None:
    """A worker of the former one lives on; how it ends is not known."""
    async with worker(server) as (first, _):
        former = parent(first.pid)
        os.kill(former, signal.SIGKILL)
        async with worker(server) as (second, _):
            assert parent(second.pid) != former
            first.kill()
            assert await first.wait() is None
            second.kill()
            assert await second.wait() == -signal.SIGKILL


async def test_a_retired_one_ends_with_its_last_worker(server: ForkServer) -> None:
    """Until then it can say how they end."""
    async with worker(server) as (first, _), worker(server) as (second, _):
        pid = parent(first.pid)
        server.retire()
        for each in (first, second):
            assert runs(pid)
            each.kill()
            assert await each.wait() == -signal.SIGKILL
        await asyncio.to_thread(wait_for, lambda: not runs(pid), "it to end")


async def test_one_that_cannot_start_is_gone(server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried once for each worker that is asked for."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(PeerGone):
        async with worker(server):
            pass
    monkeypatch.delenv("PYTHONHOME")
    async with asyncio.timeout(30), worker(server) as (process, _):
        process.kill()
        assert await process.wait() == -signal.SIGKILL
