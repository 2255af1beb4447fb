"""How both planes serve their APIs: who connects and then does not ask is sent away."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

HEADERS_S: Final = 5.0
"""For the headers of a connection's first request; aiohttp itself waits for ever."""
KEEPALIVE_S: Final = 30.0
"""For a further request; longer than the 15 s for which aiohttp's own client keeps a connection."""
_END: Final = b"\r\n\r\n"


class _Told(logging.Handler):
    """Tells of our own errors where the process tells of all its bugs; what is no HTTP is its sender's fault."""

    def emit(self, record: logging.LogRecord) -> None:
        """Hand an error to the loop's handler, unless a client has made it."""
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            context = {"message": record.getMessage(), "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


class _Impatient(asyncio.Protocol):
    """Stands before the HTTP protocol until the first headers are complete, and aborts if they do not come."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._tail = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by inheritance
        self._timer = asyncio.get_running_loop().call_later(HEADERS_S, self._transport.abort)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass it on; after the end of the headers, step aside."""
        seen = self._tail + data
        self._tail = seen[-len(_END) + 1 :]
        if _END in seen and self._transport is not None:
            self._stop()
            self._transport.set_protocol(self._inner)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        self._inner.connection_lost(error)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class ImpatientRunner(web.AppRunner):
    """An application runner that gives each connection `HEADERS_S` for its first request."""

    def __init__(self, app: web.Application) -> None:
        # By default aiohttp writes tracebacks in plain text between our lines of JSON.
        logger = logging.getLogger("livelb.http")
        logger.propagate = False
        logger.handlers = [_Told()]
        # An open event stream would hold up the end for as long as the timeout: a minute by default.
        super().__init__(
            app,
            access_log=None,
            shutdown_timeout=1.0,
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_S,
            logger=logger,
        )

    @property
    def server(self) -> Any:
        """What makes the protocol of each connection; None before `setup`."""
        make: Callable[[], asyncio.Protocol] | None = super().server
        return None if make is None else lambda: _Impatient(make())


async def serve(
    app: web.Application, sock: socket.socket, tls: ssl.SSLContext | None = None
) -> web.AppRunner:
    """Serve `app` on a listening socket; end it with the runner's `cleanup`."""
    runner = ImpatientRunner(app)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=tls).start()
    return runner
