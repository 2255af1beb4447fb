"""Listening sockets from one process to its successor, and not one client lost between them.

Theory of operation:

1. Who has listening sockets serves a Unix socket of mode 0600 beside its API's. Whoever connects to it (and is of
   the same user, or root) wants to take over.
2. The giver sends copies of its sockets, what they are, and what it runs. It changes nothing meanwhile, and accepts
   on: until step 4 both hold the same queues, and closing a copy loses nobody.
3. The taker checks that it got what was said: as many sockets, listening, at the addresses named, and no other
   address than those of the snapshot. It starts its own workers on them. If anything goes wrong, or the taker dies, the
   giver goes on as if nothing had been asked.
4. When the taker accepts, it says so. The giver stops accepting, without closing a queue, gives the lock and the
   path of the API free, and says so. When the taker serves the API, the giver ends its own, drains and ends.
5. A worker whose supervisor has died gives away its sockets in the same manner.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from dataplane.background import first_of
from dataplane.errors import PeerError, PeerGone, TakeoverError
from dataplane.ipc.channel import Channel
from dataplane.net.sockopts import to_sockaddr
from dataplane.telemetry.events import Events
from schemas.system.unix_socket import listen_privately, peer_uid, reachable

TAKE_S: Final = 60.0
"""How long a taker may need until it accepts."""
RELEASE_S: Final = 10.0
RETRY_S: Final = 1.0
_TODO: Final = "clients are served; what is in the way is in the way of lb-dataplane --takeover, too"


Offer = tuple[dict[str, Any], list[tuple[str, socket.socket]]]
"""What a giver runs, which a successor starts from; and each of its sockets, with its address."""


class Holder(Protocol):
    """Who has listening sockets."""

    async def offer(self) -> Offer:
        """Say what there is, and change nothing until `keep` or `release`."""

    def keep(self, cause: str) -> None:
        """Go on: nobody took over."""

    async def release(self) -> None:
        """Stop accepting and give the API's socket free: the taker accepts."""


def giver_path(directory: Path, name: str, pid: int | None = None) -> Path:
    """Return where a data plane gives its sockets away; with `pid`, where an orphaned worker of it does."""
    return directory / (f"handover-{name}.sock" if pid is None else f"handover-{name}.{pid}.orphan")


def orphans(directory: Path, name: str) -> list[Path]:
    """Return where orphaned workers of a data plane give away theirs."""
    prefix = f"handover-{name}."
    return [
        path
        for path in sorted(directory.glob("handover-*.orphan"))
        if path.name.startswith(prefix) and path.name[len(prefix) : -len(".orphan")].isdecimal()
    ]


class Giver:
    """Serves those who want to take over, one at a time; that it cannot is told once, and tried again and again."""

    def __init__(self, path: Path, holder: Holder, events: Events) -> None:
        self._path = path
        self._holder = holder
        self._events = events

    async def run(self) -> None:
        """Serve until cancelled, or until somebody has taken over."""
        loop = asyncio.get_running_loop()
        sock = await self._listen()
        inode = self._path.stat().st_ino
        try:
            taken = False
            while not taken:
                try:
                    conn, _ = await loop.sock_accept(sock)
                except OSError:  # out of descriptors, say: whoever wants to take over can wait
                    await asyncio.sleep(RETRY_S)
                    continue
                with conn:
                    taken = _is_ours(conn) and await self._give(conn)
        finally:
            sock.close()
            with contextlib.suppress(OSError):
                if self._path.stat().st_ino == inode:
                    self._path.unlink()

    async def _listen(self) -> socket.socket:
        told = False
        while True:
            try:
                return listen_privately(self._path)
            except OSError as error:  # a full disk, say, which is no reason to serve nobody
                if not told:
                    path, cause = str(self._path), str(error)
                    self._events.emit("takeover_not_offered", path=path, cause=cause, todo=_TODO)
                told = True
            await asyncio.sleep(RETRY_S)

    async def _give(self, conn: socket.socket) -> bool:
        async with _running(Channel(conn)) as channel:
            state, sockets = await self._holder.offer()
            try:
                async with asyncio.timeout(TAKE_S):
                    fds = [sock.fileno() for _, sock in sockets]
                    await channel.request("sockets", (state, [address for address, _ in sockets]), fds)
            except (
                asyncio.CancelledError
            ):  # what the holder keeps unchanged meanwhile is not to wait for a peer
                self._holder.keep("this process was told to end")
                raise
            except (PeerGone, PeerError, TimeoutError) as error:
                self._holder.keep(str(error) or "the other process has ended")
                return False
            await self._holder.release()
            with contextlib.suppress(PeerGone, PeerError, TimeoutError):
                async with asyncio.timeout(RELEASE_S):
                    await channel.request("released")
            return True


