"""Choosing a backend: one module per mode, and one table of them."""

from __future__ import annotations

from dataplane.core.balance.base import NOBODY, Balancer, Target
from dataplane.core.balance.modes import BALANCERS, build_balancer
from dataplane.core.balance.remap import moved_share, moved_share_steps
from dataplane.core.balance.sticky_table import StickyTable, client_key

__all__ = [
    "BALANCERS",
    "NOBODY",
    "Balancer",
    "StickyTable",
    "Target",
    "build_balancer",
    "client_key",
    "moved_share",
    "moved_share_steps",
]
