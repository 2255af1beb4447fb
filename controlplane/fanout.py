"""One apply to many data planes at once, from a command: look, dry run, push; who failed is left out of the rest."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from controlplane import calls
from controlplane.acceptance import ApplyOptions, plan_report, result_row
from controlplane.blocking import BlockingClient, Outcome, Question, ask_all
from controlplane.core.merge import Place
from controlplane.errors import DataPlaneError, RefusedError
from controlplane.places import Endpoint

__all__ = ["LOOK_S", "Fanout", "asking"]

LOOK_S: Final = 5.0
"""For a question that changes nothing: a data plane that needs longer hangs."""
_LEAST_S: Final = 0.1


def asking(call: calls.Call) -> Question:
    """Make a question for `ask_all` of one call."""
    return lambda client, timeout_s: client.ask(call, timeout_s=timeout_s)


class Fanout:
    """The data planes of one apply, and what came of each so far."""

    def __init__(self, clients: Sequence[BlockingClient], options: ApplyOptions) -> None:
        self._clients = tuple(clients)
        self._options = options
        self._deadline = time.monotonic() + options.timeout_s
        self._look_s = min(LOOK_S, options.timeout_s / 2)
        self._info: dict[Endpoint, dict[str, Any]] = {}
        self._errors: dict[Endpoint, DataPlaneError] = {}

    def look(self) -> list[tuple[int, str]]:
        """Return generation and hash of each data plane that answers."""
        outcomes = self._ask(asking(calls.get("/v1/info")), self._look_s)
        self._info = {each.endpoint: each.answer for each in outcomes if each.answer is not None}
        return [(info["generation"], info["hash"]) for info in self._info.values()]

    def dry_run(self, body: bytes, old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        """Return the joined plan; see `plan_report`."""
        outcomes = self._ask(asking(calls.put_snapshot(body, dry_run=True)), self._look_s)
        return plan_report([(each.endpoint, each.answer, each.error) for each in outcomes], old, new)

    def refusals(self) -> list[DataPlaneError]:
        """Return who has said no."""
        return [error for error in self._errors.values() if isinstance(error, RefusedError)]

    def push(self, body: bytes, told: Mapping[Place, str | int]) -> None:
        """Push the snapshot and the overrides until the deadline."""

        def push_one(client: BlockingClient, timeout_s: float) -> dict[str, Any]:
            # Whoever pushed something else since our look is not overwritten unseen.
            if_match = None if self._options.force else self._info[client.endpoint]["hash"]
            ack = client.ask(calls.put_snapshot(body, if_match=if_match or None), timeout_s=timeout_s)
            for (service, backend, name), value in told.items():
                client.ask(calls.patch_backend(service, backend, {name: value}), timeout_s=timeout_s)
            return ack

        outcomes = self._ask(push_one, max(_LEAST_S, self._deadline - time.monotonic()))
        for each in outcomes:
            if each.answer is not None:
                known = self._info[each.endpoint]
                self._info[each.endpoint] = {
                    **known,
                    **{key: each.answer[key] for key in ("generation", "hash")},
                }

    def succeeded(self) -> int:
        """Return how many have not failed so far."""
        return len(self._clients) - len(self._errors)

    def rows(self) -> list[dict[str, Any]]:
        """Tell how each data plane took it, and what it runs now."""
        return [
            result_row(each.endpoint, self._errors.get(each.endpoint), self._info.get(each.endpoint, {}))
            for each in self._clients
        ]

    def _ask(self, question: Question, timeout_s: float) -> tuple[Outcome, ...]:
        able = [client for client in self._clients if client.endpoint not in self._errors]
        outcomes = ask_all(able, question, timeout_s=timeout_s)
        self._errors.update({each.endpoint: each.error for each in outcomes if each.error is not None})
        return outcomes
