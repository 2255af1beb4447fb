"""Flows that have ended, as far as those who keep something of them read them."""

from __future__ import annotations

import time
from types import SimpleNamespace


def ended() -> SimpleNamespace:
    """Return one that has met no backend."""
    return SimpleNamespace(
        started_at=time.monotonic(),
        queued_s=0.0,
        connected_at=0.0,
        first_at=0.0,
        address=("192.0.2.1", 45123),
        destination=None,
        backend=None,
        tried=(),
        detail="",
        pooled=False,
        service=SimpleNamespace(name="web", proxy_required=False, spec=SimpleNamespace(listen=(":1", ":2"))),
        client=SimpleNamespace(received=6, tls=None),
        hello=None,
        reactor=SimpleNamespace(clock=time.monotonic),
    )
