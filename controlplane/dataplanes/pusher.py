"""Keeps every data plane at what was accepted last: one pusher for each, level-triggered.

Theory of operation:

1. A pusher knows one wish, the newest. A newer one replaces it; none is queued.
2. It asks what its data plane runs, twice a second and whenever the wish changes, and decides from that
   alone (`core.rollout.next_step`). So a restart, a lost answer or a crash of ours needs no special case.
3. What was refused is offered again at once when the wish or the process behind the socket changes, and else after
   growing pauses: what the data plane objects to may lie with its machine.
4. After a push, ours or another's, and to a new process, overrides are sent again.
5. Whoever cannot be reached is tried again after a growing, jittered pause, or when its socket is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from controlplane.core.backoff import Backoff
from controlplane.core.merge import Place
from controlplane.core.rollout import Identity, Running, Step, Target, next_step
from controlplane.dataplanes import requests
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import DataPlaneError, RefusedError, UnreachableError


class Asks(Protocol):
    """What a pusher needs of a client."""

    endpoint: Endpoint

    async def ask(self, call: requests.Call, *, timeout_s: float) -> dict[str, Any]:
        """Send a request and return its answer, or raise a `DataPlaneError`."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a data plane should run."""

    target: Target
    body: bytes
    """The snapshot as JSON, encoded once for all."""
    words: Mapping[Place, str | int] = field(default_factory=dict)
    """Overrides: `core.merge.words`."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient a pusher is, in seconds."""

    look_s: float = 0.5
    """Between two looks at what a data plane runs."""
    info_s: float = 2.0
    """For an answer to a look; then it counts as hanging."""
    push_s: float = 30.0
    """For an acknowledgement; all workers of a large snapshot."""
    retry_s: float = 0.25
    """The first pause after a failure; it doubles,"""
    retry_max_s: float = 5.0
    """up to this."""
    refused_s: float = 2.0
    """The first pause before what was refused is offered again; it doubles,"""
    refused_max_s: float = 60.0
    """up to this."""


@dataclass(slots=True)
class Pushes:
    """What became of the snapshots that were sent to one data plane."""

    acked: int = 0
    refused: int = 0
    failed: int = 0
    """Nobody answered, or not in time: it may run it all the same."""
    acked_s: float = 0.0
    """From sending to the acknowledgement, of all acknowledged ones together."""


class Refused:
    """What one data plane has refused, and when that is offered again (rule 3)."""

    def __init__(self, pauses: Backoff, jitter: Callable[[], float]) -> None:
        self.error: RefusedError | None = None
        """What it said; None: it has refused nothing since it took something."""
        self._pauses = pauses
        self._jitter = jitter
        self._what: tuple[Target, str] | None = None
        self._again_at = 0.0

    def note(self, target: Target, instance: str, error: RefusedError, now: float) -> None:
        """Note a refusal by a process; another target or process begins with the first pause."""
        if self._what != (target, instance):
            self._pauses.succeed()
        self.error, self._what = error, (target, instance)
        self._again_at = now + self._pauses.fail(self._jitter)

    def taken(self) -> None:
        """Forget it: something was taken."""
        self.error = self._what = None

    def known(self, now: float) -> tuple[Target, str] | None:
        """Return what was refused by whom; None: nothing, or it is due to be offered again."""
        return self._what if now < self._again_at else None

    def includes(self, target: Target) -> bool:
        """Tell whether this was refused last."""
        return self._what is not None and self._what[0] == target


