"""What a change would do on all nodes: each node's daemon is asked for its plan, and their impact is added up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controlplane.core.nodes import NodeView, Picture
from controlplane.core.plan import join_changes, join_impacts
from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import BlockingClient, Outcome, ask_all
from controlplane.dataplanes.endpoint import endpoint_of
from controlplane.dataplanes.requests import Caller
from controlplane.errors import DataPlaneError, RefusedError

_READ_ONLY: Final = frozenset({401, 403})


@dataclass(frozen=True, slots=True)
class NodePlan:
    """What one node's daemon says."""

    node: str
    address: str | None
    answer: Mapping[str, Any] | None
    """None: it could not be asked, or refuses."""
    result: str
    """`ok`, `refused`, `unreachable`, `late`, or `no_address`."""
    error: str | None

    def report(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        answer = self.answer or {}
        return {
            "node": self.node,
            "address": self.address,
            "result": self.result,
            "error": self.error,
            "changes": None if self.answer is None else len(answer["changes"]),
            "impact": answer.get("impact"),
            "unserved": list(answer.get("unserved", ())),
        }


def plan_everywhere(
    picture: Picture, document: Mapping[str, Any], caller: Caller, *, timeout_s: float
) -> dict[str, Any]:
    """Ask every live node, each at the address in its record.

    Args:
        picture: Who is there.
        document: The lb.yaml, as it was written: each node replaces its own variables.
        caller: With the token of their APIs.
        timeout_s: For all of it.

    Returns:
        `{changes, impact, nodes: [{node, address, result, error, changes, impact, unserved}]}`: changes once each, connections
        summed, of shares the largest.
    """
    live = [(view, _address(view)) for view in picture.live()]
    asked = [(view, address) for view, address in live if address is not None]
    clients = [BlockingClient(endpoint_of(address), caller) for _, address in asked]
    outcomes = ask_all(clients, requests.post("/v1/plan", dict(document)), timeout_s=timeout_s)
    rows = [
        _row(view.name, address, outcome) for (view, address), outcome in zip(asked, outcomes, strict=True)
    ]
    rows += [
        NodePlan(
            view.name,
            None,
            None,
            "no_address",
            "its record has no address: it needs cluster.address, and lb-control run --http",
        )
        for view, address in live
        if address is None
    ]
    answers = [each.answer for each in rows if each.answer is not None]
    return {
        "changes": join_changes(answer["changes"] for answer in answers),
        "impact": join_impacts([answer["impact"] for answer in answers]),
        "nodes": [each.report() for each in sorted(rows, key=lambda each: each.node)],
    }


def _address(view: NodeView) -> str | None:
    return None if view.record is None else view.record.address


def _row(node: str, address: str, outcome: Outcome) -> NodePlan:
    error: DataPlaneError | None = outcome.error
    if isinstance(error, RefusedError) and error.http_status in _READ_ONLY:
        words = f"{error.message}; --token-file names its token"
        return NodePlan(node, address, None, "refused", words)
    if error is not None:
        return NodePlan(node, address, None, error.code, str(error))
    answer = outcome.answer or {}
    if not _is_plan(answer):
        return NodePlan(
            node, address, None, "unreachable", "the answer is no plan: no daemon of ours is there"
        )
    failed: Sequence[Mapping[str, Any]] = [row for row in answer["dataplanes"] if row["result"] != "ok"]
    if failed:
        said = "; ".join(f"{row['name']}: {row['error']}" for row in failed)
        return NodePlan(node, address, answer, "refused", said)
    return NodePlan(node, address, answer, "ok", None)


def _is_plan(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer has what is used of it: an address in a record may lead anywhere."""
    impact = answer.get("impact")
    return (
        isinstance(answer.get("changes"), list)
        and isinstance(answer.get("dataplanes"), list)
        and isinstance(impact, dict)
        and isinstance(impact.get("remap"), dict)
    )
