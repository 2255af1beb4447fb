"""What a service tells whoever keeps its health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dataplane.core.outlier import Evidence
    from dataplane.net.backend import Backend

__all__ = ["Observer"]


class Observer(Protocol):
    """Who is told what one service meets."""

    def backend_failed(self, backend: Backend, evidence: Evidence, cause: str) -> None:
        """A connect failed, or a reset came before the first byte."""

    def backend_spoke(self, backend: Backend) -> None:
        """A backend with failures sent a first byte."""

    def local_error(self, code: int) -> None:
        """This machine refused a socket or a port."""

    def drained(self) -> None:
        """A connection of the service ended while it drains."""
