"""The watch of one query: asks again and again, for ever, and never takes silence for an answer.

Theory of operation
-------------------
1. The rule is a blocking query in stale mode, which any server answers, with the last index: it rides through the
   election of a leader.
2. A plain read in the default mode, which only the leader answers, is made first, after every error, every
   `resync_s`, and as often as somebody wants confirmation. While it fails, a plain stale read takes its place.
3. An error changes nothing but the status: the index is forgotten and the pause grows. What an operator has to
   mend (a token, a filter) is asked again every `operator_s` only.
4. Every call has a deadline, so a connection that is dead without a sign costs one of them. Until then nothing can be
   told from a silence; `consul_pulse` asks whether anybody is there.
5. An answer with a lower index than the last one is older than what is known: right after the death of a leader, a
   server that has not caught up still says that it knows one. It is dropped, and the leader asked; what the leader
   says counts, for after a restored snapshot the index is lower for good.
6. A prepared query cannot block: it is asked every `poll_s`.
7. Where the query asks for a part of a service (by tags, by a filter that only Consul can evaluate) and something is
   missing, the leader is asked for all of the service, without blocking: what it still lists there has been moved,
   which nobody needs to doubt. What is known of it holds for as long as the index of the answers stays the same,
   and the question is put at most every `whole_s`, for a large service is a large answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from controlplane.core.backoff import Backoff, BadIndex, TokenBucket, WatchIndex, jittered
from controlplane.core.instances import Names, listed
from controlplane.core.track import Trust
from controlplane.discovery.consul.query import Query, trust_of
from controlplane.discovery.consul.settings import ConsulError

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import ConsulClient, Reply


@dataclass(frozen=True, slots=True)
class Wish:
    """What whoever received an answer wants to know more of."""

    confirm_every: float | None = None
    """How often a leader's confirmation is wanted, in seconds; None: not at all."""
    whole: bool = False
    """Whether what is missing may be listed elsewhere in the service."""

    @classmethod
    def of_all(cls, wishes: Sequence[Wish]) -> Wish:
        """Return the wish that fulfils all of these."""
        every = [wish.confirm_every for wish in wishes if wish.confirm_every is not None]
        return cls(min(every, default=None), whole=any(wish.whole for wish in wishes))


Receive = Callable[[list[object], Trust, Names | None], Wish]
"""Takes the entries of an answer, and whom the whole service lists if that is known."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often, and how long; all in seconds."""

    wait_s: float = 30.0
    """How long one query blocks; the server adds up to a sixteenth."""
    slack_s: float = 5.0
    """What the deadline of a call adds to that."""
    resync_s: float = 300.0
    poll_s: float = 10.0
    operator_s: float = 30.0
    max_retry_after_s: float = 60.0
    pulse_s: float = 3.0
    """How often an agent is asked whether it answers at all; 0: never."""
    pulse_timeout_s: float = 2.5
    whole_s: float = 1.0
    """How long to wait after a question for all of a service before the next one."""
    rate: float = 10.0
    """The most questions of one watch in a second, after a burst of two."""

    def blocking(self, index: int, wait_s: float) -> tuple[list[tuple[str, str]], float]:
        """Return the parameters of a question that waits for a change, and its deadline in seconds."""
        how = [("index", str(index)), ("wait", f"{max(1, int(wait_s * 1000))}ms")]
        return how, wait_s * 17 / 16 + self.slack_s

    def pause_after(self, error: ConsulError, backoff: Backoff, chance: Callable[[], float]) -> float:
        """Return how long to wait before the next question, in seconds; the failure is counted."""
        if error.is_operators:
            return min(self.operator_s, error.retry_after_s or self.operator_s)
        return max(backoff.fail(chance), min(error.retry_after_s or 0.0, self.max_retry_after_s))


