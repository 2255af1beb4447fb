"""Who we are, for whoever wonders who pushed: data planes keep it, other daemons read it there."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

__all__ = ["here", "pushed_by", "said_by"]


def pushed_by(program: str, user: str, source: str | None = None) -> str:
    """Write the header of a push.

    Args:
        program: What we are, as `lb-control run`.
        user: Whose we are.
        source: The file or key that we follow; None: we follow nothing.
    """
    who = {"program": program, "host": here(), "pid": os.getpid(), "user": user, "source": source}
    return json.dumps({key: value for key, value in who.items() if value})


def here() -> str:
    """Return the name of this machine."""
    return socket.gethostname() or "unknown"


def said_by(origin: Mapping[str, Any] | None) -> str:
    """Say who pushed, from what a data plane tells of it."""
    if origin is None:
        return "somebody who does not say who it is"
    source = f", from {origin['source']}" if origin.get("source") else ""
    return f"{origin['program']} of {origin['user']} (pid {origin['pid']} on {origin['host']}){source}"
