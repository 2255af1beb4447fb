"""A service together with what only the runtime needs of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.core.outlier import Outliers

if TYPE_CHECKING:
    from dataplane.core.balance import StickyTable
    from dataplane.core.spec import BackendSpec
    from dataplane.net.service import Service
    from dataplane.node.node import Node

__all__ = ["Running"]


class Running:
    """A service together with what only the runtime needs of it."""

    __slots__ = (
        "_node",
        "configured",
        "loops",
        "outliers",
        "panic",
        "service",
        "serving",
        "tables",
        "tick",
    )

    def __init__(self, node: Node, service: Service) -> None:
        self._node = node
        self.service = service
        self.configured: dict[str, BackendSpec] = {}
        """Backends as the snapshot has them, by id; `Backend.spec` has the overrides applied."""
        self.loops: frozenset[str] = frozenset()
        """The ids of those backends that lead back into the balancer by what was configured."""
        self.outliers = Outliers(service.spec.passive)
        self.tables: dict[int, StickyTable] = {}
        """Of mode `sticky`, by tier."""
        self.panic = False
        self.serving = -1
        """How many backends clients may get; -1 before the first selection."""
        self.tick = 0

    def on_timer(self, now: float) -> None:
        """End ejections whose time is over, and let slow starters grow."""
        self._node.on_service_timer(self, now)
