"""Names of HTTP headers that both planes use."""

from __future__ import annotations

from typing import Final

__all__ = ["PUSHED_BY"]

PUSHED_BY: Final = "Livelb-Pushed-By"
"""Who pushes a snapshot: JSON, as `schemas.api.PushedBy`."""
