"""Verdicts of active checks: the body of `PUT /v1/health`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.fields import BackendId, Frozen, ServiceName, Text

__all__ = ["HealthUpdate", "Verdict"]


class Verdict(Frozen):
    """What the checks of one backend say."""

    state: Literal["up", "down", "unknown"]
    """`ejected` is missing: that is each worker's own observation."""
    reachable: Annotated[bool, Field(strict=True)] | None = None
    """Of one that is down: whether a connection can be made, so that it may serve when nobody is healthy (`panic`).
    null: what is known of that stays, and without checks of our own nothing speaks against it."""
    cause: Annotated[Text, Field(max_length=255)] = ""
    """Why, in a few words: `connection refused`."""
    since: Annotated[Text, Field(max_length=40)] = ""
    """RFC 3339, UTC; empty if nobody knows."""


class HealthUpdate(Frozen):
    """Verdicts for some or all backends; those not named keep theirs."""

    verdicts: dict[ServiceName, dict[BackendId, Verdict]]
    """By service and backend id."""

    def body(self) -> dict[str, Any]:
        """Return what travels as JSON."""
        return self.model_dump(mode="json")
