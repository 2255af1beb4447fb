"""Names of HTTP headers that both planes use."""

from __future__ import annotations

from typing import Final

__all__ = ["PUSHED_BY", "name_in_header"]

PUSHED_BY: Final = "Livelb-Pushed-By"
"""Who pushes a snapshot: JSON, as `schemas.api.PushedBy`."""
_LONGEST: Final = 255


def name_in_header(text: str) -> str:
    """Write a name or path as `PushedBy` takes it, whatever is in it: a push is not refused for such a courtesy."""
    return "".join(each if each.isprintable() else "?" for each in text)[-_LONGEST:] or "unknown"