class Pusher:
    """One data plane's.

    Args:
        client: Asks it.
        on_ahead: Called when it runs a generation that the wish cannot follow.
        on_change: Called after anything that `status` would show has changed.
        jitter: Returns 0..1; pauses vary by half of themselves, so that many do not come at once.
        clock: Monotonic seconds.
        timing: How patient it is.
    """

    def __init__(
        self,
        client: Asks,
        *,
        on_ahead: Callable[[Running], None],
        on_change: Callable[[], None],
        jitter: Callable[[], float],
        clock: Callable[[], float],
        timing: Timing = Timing(),
    ) -> None:
        self.endpoint = client.endpoint
        self.client = client
        self.running: Running | None = None
        """What it ran at the last look; None: never seen."""
        self.error: DataPlaneError | None = None
        """Why it is not where it should be; None: it is, or nobody has asked."""
        self.pushes = Pushes()
        self.looked = asyncio.Event()
        """Set after the first look, whatever came of it."""
        self._on_ahead = on_ahead
        self._on_change = on_change
        self._jitter = jitter
        self._clock = clock
        self._timing = timing
        self._wish: Wish | None = None
        self._woken = asyncio.Event()
        self._retries = Backoff(timing.retry_s, timing.retry_max_s, least=0.5)
        self._refused = Refused(Backoff(timing.refused_s, timing.refused_max_s, least=0.5), jitter)
        self._told: dict[Place, str | int] = {}
        self._identity = Identity()
        self._tried: Wish | None = None

    @property
    def reachable(self) -> bool:
        """Whether the last look was answered, refusals included."""
        return self.running is not None and (self.error is None or isinstance(self.error, RefusedError))

    def want(self, wish: Wish) -> None:
        """Replace the wish (rule 1)."""
        self._wish = wish
        self.wake()

    def wake(self) -> None:
        """Look now."""
        self._woken.set()

    def runs(self, wish: Wish) -> bool:
        """Tell whether it runs the wish, overrides included; its content may have got a higher generation."""
        running, target = self.running, wish.target
        return (
            running is not None
            and running.hash == target.hash
            and running.generation >= target.generation
            and all(self._told.get(place) == value for place, value in wish.words.items())
        )

    def settled(self, wish: Wish) -> bool:
        """Tell whether waiting for the wish would change nothing soon.

        It was asked since, and runs it, or something newer, or has refused it; or nobody listens there. What it ran
        before is no answer: it may have died, or hang, since then.
        """
        if self._tried is not wish:
            return False
        target, running = wish.target, self.running
        newer = running is not None and (
            running.generation > target.generation
            or (running.generation == target.generation and running.hash != target.hash)
        )
        gone = isinstance(self.error, UnreachableError)
        return self.confirms(wish) or newer or self._refused.includes(target) or gone

    def confirms(self, wish: Wish) -> bool:
        """Tell whether it has said, since it was wished, that it runs it."""
        return self._tried is wish and self.error is None and self.runs(wish)

    async def run(self) -> None:
        """Push until cancelled."""
        while True:
            self._woken.clear()
            before, wish = self._visible(), self._wish
            try:
                await self._reconcile()
            except DataPlaneError as error:
                self.error = error
                answered = isinstance(error, RefusedError) and error.permanent()
            else:
                answered = True
            self._tried = wish
            self.looked.set()
            if before != self._visible():
                self._on_change()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause(answered=answered)):
                    await self._woken.wait()

    def _visible(self) -> tuple[object, ...]:
        told = self._wish is not None and self.runs(self._wish)
        # Two wishes of the same content are two questions.
        return (self.running, str(self.error), told, id(self._tried))

    def _pause(self, *, answered: bool) -> float:
        if not answered:
            return self._retries.fail(self._jitter)
        self._retries.succeed()
        return self._timing.look_s

    async def _reconcile(self) -> None:
        running = await self._look()
        wish = self._wish
        step = next_step(wish.target if wish else None, running, self._refused.known(self._clock()))
        if wish is None:
            self.error = None
            return
        if step is Step.RAISE:
            self._on_ahead(running)
            self.error = None
            return
        if step is Step.PUSH:
            running = await self._push(wish, running)
        if (running.generation, running.hash) == (wish.target.generation, wish.target.hash):
            await self._tell(wish)
            self.error = None
        elif self._refused.error is not None:
            self.error = self._refused.error

    async def _look(self) -> Running:
        info = await self.client.ask(requests.get("/v1/info"), timeout_s=self._timing.info_s)
        instance = self._identity.of(info, self._clock())
        running = Running(instance, info.get("generation", 0), info.get("hash", ""), info.get("pushed_by"))
        if running != self.running:
            self._told = {}
        self.running = running
        return running

    async def _push(self, wish: Wish, running: Running) -> Running:
        sent_at = self._clock()
        try:
            ack = await self.client.ask(requests.put_snapshot(wish.body), timeout_s=self._timing.push_s)
        except RefusedError as error:
            self.pushes.refused += 1
            if error.permanent():
                self._refused.note(wish.target, running.instance, error, self._clock())
            raise
        except DataPlaneError:
            self.pushes.failed += 1
            raise
        self.pushes.acked += 1
        self.pushes.acked_s += self._clock() - sent_at
        self._refused.taken()
        self._told = {}
        self.running = Running(running.instance, ack.get("generation", 0), ack.get("hash", ""))
        return self.running

    async def _tell(self, wish: Wish) -> None:
        """Send the overrides that this process has not been told (rule 4)."""
        for place, value in wish.words.items():
            if self._told.get(place) == value:
                continue
            service, backend, name = place
            try:
                await self.client.ask(
                    requests.patch_backend(service, backend, {name: value}), timeout_s=self._timing.info_s
                )
            except RefusedError as error:
                if not error.permanent():
                    raise
            self._told[place] = value
