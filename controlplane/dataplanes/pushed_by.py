"""Who we are, for whoever wonders who pushed: data planes keep it, other daemons read it there."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

from schemas.http.headers import name_in_header

__all__ = ["here", "pushed_by", "said_by"]


def pushed_by(program: str, user: str, source: str | None = None) -> str:
    """Write the header of a push.

    Args:
        program: What we are, as `lb-control run`.
        user: Whose we are.
        source: The file or key that we follow; None: we follow nothing.
    """
    words = {"program": program, "host": here(), "user": user} | (
        {} if source is None else {"source": source}
    )
    return json.dumps({key: name_in_header(text) for key, text in words.items()} | {"pid": os.getpid()})


def here() -> str:
    """Return the name of this machine."""
    return socket.gethostname() or "unknown"


def said_by(origin: Mapping[str, Any] | None) -> str:
    """Say who pushed, from what a data plane tells of it."""
    if origin is None:
        return "somebody who does not say who it is"
    source = f", from {origin['source']}" if origin.get("source") else ""
    return f"{origin['program']} of {origin['user']} (pid {origin['pid']} on {origin['host']}){source}"
