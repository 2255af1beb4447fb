"""What commands can do, whether through the daemon or straight to the data planes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from controlplane.desired.document import Proposal
from controlplane.operations.options import ApplyOptions

__all__ = ["Gateway"]


class Gateway(Protocol):
    """The way to the data planes. Every answer is JSON, in the form that `--json` prints.

    Every method raises `ControlError` for what an operator has to see instead.
    """

    def plan(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Return `{changes, impact, dataplanes: [{name, socket, result, error, generation, hash}]}`."""

    def apply(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Return what `plan` returns, and `{generation, hash, converged, warnings}`."""

    def rollback(self, generation: int | None, options: ApplyOptions) -> dict[str, Any]:
        """Return what `apply` returns, and `{restored}`, the generation whose content it is."""

    def patch(self, service: str, backend: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Override fields of a backend; return `{service, id, fields, dataplanes, warnings}`."""

    def status(self) -> dict[str, Any]:
        """Return the status of the node."""

    def snapshot(self) -> dict[str, Any]:
        """Return the snapshot that should run."""

    def history(self) -> dict[str, Any]:
        """Return `{history, warnings}`: every known generation, the oldest first, and what cannot be read."""
