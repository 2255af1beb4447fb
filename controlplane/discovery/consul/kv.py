"""A second home for the desired state: a key in Consul, watched, and written with check-and-set.

Several nodes that follow one key need no leader among them: each applies what it reads.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from controlplane.core.backoff import Backoff
from controlplane.core.watchindex import TokenBucket, WatchIndex, jittered
from controlplane.discovery.consul.client import ConsulClient, ConsulError, Reply, check_library
from controlplane.discovery.consul.pulse import Pulse
from controlplane.discovery.consul.settings import PREFIX, SettingsError
from controlplane.discovery.consul.status import rfc3339
from controlplane.discovery.consul.watch import take_index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from controlplane.discovery.consul.settings import ConsulSettings
    from controlplane.discovery.consul.watch import Pace, Runtime

__all__ = ["ConsulKV"]

MAX_VALUE_BYTES = 512 * 1024  # Consul's own limit (kv_max_value_size)
_STEP = re.compile(r"(?!\.{1,2}$)[^\x00-\x1f\x7f]+")


class ConsulKV:
    """Reads, writes and watches keys of one agent."""

    def __init__(self, settings: ConsulSettings, *, pace: Pace, runtime: Runtime) -> None:
        self._settings = settings
        self._pace = pace
        self._runtime = runtime
        self._error: ConsulError | None = None
        self._path = ""
        self._since = runtime.clock()
        self._answered_at: float | None = None
        self._index = WatchIndex()
        self._returned = asyncio.Event()
        self._pulse = Pulse(self._returned.set, pace=pace, runtime=runtime)

    async def read(self, path: str) -> tuple[bytes, int]:
        """Return a key's value and the index to write it with.

        Raises:
            ConsulError: There is no such key (kind `misconfigured`), or no answer.
            SettingsError: The path is none.
        """
        async with self._client() as client:
            reply = await client.get(_url(path), timeout_s=self._pace.slack_s)
        found = _value(reply)
        if found is None:
            raise ConsulError("misconfigured", f"{PREFIX}{path}: there is no such key")
        return found

    async def put_cas(self, path: str, raw: bytes, index: int) -> bool:
        """Write a key if nobody else has since it was read; False if somebody has.

        Args:
            path: The key.
            raw: Its new value, at most 512 KiB.
            index: What `read` returned; 0: only if there is no such key.

        Raises:
            ConsulError: There is no answer, or the value is too large (kind `misconfigured`).
            SettingsError: The path is none.
        """
        if len(raw) > MAX_VALUE_BYTES:
            raise ConsulError(
                "misconfigured", f"{PREFIX}{path}: {len(raw)} bytes; Consul takes {MAX_VALUE_BYTES}"
            )
        async with self._client() as client:
            reply = await client.put(_url(path), [("cas", str(index))], raw, timeout_s=self._pace.slack_s)
        return reply.status == 200 and reply.body.strip() == b"true"  # noqa: PLR2004 - HTTP's "OK"

    async def watch(self, path: str, on_value: Callable[[bytes, int], Awaitable[None]]) -> None:
        """Hand on every value of a key, the first at once, until cancelled.

        A key that is gone, empty or cannot be read is no value: what was handed on last holds, and `status` tells.
        `on_value` takes each value that differs from the one before, and its index.

        Raises:
            SettingsError: The path is none.
            ConsulError: The client library cannot be used.
            ExceptionGroup: `on_value` has raised.
        """
        url = _url(path)
        self._path = path
        async with self._client() as client, asyncio.TaskGroup() as group:
            group.create_task(self._pulse.run(client), name=f"pulse for {PREFIX}{path}")
            await self._follow(client, url, on_value)

    async def _follow(
        self, client: ConsulClient, url: str, on_value: Callable[[bytes, int], Awaitable[None]]
    ) -> None:
        bucket, backoff = TokenBucket(rate=self._pace.rate, burst=2), Backoff()
        last: bytes | None = None
        while True:
            await self._runtime.sleep(bucket.take(self._runtime.clock()))
            self._returned.clear()
            try:
                found = await self._next(client, url)
            except ConsulError as error:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._failed(error, backoff)):
                        await self._returned.wait()  # at once when a silent agent answers again
                continue
            backoff.succeed()
            if found is not None and found[0] != last:
                last = found[0]
                await on_value(*found)

    def status(self) -> dict[str, Any]:
        """Return how the watch is doing, in the words of every source."""
        known, error, since = self._answered_at is not None, self._error or self._pulse.error, self._since
        state = "ok" if known else "stale"
        if error is not None:
            state = "denied" if error.kind == "denied" else "stale" if known else "error"
        if self._error is None and self._pulse.since is not None:
            since = self._pulse.since
        return {
            "name": f"{PREFIX}{self._path}",
            "state": state,
            "since": rfc3339(since, self._runtime),
            "last_error": None if error is None else str(error),
            "index": self._index.value,
            "age_s": None
            if self._answered_at is None
            else round(self._runtime.clock() - self._answered_at, 3),
        }

    async def _next(self, client: ConsulClient, url: str) -> tuple[bytes, int] | None:
        """Read, waiting for a change if the last answer is known.

        Returns:
            A value and its index; None if there is none that could be a desired state.
        """
        wait_s = jittered(self._pace.wait_s, self._runtime.random)
        how, timeout_s = self._pace.blocking(self._index.value, wait_s)
        reply = await client.get(url, how if self._index.value else [], timeout_s=timeout_s)
        take_index(self._index, reply)
        found = _value(reply)
        usable = found is not None and bool(found[0])
        if usable is (self._error is not None):
            self._since = self._runtime.clock()
        if not usable:
            self._error = ConsulError("misconfigured", "the key is missing or empty; the last value holds")
            return None
        self._error = None
        self._answered_at = self._runtime.clock()
        return found

    def _failed(self, error: ConsulError, backoff: Backoff) -> float:
        """Note a failure and return the pause before the next question, in seconds."""
        self._index.forget()
        if self._error is None:
            self._since = self._runtime.clock()
        self._error = error
        return self._pace.pause_after(error, backoff, self._runtime.random)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[ConsulClient]:
        await check_library()
        client = ConsulClient(self._settings)
        try:
            yield client
        finally:
            await client.close()


def _url(path: str) -> str:
    """Return the URL's path of a key.

    Raises:
        SettingsError: It is none that a URL can name.
    """
    if not path or not all(_STEP.fullmatch(step) for step in path.split("/")):
        raise SettingsError(f"{PREFIX}{path}: no path of a key")
    return f"/v1/kv/{path}"


def _value(reply: Reply) -> tuple[bytes, int] | None:
    """Return a key's value and index; None if there is no such key.

    Raises:
        ConsulError: It is no answer to this question.
    """
    if reply.status == 404:  # noqa: PLR2004 - HTTP's "not found"
        if "X-Consul-Index" not in reply.headers:
            raise ConsulError("protocol", "status 404: this is no Consul agent")
        return None
    try:
        row = json.loads(reply.body)[0]
        value = base64.b64decode(row["Value"] or "", validate=True)
        index = int(row["ModifyIndex"])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, binascii.Error):
        raise ConsulError("protocol", "an answer that is no key") from None
    if len(value) > MAX_VALUE_BYTES:
        raise ConsulError("protocol", f"a value of more than {MAX_VALUE_BYTES} bytes")
    return value, index
