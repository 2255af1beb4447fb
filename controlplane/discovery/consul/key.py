"""A key of Consul's that holds an lb.yaml: watched for a daemon, written with check-and-set for a command.

Several nodes that follow one key need no leader among them: each applies what it reads. Beside it may be a canary's record
(`core.canary`), `PATH.canary`. Both are read by one question, for all keys that begin with PATH, so that they are one picture:
whoever writes both at once is never seen to have written one. Other keys that begin so, and may be read, are passed over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from controlplane.core.backoff import Backoff, TokenBucket, WatchIndex, jittered
from controlplane.core.canary import Picture
from controlplane.core.canary_record import CanaryRecord, parse_record
from controlplane.discovery.consul.client import ConsulClient, connected
from controlplane.discovery.consul.kv import MAX_VALUE_BYTES, Row, read_rows, rows_of, url_of
from controlplane.discovery.consul.pulse import Pulse
from controlplane.discovery.consul.settings import PREFIX, ConsulError, ConsulSettings
from controlplane.discovery.consul.watch import Pace, Runtime, take_index

OnPicture = Callable[[Picture, bool], Awaitable[None]]
CANARY: Final = ".canary"
"""What the canary's record has behind the path of the key."""
_RETRY_S: Final = 1.0
"""The first pause before a read that somebody asked for is tried again."""


class KeySource:
    """Hands a key's content and its canary on whenever one of them has changed.

    A key that is gone, empty or cannot be read is no content, and `status` tells why. It has no folder: paths of services'
    files have to be absolute, and relative ones of `consul` start where the daemon was started.
    """

    word = "key"

    def __init__(
        self,
        path: str,
        settings: ConsulSettings,
        *,
        pace: Pace | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.name = self.place = f"{PREFIX}{path}"
        self.folder: Path | None = None
        self.path = path
        self.settings = settings
        self._pace = pace or Pace()
        self._runtime = runtime or Runtime()
        self._error: ConsulError | None = None
        self._since = self._runtime.clock()
        self._answered_at: float | None = None
        self._index = WatchIndex()
        self._backoff = Backoff()
        self._returned = asyncio.Event()
        self._pulse = Pulse(self._returned.set, pace=self._pace, runtime=self._runtime)
        self._forced = asyncio.Event()
        # The watch and `force` must not hand on in an order that Consul never had.
        self._handing = asyncio.Lock()
        self._canary_trouble: str | None = None

    def force(self) -> None:
        """Read as soon as that is possible, and hand the picture on even if it is the same."""
        self._forced.set()

    def status(self) -> dict[str, Any]:
        """Return how the watch is doing, in the words of every source."""
        known, error, since = self._answered_at is not None, self._error or self._pulse.error, self._since
        state = "ok" if known else "stale"
        if error is not None:
            state = "denied" if error.kind == "denied" else "stale" if known else "error"
        if self._error is None and self._pulse.since is not None:
            since = self._pulse.since
        age_s = None if self._answered_at is None else round(self._runtime.clock() - self._answered_at, 3)
        return {
            "name": self.name,
            "state": state,
            "since": self._runtime.rfc3339(since),
            "last_error": None if error is None else str(error),
            "index": self._index.value,
            "age_s": age_s,
            **({} if self._canary_trouble is None else {"note": self._canary_trouble}),
        }

    async def run(self, on_picture: OnPicture) -> None:
        """Read once, then watch until cancelled.

        Args:
            on_picture: Takes every new picture, and whether somebody asked for it with `force`.

        Raises:
            ControlError: The path is none, or the client library cannot be used.
            ExceptionGroup: `on_picture` has raised.
        """
        url_of(self.path)
        async with connected(self.settings) as client, asyncio.TaskGroup() as group:
            group.create_task(self._pulse.run(client), name=f"pulse for {self.name}")
            group.create_task(self._watch(client, on_picture), name=self.name)
            backoff = Backoff(base_s=_RETRY_S, least=0.5)
            while True:
                await self._forced.wait()
                self._forced.clear()
                if await self._read(client, on_picture):
                    backoff.succeed()
                else:
                    await asyncio.sleep(backoff.fail(self._runtime.random))
                    self._forced.set()

    async def _read(self, client: ConsulClient, on_picture: OnPicture) -> bool:
        async with self._handing:
            try:
                rows = await read_rows(client, self.path, self._paths(), timeout_s=self._pace.slack_s)
            except ConsulError:  # the watch meets the same, and `status` shows it
                return False
            picture = self._picture(rows)
            if picture.content is None:
                return False
            await on_picture(picture, True)
            return True

    async def _watch(self, client: ConsulClient, on_picture: OnPicture) -> None:
        bucket = TokenBucket(rate=self._pace.rate, burst=2)
        last: Picture | None = None
        while True:
            await self._runtime.sleep(bucket.take(self._runtime.clock()))
            self._returned.clear()
            try:
                found = await self._next(client)
            except ConsulError as error:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._failed(error)):
                        await self._returned.wait()  # at once when a silent agent answers again
                continue
            self._backoff.succeed()
            if found != last:
                last = found
                async with self._handing:
                    await on_picture(found, False)

    async def _next(self, client: ConsulClient) -> Picture:
        """Read, waiting for a change if the last answer is known."""
        wait_s = jittered(self._pace.wait_s, self._runtime.random)
        how, timeout_s = self._pace.blocking(self._index.value, wait_s)
        how = [("recurse", ""), *(how if self._index.value else [])]
        reply = await client.get(url_of(self.path), how, timeout_s=timeout_s)
        take_index(self._index, reply)
        picture = self._picture(rows_of(reply, self._paths()))
        if picture.content is None:
            # Asked for many keys, Consul leaves out those that the token may not read; asked for one, it says so.
            await client.get(url_of(self.path), timeout_s=self._pace.slack_s)
            self._note(ConsulError("misconfigured", "the key is missing or empty; the last value holds"))
        else:
            self._note(None)
            self._answered_at = self._runtime.clock()
        return picture

    def _paths(self) -> tuple[str, str]:
        return self.path, self.path + CANARY

    def _picture(self, rows: dict[str, Row]) -> Picture:
        record, self._canary_trouble = canary_of(self.path, rows)
        content = rows.get(self.path)
        return Picture((content.value or None) if content is not None else None, record)

    def _note(self, error: ConsulError | None) -> None:
        if (error is None) is not (self._error is None):
            self._since = self._runtime.clock()
        self._error = error

    def _failed(self, error: ConsulError) -> float:
        """Note a failure and return the pause before the next question, in seconds."""
        self._index.forget()
        self._note(error)
        return self._pace.pause_after(error, self._backoff, self._runtime.random)


