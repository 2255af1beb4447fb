"""A key of Consul's that holds an lb.yaml: watched for a daemon, written for a command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from controlplane.core.backoff import Backoff
from controlplane.discovery.consul.client import ConsulError
from controlplane.discovery.consul.discovery import system_runtime
from controlplane.discovery.consul.kv import ConsulKV
from controlplane.discovery.consul.settings import PREFIX, ConsulSettings
from controlplane.discovery.consul.watch import Pace
from controlplane.errors import HeldBackError

__all__ = ["KeySource", "write_key"]

_RETRY_S: Final = 1.0
"""The first pause before a read that somebody asked for is tried again."""


class KeySource:
    """Hands a key's content on whenever it has changed, as `FileSource` does a file's.

    While it cannot be read, what was read before holds, and `status` tells why. `on_content` takes the key's bytes, and
    whether somebody asked for them with `force`.
    """

    def __init__(
        self,
        path: str,
        settings: ConsulSettings,
        *,
        on_content: Callable[[bytes, bool], Awaitable[None]],
        pace: Pace | None = None,
    ) -> None:
        self._path = path
        self._on_content = on_content
        runtime = system_runtime()
        self._kv = ConsulKV(settings, pace=pace or Pace(), runtime=runtime)
        self._random = runtime.random
        self._forced = asyncio.Event()
        # The watch and `force` must not hand on in an order that Consul never had.
        self._handing = asyncio.Lock()

    def force(self) -> None:
        """Read as soon as that is possible, and hand the content on even if it is the same."""
        self._forced.set()

    def status(self) -> dict[str, Any]:
        """Return how the watch is doing, in the words of every source."""
        return self._kv.status()

    async def run(self) -> None:
        """Read once, then watch until cancelled.

        Raises:
            ControlError: The path is none, or the client library cannot be used (in an exception group).
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._kv.watch(self._path, self._seen), name=f"{PREFIX}{self._path}")
            backoff = Backoff(base_s=_RETRY_S, least=0.5)
            while True:
                await self._forced.wait()
                self._forced.clear()
                if await self._read():
                    backoff.succeed()
                else:
                    await asyncio.sleep(backoff.fail(self._random))
                    self._forced.set()

    async def _seen(self, raw: bytes, _index: int) -> None:
        async with self._handing:
            await self._on_content(raw, False)

    async def _read(self) -> bool:
        async with self._handing:
            try:
                raw, _ = await self._kv.read(self._path)
            except ConsulError:  # the watch meets the same, and `status` shows it
                return False
            await self._on_content(raw, True)
            return True


async def write_key(
    settings: ConsulSettings, path: str, raw: bytes, timeout_s: float, *, force: bool = False
) -> bool:
    """Write a key with check-and-set: what somebody else writes at the same time is not overwritten, but with `force`.

    Returns:
        Whether the key has changed; False: it had this content.

    Raises:
        ControlError: Consul did not take it; `HeldBackError` if somebody else was first.
    """
    kv = ConsulKV(settings, pace=Pace(), runtime=system_runtime())
    try:
        async with asyncio.timeout(timeout_s):
            if await kv.put_cas(path, raw, 0):
                return True
            while True:
                found, index = await kv.read(path)
                if found == raw:
                    return False
                if await kv.put_cas(path, raw, index):
                    return True
                if not force:
                    break
    except TimeoutError:
        raise HeldBackError(
            f"{PREFIX}{path}: no answer within {timeout_s:g} s; it may have been written"
        ) from None
    raise HeldBackError(
        f"nothing was changed: somebody else has just written {PREFIX}{path}; "
        "look at it and apply again, or use --force"
    )
