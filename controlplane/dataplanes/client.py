"""The asynchronous client of one data plane, for the daemon."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from controlplane.dataplanes import requests
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import LateError, UnreachableError

_CONNECT_S: Final = 2.0
_SILENCE_S: Final = 30.0
"""On an event stream; a heartbeat comes every 10 s."""
_MAX_EVENT_BYTES: Final = 1 << 20
_OK: Final = 200
_NOBODY: Final = requests.Caller()
_EVENTS: Final = requests.Call("GET", "/v1/events", headers={"Last-Event-ID": "0"})


class DataPlaneClient:
    """Asks one data plane over its Unix socket, or over TCP with a token, a certificate or both.

    Use it as an asynchronous context manager inside a running loop.
    """

    def __init__(self, endpoint: Endpoint, caller: requests.Caller = _NOBODY) -> None:
        self.endpoint = endpoint
        self._caller = caller
        connector = None if endpoint.is_url else aiohttp.UnixConnector(endpoint.location)
        self._base = endpoint.location if endpoint.is_url else "http://localhost"
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, call: requests.Call, *, timeout_s: float) -> dict[str, Any]:
        """Send a request and return the JSON object of its answer; raises what `BlockingClient.ask` does."""
        name = self.endpoint.name
        headers = self._caller.headers(call, self.endpoint)
        context = await self._context()
        try:
            async with self._session.request(
                call.method,
                URL(self._base + call.target, encoded=True),
                data=None if call.body is None else io.BytesIO(call.body),
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                ssl=context,
            ) as response:
                status, raw = response.status, await response.read()
        except TimeoutError as error:
            raise LateError(name, timeout_s) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._caller.tls.unreachable(self.endpoint, _reason(error)) from error
        return requests.answer(name, status, raw)

    async def events(self) -> AsyncIterator[tuple[str, str, dict[str, Any]]]:
        """Yield id, kind and fields of each event as it happens, those that are remembered first.

        Raises:
            UnreachableError: Nobody listens there, or the stream broke off or makes no sense.
            LateError: Nothing came for 30 s, not even a heartbeat.
            RefusedError: The answer is an error.
        """
        name = self.endpoint.name
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        context = await self._context()
        try:
            async with self._session.get(
                URL(self._base + _EVENTS.target),
                headers=self._caller.headers(_EVENTS, self.endpoint),
                allow_redirects=False,
                timeout=timeout,
                ssl=context,
            ) as response:
                if response.status != _OK:
                    requests.answer(name, response.status, await response.read())
                pending = b""
                async for piece in response.content.iter_any():
                    *whole, pending = (pending + piece).split(b"\n\n")
                    if len(pending) > _MAX_EVENT_BYTES:
                        raise UnreachableError(name, f"an event of more than {_MAX_EVENT_BYTES} bytes")
                    for event in filter(None, map(_event, whole)):
                        yield event
        except TimeoutError as error:
            raise LateError(name, _SILENCE_S) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._caller.tls.unreachable(self.endpoint, _reason(error)) from error

    async def _context(self) -> ssl.SSLContext | bool:
        """Return what aiohttp wants for `ssl`. Another context is another pool: no connection of an older one is used."""
        if not self.endpoint.is_https:
            return True
        return await asyncio.to_thread(self._caller.tls.context, self.endpoint)


def _reason(error: Exception) -> Exception:
    """Return what the system has said, of aiohttp's words about it."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return ConnectionResetError(str(error))
    return error


def _event(block: bytes) -> tuple[str, str, dict[str, Any]] | None:
    """Read one event; None for a comment.

    Raises:
        ValueError: It is none that a data plane sends.
    """
    lines = dict(line.split(": ", 1) for line in block.decode().splitlines() if not line.startswith(":"))
    if not lines:
        return None
    try:
        fields = json.loads(lines["data"])
        known_by, kind = lines["id"], lines["event"]
    except KeyError as error:
        raise ValueError(f"an event without {error}") from error
    if not isinstance(fields, dict):
        raise ValueError("the data of an event is not an object")  # noqa: TRY004 - the peer's, not the caller's
    return known_by, kind, fields
