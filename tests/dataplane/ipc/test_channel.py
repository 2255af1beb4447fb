"""Messages and descriptors arrive whole, in order, and not at all after the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dataplane.errors import PeerError, PeerGone
from dataplane.ipc.channel import FDS_A_FRAME, Channel


class Peer:
    """Answers with what it was asked, and keeps notices and descriptors."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, Any]] = []
        self.fds: list[int] = []
        self.noticed = asyncio.Event()

    async def answer(self, kind: str, body: Any, sockets: list[int], part: Callable[[Any], None]) -> Any:
        """Echo; `parts` answers with parts, `fail` fails, `hang` never answers."""
        self.fds += sockets
        if kind == "parts":
            for number in range(body):
                part(number)
        elif kind == "fail":
            raise ValueError(body)
        elif kind == "hang":
            await asyncio.Event().wait()
        return body

    def notice(self, kind: str, body: Any) -> None:
        """Keep it."""
        self.notices.append((kind, body))
        self.noticed.set()


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[Channel, Channel, Peer]]:
    """Two ends, both running, and who answers at the second."""
    ours, theirs = socket.socketpair()
    peer = Peer()
    one, other = Channel(ours), Channel(theirs, peer.answer, peer.notice)
    tasks = [asyncio.create_task(one.run()), asyncio.create_task(other.run())]
    try:
        yield one, other, peer
    finally:
        for channel in (one, other):
            channel.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for fd in peer.fds:
            os.close(fd)


async def test_a_request_is_answered_with_parts_ahead() -> None:
    """Parts come in order, and before the result."""
    async with pair() as (one, _, _):
        assert await one.request("parts", 3) == (3, [0, 1, 2])


async def test_large_messages_arrive_whole() -> None:
    """A message larger than any socket buffer is cut up and put together."""
    body = os.urandom(5_000_000)
    async with pair() as (one, _, _):
        assert (await one.request("echo", body))[0] == body


@pytest.mark.parametrize("count", [0, 1, FDS_A_FRAME, FDS_A_FRAME + 1, 3 * FDS_A_FRAME + 7])
async def test_descriptors_arrive_in_order(count: int) -> None:
    """However many there are, each arrives once, in its place, with its own message."""
    files = [os.memfd_create(str(number)) for number in range(count)]
    try:
        async with pair() as (one, _, peer):
            answers = await asyncio.gather(one.request("echo", "all", files), one.request("echo", "none"))
            assert [answer for answer, _ in answers] == ["all", "none"]
            assert [os.fstat(fd).st_ino for fd in peer.fds] == [os.fstat(fd).st_ino for fd in files]
    finally:
        for fd in files:
            os.close(fd)


async def test_an_error_is_the_askers() -> None:
    """What goes wrong while answering is told to whoever asked, and the channel goes on."""
    async with pair() as (one, _, _):
        with pytest.raises(PeerError, match="ValueError: no"):
            await one.request("fail", "no")
        assert (await one.request("echo", 1))[0] == 1


async def test_who_waits_learns_of_the_end() -> None:
    """When the peer is gone, requests under way and later ones say so, and notices are dropped."""
    async with pair() as (one, other, _):
        waiting = asyncio.create_task(one.request("hang"))
        assert (await one.request("echo", 1))[0] == 1
        other.close()
        with pytest.raises(PeerGone):
            await waiting
        with pytest.raises(PeerGone):
            await one.request("echo")
        one.send("late")


async def test_notices_arrive() -> None:
    """What wants no answer arrives all the same, after what was sent before."""
    async with pair() as (one, _, peer):
        one.send("hello", [1])
        await asyncio.wait_for(peer.noticed.wait(), 10)
        assert peer.notices == [("hello", [1])]


async def test_who_is_asked_nothing_refuses() -> None:
    """What is asked all the same is answered with an error, and its descriptors are closed."""
    async with pair() as (_, other, _):
        with open(os.devnull) as file, pytest.raises(PeerError, match="LookupError"):  # noqa: ASYNC230, PTH123
            await other.request("anything", None, [file.fileno()])
