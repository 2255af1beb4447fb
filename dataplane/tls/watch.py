"""Looks every second whether files of TLS were renewed, in every process that uses them, and tells what has become of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from dataplane.tls.files import shown_time
from dataplane.tls.service import ClientTls, News, ServerTls

PERIOD_S: Final = 1.0
Tls = ServerTls | ClientTls
_TODO: Final = "the pair before stays in use; it is tried again at once when the files change"
_TODO_CA: Final = "the authorities before stay in use; it is tried again at once when the file changes"


class Used(NamedTuple):
    """TLS of a service that runs."""

    service: str
    tls: Tls


class Watch:
    """Does so for whatever is `used` at the time; `emit` is told, like `telemetry.events.Events.emit`."""

    def __init__(
        self,
        used: Callable[[], Iterable[Used]],
        emit: Callable[..., None],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._used = used
        self._emit = emit
        self._clock = clock
        self._wall_clock = wall_clock

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.look()

    async def look(self) -> None:
        """Look once. In a thread: a file may be far away, and an RSA key takes a millisecond."""
        used = list(self._used())
        if not used:
            return
        found = await asyncio.to_thread(_renewed, used, self._clock(), self._wall_clock())
        for service, news in found:
            tell(self._emit, service, news)


def _renewed(used: Iterable[Used], now: float, wall: float) -> list[tuple[str, News]]:
    return [(service, news) for service, tls in used for news in tls.renew(now, wall)]


def tell(emit: Callable[..., None], service: str, news: News) -> None:
    """Emit the event of what has become of a file."""
    of = {"service": service, "place": news.place, "path": news.path}
    ends = None if news.ends is None else shown_time(news.ends)
    match news.kind:
        case "certificate_renewed":
            emit("certificate_renewed", **of, ends=ends)
        case "certificate_not_renewed":
            emit("certificate_not_renewed", **of, cause=news.cause, ends=ends, todo=_TODO)
        case "authorities_renewed":
            emit("authorities_renewed", **of)
        case _:
            emit("authorities_not_renewed", **of, cause=news.cause, todo=_TODO_CA)
