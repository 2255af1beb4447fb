"""The data planes that there are now: found in the runtime directory, each with its pusher."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, TypeAlias

from controlplane.core.rollout import Running
from controlplane.dataplanes import requests
from controlplane.dataplanes.endpoint import Endpoint, result_row
from controlplane.dataplanes.pusher import Asks, Pusher, Timing, Wish
from controlplane.dataplanes.requests import said_by
from controlplane.errors import DataPlaneError, LateError, OvertakenError, PlaceError
from schemas.loops import ANYWHERE, Machine
from schemas.system.machine import HERE

Answers: TypeAlias = dict[Endpoint, dict[str, Any] | DataPlaneError]
"""What each has answered, or the error that came instead."""

_SCAN_S: Final = 0.5
_ASK_S: Final = 5.0


class Fleet:
    """Runs a pusher for each data plane, as they come and go.

    Args:
        find: Lists the data planes; called twice a second in a thread.
        connect: Makes the client of one of them.
        on_ahead: Called when one runs a generation that the wish cannot follow.
        on_change: Called after anything that `status` would show has changed.
        timing: How patient the pushers are.
    """

    def __init__(
        self,
        find: Callable[[], Sequence[Endpoint]],
        *,
        on_ahead: Callable[[Running], None],
        on_change: Callable[[], None],
        connect: Callable[[Endpoint], AbstractAsyncContextManager[Asks]],
        timing: Timing | None = None,
    ) -> None:
        self.pushers: dict[Endpoint, Pusher] = {}
        """In the order in which they were found."""
        self.wish: Wish | None = None
        self._find = find
        self._connect = connect
        self._on_ahead = on_ahead
        self._on_change = on_change
        self._timing = timing or Timing()
        self._scanned = asyncio.Event()
        self._changed = asyncio.Event()
        self._inodes: dict[Endpoint, int] = {}

    def want(self, wish: Wish) -> None:
        """Replace what all of them should run, those that come later as well."""
        self.wish = wish
        for pusher in self.pushers.values():
            pusher.want(wish)

    def running(self) -> list[tuple[int, str]]:
        """Return generation and hash of each data plane that was ever seen."""
        return [
            (each.running.generation, each.running.hash)
            for each in self.pushers.values()
            if each.running is not None
        ]

    def machine(self) -> Machine:
        """Tell what is known of where they run: here, unless one is spoken to over TCP."""
        return ANYWHERE if any(endpoint.is_url for endpoint in self.pushers) else HERE

    async def wait_looked(self, timeout_s: float) -> None:
        """Wait until each data plane was looked at once, but no longer than that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._scanned.wait()
                for each in tuple(self.pushers.values()):
                    await each.looked.wait()

    async def ask(self, call: requests.Call, timeout_s: float, *, everybody: bool = False) -> Answers:
        """Ask everybody who was reachable at the last look, or also those of whom nothing was heard."""
        asked = [each for each in self.pushers.values() if everybody or each.reachable]
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(_asked(each, call, timeout_s)) for each in asked]
        return {each.endpoint: answer.result() for each, answer in zip(asked, answers, strict=True)}

    async def services(self, *, must: bool = False) -> dict[str, Any]:
        """Return the services of the newest snapshot that runs; if nobody answers nothing, or with `must` a `PlaceError`."""
        answers = await self.ask(requests.get("/v1/snapshot"), _ASK_S)
        good = [answer for answer in answers.values() if not isinstance(answer, DataPlaneError)]
        if must and not good:
            failed = {each.endpoint.name: each.error for each in self.pushers.values()} | {
                endpoint.name: answer for endpoint, answer in answers.items()
            }
            said = "; ".join(f"{name}: {error or 'does not answer'}" for name, error in failed.items())
            raise PlaceError(f"no data plane answers: {said or 'none was found'}")
        return dict(max(good, key=lambda answer: int(answer["generation"]))["services"]) if good else {}

    async def dry_run(self, call: requests.Call, timeout_s: float) -> Answers:
        """Ask everybody, and tell why those who cannot be asked cannot."""
        answers = await self.ask(call, timeout_s)
        for endpoint, each in self.pushers.items():
            if endpoint not in answers:
                answers[endpoint] = each.error or LateError(endpoint.name, timeout_s)
        return answers

    async def settled(self, wish: Wish, timeout_s: float) -> list[dict[str, Any]]:
        """Wait until everybody runs a wish, has refused it, or cannot be reached; tell how each took it.

        A newer wish that has taken its place meanwhile will do: the older one was taken, and is no longer wanted.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._scanned.wait()
                while not all(each.settled(self.wish or wish) for each in self.pushers.values()):
                    await self._changed.wait()
        return [_row(each, self.wish or wish, timeout_s) for each in self.pushers.values()]

    def _note_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self._on_change()

    async def run(self) -> None:
        """Follow the runtime directory until cancelled."""
        tasks: dict[Endpoint, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                # A directory that cannot be read for a moment is no reason to forget who was in it.
                with contextlib.suppress(PlaceError):
                    found = await asyncio.to_thread(self._look)
                    for endpoint in [each for each in tasks if each not in found]:
                        tasks.pop(endpoint).cancel()
                        self.pushers.pop(endpoint, None)
                        self._note_change()
                    for endpoint, inode in found.items():
                        if endpoint not in tasks:
                            tasks[endpoint] = group.create_task(self._push(endpoint))
                            # The task makes its pusher before its first pause.
                            await asyncio.sleep(0)
                        elif self._inodes.get(endpoint) != inode and endpoint in self.pushers:
                            self.pushers[endpoint].wake()
                    self._inodes = found
                self._scanned.set()
                await asyncio.sleep(_SCAN_S)

    def _look(self) -> dict[Endpoint, int]:
        return {endpoint: _inode(endpoint) for endpoint in self._find()}

    async def _push(self, endpoint: Endpoint) -> None:
        async with self._connect(endpoint) as client:
            pusher = Pusher(
                client,
                on_ahead=self._on_ahead,
                on_change=self._note_change,
                jitter=random.random,
                clock=time.monotonic,
                timing=self._timing,
            )
            self.pushers[endpoint] = pusher
            if self.wish is not None:
                pusher.want(self.wish)
            await pusher.run()


async def _asked(pusher: Pusher, call: requests.Call, timeout_s: float) -> dict[str, Any] | DataPlaneError:
    """Ask one; an error is a value here, for many are asked at once."""
    try:
        return await pusher.client.ask(call, timeout_s=timeout_s)
    except DataPlaneError as error:
        return error


def _inode(endpoint: Endpoint) -> int:
    try:
        return 0 if endpoint.is_url else Path(endpoint.location).stat().st_ino
    except OSError:
        return 0


def _row(pusher: Pusher, wish: Wish, timeout_s: float) -> dict[str, Any]:
    error, running = None, pusher.running
    if not pusher.confirms(wish):
        error = pusher.error or LateError(pusher.endpoint.name, max(0.0, timeout_s))
        if pusher.error is None and running is not None and running.generation >= wish.target.generation:
            error = OvertakenError(pusher.endpoint.name, running.generation, said_by(running.by))
    known = {} if running is None else {"generation": running.generation, "hash": running.hash}
    return result_row(pusher.endpoint, error, known)