@dataclass(frozen=True, slots=True)
class Runtime:
    """Time and chance: the system's, for tests to take over."""

    clock: Callable[[], float] = time.monotonic
    """Monotonic seconds."""
    wall: Callable[[], float] = time.time
    """Seconds since the epoch."""
    random: Callable[[], float] = random.random
    """0 <= x < 1."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    def rfc3339(self, at: float) -> str:
        """Return a monotonic time as UTC text."""
        moment = datetime.fromtimestamp(self.wall() - (self.clock() - at), UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class WatchHealth:
    """How a watch is doing."""

    error: ConsulError | None = None
    """What went wrong last; None if the last question was answered."""
    answered_at: float | None = None
    index: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    """`leader`, `contact_ms`, `backend`, as the last answer had them."""
    polls: int = 0
    wakes: int = 0
    """Blocking queries that returned with another index."""
    resets: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """By kind."""


_SHOWN_HEADERS = {
    "leader": "X-Consul-KnownLeader",
    "contact_ms": "X-Consul-LastContact",
    "backend": "X-Consul-Query-Backend",
}


class Watch:
    """One query's watch: `receive` takes every answer, and `notify` is called after every change of `health`."""

    def __init__(
        self, query: Query, receive: Receive, notify: Callable[[], None], *, pace: Pace, runtime: Runtime
    ) -> None:
        self.query = query
        self.health = WatchHealth()
        self._receive = receive
        self._notify = notify
        self._pace = pace
        self._runtime = runtime
        self._index = WatchIndex()
        self._newest = 0  # the index of the last answer that was handed on
        self._bucket = TokenBucket(rate=pace.rate, burst=2)
        self._backoff = Backoff()
        self._leader_failed = False
        self._confirm_every: float | None = None
        self._leader_due = 0.0  # when the next read in the default mode is due
        self._whole: tuple[int, Names] | None = None  # whom all of the service lists, and at which index
        self._whole_due = 0.0  # when it may be asked for again

    async def run(self, client: ConsulClient) -> None:
        """Watch until cancelled."""
        runtime = self._runtime
        self._index.forget()
        self._leader_due = runtime.clock()
        while True:
            await runtime.sleep(self._bucket.take(runtime.clock()))
            try:
                await self._ask(client)
            except ConsulError as error:
                await runtime.sleep(self._failed(error))
            else:
                if self.query.prepared:
                    await runtime.sleep(jittered(self._pace.poll_s, runtime.random))

    async def _ask(self, client: ConsulClient) -> None:
        """Put the question once, in the mode that is due."""
        if self.query.prepared or self._wants_leader():
            try:
                await self._read(client, from_leader=True)
            except ConsulError:
                self._leader_failed = True
                self._leader_due = self._runtime.clock() + self._pace.slack_s
                raise
            self._leader_failed = False
        elif self._index.value == 0:
            # the leader did not answer; any server may
            self._leader_failed = False
            await self._read(client, from_leader=False)
        else:
            await self._block(client)

    def _wants_leader(self) -> bool:
        if self._index.value == 0:
            return not self._leader_failed
        return self._runtime.clock() >= self._leader_due

    async def _read(self, client: ConsulClient, *, from_leader: bool) -> None:
        """Read without waiting for a change."""
        mode = [] if from_leader else [("stale", "")]
        reply = await self._get(client, mode, timeout_s=self._pace.slack_s)
        await self._take(client, reply, from_leader=from_leader)
        if from_leader:
            pause_s = self._confirm_every or jittered(self._pace.resync_s, self._runtime.random)
            self._leader_due = self._runtime.clock() + pause_s

    async def _block(self, client: ConsulClient) -> None:
        """Wait for a change."""
        wait_s = jittered(
            min(self._pace.wait_s, self._confirm_every or self._pace.wait_s), self._runtime.random
        )
        before = self._index.value
        how, timeout_s = self._pace.blocking(before, wait_s)
        reply = await self._get(client, [*how, ("stale", "")], timeout_s=timeout_s)
        await self._take(client, reply, from_leader=False)
        self.health.wakes += self._index.value != before

    async def _get(self, client: ConsulClient, how: list[tuple[str, str]], *, timeout_s: float) -> Reply:
        self.health.polls += 1
        return await client.get(self.query.path(), [*self.query.params(), *how], timeout_s=timeout_s)

    async def _take(self, client: ConsulClient, reply: Reply, *, from_leader: bool) -> None:
        """Pass an answer on.

        Raises:
            ConsulError: It is none.
        """
        entries = self.query.entries(reply)
        is_older = self._is_older(reply) and not from_leader
        health = self.health
        health.error = None
        health.answered_at = self._runtime.clock()
        health.index, health.resets = self._index.value, self._index.resets
        health.headers = {
            name: reply.headers[header] for name, header in _SHOWN_HEADERS.items() if header in reply.headers
        }
        if is_older:
            self._leader_due = self._runtime.clock()
        else:
            self._backoff.succeed()
            await self._hand_on(client, entries, trust_of(reply.headers, from_leader=from_leader))
        self._notify()

    def _is_older(self, reply: Reply) -> bool:
        """Take over an answer's index; True if it is lower than the last one's.

        Raises:
            ConsulError: It has none.
        """
        if self.query.prepared:
            return False
        return not take_index(self._index, reply) or self._index.value < self._newest

    async def _hand_on(self, client: ConsulClient, entries: list[object], trust: Trust) -> None:
        index = self._newest = self._index.value
        known = self._whole[1] if self._whole is not None and self._whole[0] == index else None
        wish = self._receive(entries, trust, known)
        if wish.whole and known is None:
            self._notify()  # what is new need not wait
            known = await self._ask_whole(client)
            if known is not None:
                wish = self._receive(entries, trust, known)
        if not wish.whole and known is None:
            self._whole = None
        if wish.confirm_every is not None and self._confirm_every is None and not trust.confirmed:
            self._leader_due = self._runtime.clock()  # the first confirmation is wanted now
        self._confirm_every = wish.confirm_every

    async def _ask_whole(self, client: ConsulClient) -> Names | None:
        """Return whom all of the service lists; None if that is not known: then what is missing may be gone."""
        query, now = self.query.whole(), self._runtime.clock()
        if query is None or now < self._whole_due:
            return None
        self._whole_due = now + self._pace.whole_s
        self.health.polls += 1
        index = WatchIndex()
        try:
            reply = await client.get(query.path(), query.params(), timeout_s=self._pace.slack_s)
            names = listed(query.entries(reply))
            take_index(index, reply)
        except ConsulError as error:
            self.health.errors[error.kind] += 1
            return None
        if not trust_of(reply.headers, from_leader=True).confirmed:
            return None
        self._whole = (index.value, names)
        return names

    def _failed(self, error: ConsulError) -> float:
        """Note a failure and return the pause before the next question, in seconds."""
        health = self.health
        self._index.forget()
        health.error = error
        health.index = 0
        health.errors[error.kind] += 1
        self._notify()
        return self._pace.pause_after(error, self._backoff, self._runtime.random)


def take_index(index: WatchIndex, reply: Reply) -> bool:
    """Take over the index of a reply; result as for `WatchIndex.take`.

    Raises:
        ConsulError: It has none.
    """
    try:
        return index.take(reply.headers.get("X-Consul-Index"))
    except BadIndex as error:
        raise ConsulError("protocol", str(error)) from None
