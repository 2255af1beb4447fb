"""A blocking client for an event loop: each question in a thread of its own, which nobody waits for at the end.

A command loads it in a fraction of the time that an asynchronous HTTP client takes. The threads are daemons: a peer that sends
one byte a second keeps one of them busy for as long as it likes, and must not keep the command from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Any, Final, Self

from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import Asking
from controlplane.errors import LateError

__all__ = ["Threaded"]

_GRACE_S: Final = 0.2
"""The socket has the same timeout: a little more lets it say so in its own words."""


class Threaded:
    """Asks one data plane; use it as an asynchronous context manager.

    Args:
        client: Asks it, blocking.
    """

    def __init__(self, client: Asking) -> None:
        self.endpoint = client.endpoint
        self._client = client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def ask(self, call: requests.Call, *, timeout_s: float) -> dict[str, Any]:
        """Send a request and return its answer.

        Raises:
            DataPlaneError: As the client raises it, or none was there after `timeout_s` seconds.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()

        def settle(result: dict[str, Any] | BaseException) -> None:
            if answer.done():
                return
            if isinstance(result, BaseException):
                answer.set_exception(result)
            else:
                answer.set_result(result)

        def run() -> None:
            result: dict[str, Any] | BaseException
            try:
                result = self._client.ask(call, timeout_s=timeout_s)
            except BaseException as error:  # noqa: BLE001 - raised where the question was asked
                result = error
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody asks any more
                loop.call_soon_threadsafe(settle, result)

        threading.Thread(target=run, daemon=True).start()
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                return await answer
        except TimeoutError as error:
            raise LateError(self.endpoint.name, timeout_s) from error
