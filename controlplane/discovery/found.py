"""What discovery says of an lb.yaml, for those who need backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.snapshot import Backend

__all__ = ["Found"]


@dataclass(frozen=True, slots=True)
class Found:
    """What discovery says of one lb.yaml."""

    backends: Mapping[str, Sequence[Backend]] = field(default_factory=dict)
    """By service; one of which nothing is known is missing."""
    doubts: Mapping[str, str] = field(default_factory=dict)
    """By service: why nothing is known of it, or something else than Consul shows."""
    saved: Mapping[str, Any] = field(default_factory=dict)
    """What `restore` takes, so that whoever follows the lb.yaml next begins with it."""
