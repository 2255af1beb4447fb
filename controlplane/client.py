"""The asynchronous client of one data plane, for the daemon."""

from __future__ import annotations

import io
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from controlplane import calls
from controlplane.errors import LateError, UnreachableError
from controlplane.places import Endpoint

__all__ = ["DataPlaneClient"]


class DataPlaneClient:
    """Asks one data plane over its Unix socket, or over TCP with a token.

    Use it as an asynchronous context manager inside a running loop.
    """

    def __init__(self, endpoint: Endpoint, *, token: str | None = None) -> None:
        self.endpoint = endpoint
        connector = None if endpoint.is_url else aiohttp.UnixConnector(endpoint.location)
        headers = {"Authorization": f"Bearer {token}"} if token and endpoint.is_url else None
        self._base = endpoint.location if endpoint.is_url else "http://localhost"
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def ask(self, call: calls.Call, *, timeout_s: float) -> dict[str, Any]:
        """Send a request and return the JSON object of its answer.

        Raises:
            UnreachableError: Nobody listens there, or the answer broke off.
            LateError: The whole answer was not there after `timeout_s` seconds.
            RefusedError: The answer is an error.
        """
        name = self.endpoint.name
        headers = dict(call.headers)
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with self._session.request(
                call.method,
                URL(self._base + call.target, encoded=True),
                data=None if call.body is None else io.BytesIO(call.body),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as response:
                status, raw = response.status, await response.read()
        except TimeoutError as error:
            raise LateError(name, timeout_s) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UnreachableError(name, f"{self.endpoint.location}: {_words(error)}") from error
        return calls.answer(name, status, raw)


def _words(error: Exception) -> str:
    reason = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return (reason.strerror if isinstance(reason, OSError) else None) or str(reason) or type(reason).__name__