@dataclass(slots=True)
class Taken:
    """What was taken over."""

    state: dict[str, Any]
    sockets: dict[str, list[socket.socket]]
    """By address."""
    _decision: asyncio.Future[None] = field(default_factory=asyncio.Future)
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _served: asyncio.Future[None] = field(default_factory=asyncio.Future)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The giver has closed the channel."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    problem: str = ""
    """What is wrong with what has arrived."""

    async def confirm(self) -> None:
        """Say that the sockets are accepted from, and wait a while for the giver to give everything free."""
        self._decision.set_result(None)
        await first_of(self._released, self.gone, within_s=RELEASE_S)

    @property
    def not_released(self) -> bool:
        """Whether the giver has closed the channel without a word: it had given up waiting, or is dead."""
        return self.gone.is_set() and not self._released.is_set()

    def serve(self) -> None:
        """Say that the API is served, too, so that the giver may end its own."""
        self._served.set_result(None)

    def refuse(self, cause: str) -> None:
        """Say that the giver has to go on."""
        if not self._decision.done():
            self._decision.set_exception(TakeoverError(cause))

    # -- the channel's side ---------------------------------------------------------------------------

    async def answer(self, kind: str, body: Any, sockets: list[int], part: Callable[[Any], None]) -> None:
        """Take what the giver sends."""
        del part
        if kind == "released":
            self._released.set()
            await self._served
            return
        self.state, addresses = body
        received = [socket.socket(fileno=fd) for fd in sockets]
        self.problem = _complaint(addresses, received)
        if self.problem:
            _close(received)
        else:
            for address, sock in zip(addresses, received, strict=True):
                self.sockets.setdefault(address, []).append(sock)
        self.arrived.set()
        await self._decision


def _close(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def _complaint(addresses: list[str], received: list[socket.socket]) -> str:
    if len(addresses) != len(received):
        return f"{len(addresses)} sockets were announced, and {len(received)} came"
    for address, sock in zip(addresses, received, strict=True):
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return f"the socket for {address} does not listen"
        wanted, name = to_sockaddr(address), sock.getsockname()
        is_at = name[: len(wanted.sockaddr)] if wanted is not None else name
        if wanted is not None and (sock.family, is_at) != (wanted.family, wanted.sockaddr):
            return f"the socket for {address} is at {name}"
    return ""


@contextlib.asynccontextmanager
async def take(path: Path) -> AsyncIterator[Taken]:
    """Receive what the process at `path` has to give; leaving the block without `confirm` lets it go on.

    Raises:
        TakeoverError: Nobody is there, or what came is not what was announced.
    """
    loop = asyncio.get_running_loop()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with reachable(path) as name:
            await loop.sock_connect(sock, name)
    except OSError as error:
        sock.close()
        raise TakeoverError(f"nothing to take over at {path}: {error.strerror}") from error
    if not _is_ours(sock):
        sock.close()
        raise TakeoverError(f"whoever listens at {path} is another user")
    taken = Taken({}, {})
    async with _running(Channel(sock, taken.answer)) as channel:
        taken.gone = channel.closed
        await first_of(taken.arrived, channel.closed, within_s=TAKE_S)
        if not taken.arrived.is_set():
            raise TakeoverError("the running process did not send its sockets")
        if taken.problem:
            taken.refuse(taken.problem)
            await channel.flush(1.0)
            raise TakeoverError(taken.problem)
        try:
            yield taken
        except BaseException as error:
            for group in taken.sockets.values():
                _close(group)
            taken.refuse(str(error))
            await asyncio.sleep(0)  # the answer is sent by the channel's task
            await channel.flush(1.0)
            raise


@contextlib.asynccontextmanager
async def _running(channel: Channel) -> AsyncIterator[Channel]:
    problem: Exception | None = None
    async with asyncio.TaskGroup() as group:
        group.create_task(channel.run())
        try:
            yield channel
        except Exception as error:  # noqa: BLE001 - outside of the group it is itself, and not a group of one
            problem = error
        finally:
            channel.close()
    if problem is not None:
        raise problem


def _is_ours(conn: socket.socket) -> bool:
    return peer_uid(conn) in {0, os.geteuid()}
