"""What the data plane's API is sent besides the snapshot, and how it is checked."""

from __future__ import annotations

from collections.abc import Generator
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from schemas.errors import InvalidDocument
from schemas.fields import BackendId, Frozen, ServiceName, Text, Word, refused
from schemas.reading.findings import checked, findings_of, to_problems
from schemas.snapshot import SLICE, OperatorState


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


class PushedBy(Frozen):
    """The header `Livelb-Pushed-By` of `PUT /v1/snapshot`, as JSON: who pushes, for whoever wonders."""

    program: Word
    """As `lb-control run`."""
    host: Word
    """Its machine's name."""
    pid: Annotated[int, Field(strict=True, ge=1)]
    """As it sees itself."""
    user: Word
    """Whose it is."""
    source: Word | None = None
    """The file or key that it follows."""

    def __str__(self) -> str:
        source = f", from {self.source}" if self.source else ""
        return f"{self.program} of {self.user} (pid {self.pid} on {self.host}){source}"


class BackendPatch(Frozen):
    """`PATCH /v1/services/{service}/backends/{id}`: an operator's override."""

    state: OperatorState | None = None
    """None: leave it alone."""
    weight: Annotated[int, Field(strict=True, ge=0, le=256)] | None = None
    """None: leave it alone."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.state is None and self.weight is None:
            raise refused(((), "must say state, weight or both"))
        return self

    def body(self) -> dict[str, Any]:
        """Return what travels as JSON: only what is overridden."""
        return self.model_dump(mode="json", exclude_none=True)


class DrainOrder(Frozen):
    """`PUT /v1/drain`: whether the connections in place are to end; new clients are served as ever."""

    draining: Annotated[bool, Field(strict=True)]
    """True: each has the drain timeout of its service. False: those that only this has given one have none any more."""


class BackendsPatch(Frozen):
    """`PATCH /v1/services/{service}/backends`: overrides of many backends, made together or not at all."""

    backends: Annotated[dict[BackendId, BackendPatch], Field(min_length=1)]
    """By backend id; those not named keep what they have."""


_PATCHES: Final = TypeAdapter(dict[BackendId, BackendPatch])


def parse_backends_patch_steps(data: object) -> Generator[None, None, BackendsPatch]:
    """Check a decoded body in slices of SLICE backends; the generator returns what it says.

    What is wrong is found at once: a refusal is rare, and wants every problem.

    Raises:
        InvalidDocument: It has every problem found, by path.
    """
    backends = data.get("backends") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(backends, dict) or len(backends) <= SLICE:
        return checked(BackendsPatch, data)
    items = list(backends.items())
    made: dict[str, BackendPatch] = {}
    try:
        for start in range(0, len(items), SLICE):
            made |= _PATCHES.validate_python(dict(items[start : start + SLICE]))
            yield
    except ValidationError:
        return checked(BackendsPatch, data)
    return checked(BackendsPatch, {**data, "backends": made})


def parse_pushed_by(text: str) -> PushedBy:
    """Check the header of a push. InvalidDocument: it is not JSON, or says something else."""
    try:
        return PushedBy.model_validate_json(text)
    except ValidationError as error:
        raise InvalidDocument(to_problems(findings_of(error, PushedBy), {})) from None