def canary_of(path: str, rows: dict[str, Row]) -> tuple[CanaryRecord | None, str | None]:
    """Return a key's canary, and why there is none although there is a key for it."""
    row = rows.get(path + CANARY)
    if row is None:
        return None, None
    try:
        return parse_record(row.value), None
    except ValueError as error:
        return None, f"{PREFIX}{path}{CANARY} is no canary that this version understands: {error}"


async def read_key(client: ConsulClient, path: str, timeout_s: float) -> tuple[bytes, int]:
    """Return a key's value and the index to write it with.

    Raises:
        ConsulError: There is no such key (kind `misconfigured`), or no answer.
        SettingsError: The path is none.
    """
    found = rows_of(await client.get(url_of(path), timeout_s=timeout_s), (path,)).get(path)
    if found is None:
        raise ConsulError("misconfigured", f"{PREFIX}{path}: there is no such key")
    return found.value, found.index


async def put_key(client: ConsulClient, path: str, raw: bytes, index: int, timeout_s: float) -> bool:
    """Write a key if nobody else has since it was read; False if somebody has.

    Args:
        client: Of the agent.
        path: The key.
        raw: Its new value, at most 512 KiB.
        index: What `read_key` returned; 0: only if there is no such key.
        timeout_s: For the answer.

    Raises:
        ConsulError: There is no answer, or the value is too large (kind `misconfigured`).
        SettingsError: The path is none.
    """
    if len(raw) > MAX_VALUE_BYTES:
        raise ConsulError(
            "misconfigured", f"{PREFIX}{path}: {len(raw)} bytes; Consul takes {MAX_VALUE_BYTES}"
        )
    reply = await client.put(url_of(path), [("cas", str(index))], raw, timeout_s=timeout_s)
    return reply.status == 200 and reply.body.strip() == b"true"  # noqa: PLR2004 - HTTP's "OK"
