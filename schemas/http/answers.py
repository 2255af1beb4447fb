"""What both APIs answer alike: the one body that errors have, and what monitoring asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.typedefs import Handler, Middleware

__all__ = ["MAX_BODY_BYTES", "Refusal", "alive", "answered", "prometheus"]

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
"""Of a request."""


class Refusal(NamedTuple):
    """An answer to a call that is not allowed, or that went wrong."""

    status: int
    code: str
    message: str
    details: Sequence[dict[str, Any]] = ()
    """`{path, message}` of each problem in the body of the request."""

    def response(self) -> web.Response:
        """Write it as the one body that errors have."""
        body = {"code": self.code, "message": self.message, "details": list(self.details)}
        return web.json_response(body, status=self.status)


def answered(
    refuse: Callable[[web.Request], Refusal | None], explain: Callable[[Exception], Refusal | None]
) -> Middleware:
    """Make the middleware that lets a call in, and answers whatever goes wrong with an error body.

    Args:
        refuse: Returns why a call is not allowed; None: it is.
        explain: Returns what an error of a call is to the caller; None: it is a bug of ours.
    """

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            refusal = refuse(request)
            return await handler(request) if refusal is None else refusal.response()
        except web.HTTPRequestEntityTooLarge:
            return Refusal(413, "too_large", f"a body has at most {MAX_BODY_BYTES} bytes").response()
        except web.HTTPException as error:
            code = error.reason.lower().replace(" ", "_")
            return Refusal(error.status, code, error.text or error.reason).response()
        except Exception as error:
            refusal = explain(error)
            if refusal is None:
                raise
            return refusal.response()

    return answer


async def alive(_request: web.Request) -> web.Response:
    """Answer `/livez`: the process does."""
    return web.json_response({"status": "ok"})


def prometheus(text: bytes) -> web.Response:
    """Answer with metrics in Prometheus' text format."""
    return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
