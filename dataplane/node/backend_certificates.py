"""Backends' certificates that end soon: told once a day, by whatever check has seen one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from dataplane.tls.files import shown_time

DAY_S: Final = 86400.0


class BackendCertificates:
    """Those of one service.

    Args:
        service: Its name.
        emit: Takes events, as `telemetry.events.Events.emit` does.
    """

    def __init__(self, service: str, emit: Callable[..., None]) -> None:
        self._service = service
        self._emit = emit
        self._again_at: dict[str, float] = {}
        """Of backends of which somebody was told: when that is said again (Unix seconds)."""

    def seen(self, backend_id: str, address: str, ends: float, due: float, now: float) -> None:
        """Take note of a certificate that a check has seen: when it `ends`, and from when on a renewal is `due`, in Unix seconds."""
        if now < due:
            self._again_at.pop(backend_id, None)
        elif now >= self._again_at.get(backend_id, 0.0):
            self._again_at[backend_id] = now + DAY_S
            self._emit(
                "backend_certificate_ends",
                service=self._service,
                backend=backend_id,
                address=address,
                ends=shown_time(ends),
                days=round((ends - now) / DAY_S, 1),
                todo="renew it at the backend: when it has ended, the backend is down",
            )

    def keep(self, backend_ids: Collection[str]) -> None:
        """Forget all other backends."""
        for gone in [one for one in self._again_at if one not in backend_ids]:
            del self._again_at[gone]
