"""Commands through the daemon: it is the one writer, and it keeps what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import BlockingClient
from controlplane.desired.document import Proposal
from controlplane.errors import HeldBackError, InputError, RefusedError, UnknownError
from controlplane.operations.options import ApplyOptions, query_of_options

__all__ = ["Remote"]

_LOOK_S: Final = 10.0
_GRACE_S: Final = 5.0
"""The daemon keeps the deadline, and then still has to say so."""
_INVALID: Final = 422
_UNKNOWN: Final = 404


class Remote:
    """The way to the data planes when a daemon runs; `Direct` can do the same without one.

    Every answer is JSON, in the form that `--json` prints; a `ControlError` is what an operator has to see instead.
    """

    direct: ClassVar = False

    def __init__(self, client: BlockingClient) -> None:
        self._client = client

    def plan(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Return `{changes, impact, dataplanes: [{name, socket, result, error, generation, hash}]}`."""
        call = requests.post("/v1/plan", proposal.document, **query_of_options(options))
        return self._ask(call, options.timeout_s + _GRACE_S)

    def apply(self, proposal: Proposal, options: ApplyOptions) -> dict[str, Any]:
        """Return what `plan` returns, and `{generation, hash, converged, warnings}`."""
        call = requests.post("/v1/apply", proposal.document, **query_of_options(options))
        return self._ask(call, options.timeout_s + _GRACE_S)

    def rollback(self, generation: int | None, options: ApplyOptions) -> dict[str, Any]:
        """Return what `apply` returns, and `{restored}`, the generation whose content it is."""
        body = {} if generation is None else {"generation": generation}
        call = requests.post("/v1/rollback", body, **query_of_options(options))
        return self._ask(call, options.timeout_s + _GRACE_S)

    def patch(self, service: str, backend: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Override fields of a backend; return `{service, id, fields, dataplanes, warnings}`."""
        return self._ask(requests.patch_backend(service, backend, fields), _LOOK_S)

    def status(self) -> dict[str, Any]:
        """Return the status of the node."""
        return self._ask(requests.get("/v1/status"), _LOOK_S)

    def snapshot(self) -> dict[str, Any]:
        """Return the snapshot that should run."""
        return self._ask(requests.get("/v1/snapshot"), _LOOK_S)

    def history(self) -> dict[str, Any]:
        """Return `{history, warnings}`: every known generation, the oldest first, and what cannot be read."""
        return self._ask(requests.get("/v1/history"), _LOOK_S)

    def _ask(self, call: requests.Call, timeout_s: float) -> dict[str, Any]:
        try:
            return self._client.ask(call, timeout_s=timeout_s)
        except RefusedError as error:
            if error.http_status == _INVALID and error.details:
                raise InputError("", error.details) from error
            if error.http_status == _UNKNOWN:
                raise UnknownError(error.message) from error
            raise HeldBackError(error.message) from error
