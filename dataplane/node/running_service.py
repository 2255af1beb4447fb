"""A service together with what only the runtime needs of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.core.outlier import Outliers

if TYPE_CHECKING:
    from dataplane.core.balance import StickyTable
    from dataplane.core.outlier import Evidence
    from dataplane.core.spec import BackendSpec, ServiceSpec
    from dataplane.net.backend import Backend
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

    def __init__(self, node: Node, spec: ServiceSpec) -> None:
        self._node = node
        self.service = service = node.make_service(spec, self)
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

    # -- what the service meets (net.observer.Observer) ------------------------------------------------

    def backend_failed(self, backend: Backend, evidence: Evidence, cause: str) -> None:
        """Count a failed connect or an early reset."""
        self._node.backend_failed(self, backend, evidence, cause)

    def backend_spoke(self, backend: Backend) -> None:
        """End a streak of failures."""
        backend.failures = 0
        self.outliers.success(backend.id)

    def local_error(self, code: int) -> None:
        """Say that this machine ran out of something."""
        self._node.local_error(self.service.name, code)

    def drained(self) -> None:
        """Forget a removed service when its last connection has gone."""
        self._node.drained(self)
