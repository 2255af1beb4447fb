"""Server-sent events, as both planes' `GET /v1/events` sends them."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable

__all__ = ["HEARTBEAT_S", "event_stream", "event_text"]

HEARTBEAT_S: Final = 10.0
"""Without an event for as long, a comment is sent: who has gone is noticed, and a proxy keeps the connection."""

E = TypeVar("E")


def event_text(kind: str, fields: dict[str, Any], known_by: str | None = None) -> str:
    """Write one event, with the id that its reader comes back with."""
    head = "" if known_by is None else f"id: {known_by}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(fields)}\n\n"


async def event_stream(
    request: web.Request, title: str, events: AsyncIterable[E | None], write: Callable[[E], str]
) -> web.StreamResponse:
    """Send events until they end or the reader leaves, which is no error.

    Args:
        request: The call.
        title: A comment that is sent at once.
        events: None among them: a heartbeat.
        write: Makes text of one, as `event_text` does.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):
        await response.write(f": {title}\n\n".encode())
        async for event in events:
            await response.write(b": heartbeat\n\n" if event is None else write(event).encode())
    return response
