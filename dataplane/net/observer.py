"""What services tell whoever keeps their health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dataplane.core.outlier import Evidence
    from dataplane.net.backend import Backend
    from dataplane.net.service import Service

__all__ = ["Observer"]


class Observer(Protocol):
    """Who is told what a service meets."""

    def backend_failed(self, service: Service, backend: Backend, evidence: Evidence, cause: str) -> None:
        """A connect failed, or a reset came before the first byte."""

    def backend_spoke(self, service: Service, backend: Backend) -> None:
        """A backend with failures sent a first byte."""

    def local_error(self, service: Service, code: int) -> None:
        """This machine refused a socket or a port."""

    def drained(self, service: Service) -> None:
        """A connection of a draining service ended."""
