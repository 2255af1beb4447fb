"""A change by way of a canary: some nodes take it first, are compared with the others, and then all take it, or none.

Theory of operation
-------------------
| step | what is done | what is there if the command is killed now |
|---|---|---|
| `begin` | lock and record, in one transaction, if neither the key nor the record was written since they were read | nothing, or a canary that ends by itself |
| `taking` | wait until the canary's nodes run it; one that refuses it, or goes, takes it back | the same |
| `observing` | compare, again and again (`core.verdict`); what is clearly worse, a node that refuses, goes or is not ready any more takes it back | the same |
| `promote` | the key gets the content and the record its end, in one transaction | a canary that ends by itself, or the new content for all |
| `take_back` | the record gets its end | a canary that ends by itself, or the old content for all |

1. Every write is made only if the record is what this command has written, and a promotion only if the key is what the canary was
   begun with. So no two commands can mix, whatever becomes of the lock.
2. A transaction without an answer may have been made: the record tells. It is asked until it is known, or until the canary's time is
   up, when every node has returned to the key by itself.
3. Nobody promotes after the canary's time: its nodes may have left it.
4. Another command goes on with a canary whose command has died: the same content under a new id, observed anew.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controlplane.cluster.canaries import Ending, refuse_others, running, with_end
from controlplane.cluster.choosing import Fresh, choose, followers
from controlplane.cluster.lock import Holder, Lock
from controlplane.cluster.looking import InterruptedHere, Look, Looker
from controlplane.cluster.record_writing import GIVE_UP_S, Fate, RecordWriting
from controlplane.core.arrival import Arrival, Awaited, Standing, arrivals
from controlplane.core.canary_record import MAX_CONTENT_BYTES, CanaryRecord, digest_of_content, seconds_of
from controlplane.core.node_record import NodeRecord
from controlplane.core.record_pace import numbers_every_s
from controlplane.core.verdict import Verdict, Window, judge
from controlplane.dataplanes.requests import here
from controlplane.discovery.consul.kv import Row, set_if, unchanged
from controlplane.errors import ControlError, HeldBackError, InputError
from controlplane.operations.options import now_text

SPARE_S: Final = 60.0
"""How much longer a canary lasts than everything should take: for the election of a leader, and for promoting."""
FRESH_S: Final = 10.0
"""How much longer than nodes take to tell their numbers again is waited for the last ones."""
_OTHERS: Final = "somebody else has ended the canary, or goes on with it"


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody wants."""

    raw: bytes
    nodes: int | tuple[str, ...]
    """How many, or which."""
    observe_s: float
    taking_s: float
    """How long nodes have to take a content."""
    by: str
    min_connections: int = 0
    """Fewer new connections on the canary's nodes take it back."""


@dataclass(slots=True)
class Report:
    """How it went."""

    ending: Ending | None = None
    """None: no canary was needed, for the key has this content."""
    why: str = ""
    record: CanaryRecord | None = None
    verdict: Verdict | None = None
    nodes: list[Arrival] = field(default_factory=list)
    """Who has taken what counts in the end: all, or after `taken_back` the canary's nodes."""


@dataclass(frozen=True, slots=True)
class _Began:
    """What there was when the canary began."""

    record: CanaryRecord
    key_index: int
    record_index: int
    deadline: float
    """When its time is up, by our monotonic clock, or earlier."""
    at: float
    nodes: Mapping[str, NodeRecord | None]
    """The live ones, as they were."""
    wall: float


class Rollout:
    """One canary, from its beginning to its end."""

    def __init__(self, looker: Looker, order: Order) -> None:
        self._looker = looker
        self._client = looker.client
        self._keys = looker.keys
        self._order = order
        self._say = looker.say
        self._hash = digest_of_content(order.raw)
        self._report = Report()
        self._writing = RecordWriting(looker)

    async def run(self) -> Report:
        """Do it.

        Raises:
            HeldBackError: Nothing was changed: somebody else changes it, or the nodes are not as they should be.
            ConsulError: Nothing was changed, for Consul does not answer; or the canary that has begun ends by itself.
        """
        if len(self._order.raw) > MAX_CONTENT_BYTES:
            raise InputError(
                self._keys.name,
                [
                    {
                        "path": "",
                        "message": f"is larger than {MAX_CONTENT_BYTES} bytes, the most with a canary",
                    }
                ],
            )
        look = await self._looker.first()
        refuse_others(self._keys, look.rows, self._hash)
        row = look.rows.get(self._keys.path)
        if row is None or not row.value:
            raise HeldBackError(
                f"nothing was changed: {self._keys.name} is empty, so there is nothing to compare a canary with; "
                "write it without --canary first"
            )
        if digest_of_content(row.value) == self._hash:
            return self._report
        lock = Lock(self._client, self._keys, self._holder())
        try:
            began = await self._begin(lock, look, row)
        except ControlError:
            await lock.drop()
            raise
        async with lock.renewed():
            await self._attend(began)
        return self._report

    def _holder(self) -> Holder:
        return Holder(self._order.by, here(), os.getpid(), now_text(), "a canary")

    # --- begin

    async def _begin(self, lock: Lock, look: Look, row: Row) -> _Began:
        known = running(self._keys, look.rows)
        nodes = known.nodes if known is not None else self._chosen(look)
        before = {view.name: view.record for view in look.picture.live()}
        record = CanaryRecord(
            id=secrets.token_hex(8),
            by=f"{self._order.by} on {here()}",
            since=now_text(),
            lasts_s=2 * self._order.taking_s + self._order.observe_s + _fresh_s(before) + SPARE_S,
            nodes=nodes,
            observe_s=self._order.observe_s,
            base=digest_of_content(row.value),
            content_hash=self._hash,
            content=self._order.raw.decode(),
        )
        old = look.rows.get(self._keys.canary)
        at, wall = time.monotonic(), time.time()
        mine = set_if(self._keys.canary, record.encode(), 0 if old is None else old.index)
        index = await self._writing.begin(record, lock, [unchanged(self._keys.path, row.index), mine])
        self._report.record = record
        names = ", ".join(nodes)
        if known is None:
            self._say(f"canary {record.short_id} begins on {names}")
        else:
            self._say(f"canary {known.short_id} of {known.by} goes on as {record.short_id} on {names}")
        return _Began(record, row.index, index, at + record.lasts_s, at, before, wall)

    def _chosen(self, look: Look) -> tuple[str, ...]:
        nodes = choose(look.picture, self._keys, self._order.nodes)
        if not followers(look.picture, self._keys) - set(nodes):
            self._say("no other node is left to compare with: each is compared with itself before")
        return nodes

    # --- attend

    async def _attend(self, began: _Began) -> None:
        """See a canary to its end."""
        why: str | None
        try:
            why = await self._taking(began) or await self._observing(began)
        except InterruptedHere:
            self._looker.stop.clear()
            why = "interrupted"
        if why is None:
            await self._promote(began)
        else:
            await self._take_back(began, why)

    async def _taking(self, began: _Began) -> str | None:
        """Wait until its nodes run it; return why it is to be taken back, None: they do."""
        awaited = Awaited(self._keys.path, self._hash, began.record.nodes, began.nodes)
        deadline = time.monotonic() + self._order.taking_s
        found = await self._looker.arrived(awaited, deadline)
        lacking = [each for each in found if each.standing is not Standing.RUNS]
        if not found:
            return "Consul did not say whether its nodes run it"
        if not lacking:
            return None
        late = "" if lacking[0].standing.is_settled else f" after {self._order.taking_s:g} s"
        return _lacking(lacking) + late

    async def _observing(self, began: _Began) -> str | None:
        """Compare; return why it is to be taken back, None: it is good."""
        awaited = Awaited(self._keys.path, self._hash, began.record.nodes, began.nodes)
        until = time.monotonic() + self._order.observe_s
        # Without the others' newest numbers, what hits all nodes would be the canary's fault.
        followed = {
            name for name, old in began.nodes.items() if old is not None and old.key == self._keys.path
        }
        compared = followed | set(began.record.nodes)
        begun, over, last = Fresh(compared), Fresh(compared), until + _fresh_s(began.nodes)
        self._say(f"observing for {self._order.observe_s:g} s")
        while True:
            look = await self._looker.look()
            now = time.monotonic()
            if now >= began.deadline:
                return "its time is up"
            if look is not None:
                bad = [
                    each
                    for each in arrivals(awaited, look.picture)
                    if each.standing.is_settled and each.standing is not Standing.RUNS
                ]
                if bad:
                    return _lacking(bad)
                why = self._disturbed(look, began) or _unready(look, began)
                if why is not None:
                    return why
                has_begun = begun.has_told(look.picture)
                is_over = now >= until and (over.has_told(look.picture) or now >= last)
                if has_begun or is_over:
                    verdict = self._verdict(began, look, early=not is_over)
                    if verdict.is_worse:
                        return verdict.why
                    if is_over:
                        return self._too_few(verdict)
            await self._looker.pause()

    def _disturbed(self, look: Look, began: _Began) -> str | None:
        """Say what somebody else has written."""
        key, canary = look.rows.get(self._keys.path), look.rows.get(self._keys.canary)
        if key is None or key.index != began.key_index:
            return f"somebody else has written {self._keys.name} meanwhile"
        if canary is None or canary.index != began.record_index:
            return _OTHERS
        return None

    def _too_few(self, verdict: Verdict) -> str | None:
        least = self._order.min_connections
        if verdict.connections >= least:
            return None
        return f"{verdict.connections} new connections on its nodes, fewer than --min-connections {least}"

    def _verdict(self, began: _Began, look: Look, *, early: bool) -> Verdict:
        mine, theirs = [], []
        for view in look.picture.live():
            old = began.nodes.get(view.name)
            if view.record is None or old is None:
                continue
            window = Window(
                view.name,
                old.outcomes,
                view.record.outcomes,
                max(0.0, began.wall - seconds_of(old.started)) if old.started else 0.0,
                restarted=old.started != view.record.started,
            )
            if view.name in began.record.nodes:
                mine.append(window)
            elif view.record.key == self._keys.path:
                theirs.append(window)
        verdict = judge(mine, theirs, time.monotonic() - began.at, early=early)
        self._report.verdict = verdict
        return verdict

    # --- the end

    async def _promote(self, began: _Began) -> None:
        verdict = self._report.verdict
        why = "" if verdict is None else verdict.why
        end = with_end(began.record, Ending.PROMOTED, why)
        key = set_if(self._keys.path, self._order.raw, began.key_index)
        fate = await self._writing.end(end, began.record_index, began.deadline, [key])
        if fate is Fate.BLOCKED:
            await self._take_back(began, f"somebody else has written {self._keys.name} meanwhile")
        elif self._ended(fate, end, began, why):
            self._say(f"promoted: every node takes it ({why})")
            await self._settle(Awaited(self._keys.path, self._hash, None, began.nodes))

    async def _take_back(self, began: _Began, why: str) -> None:
        end = with_end(began.record, Ending.TAKEN_BACK, why)
        fate = await self._writing.end(end, began.record_index, time.monotonic() + GIVE_UP_S)
        if self._ended(fate, end, began, why):
            self._say(f"taken back: {why}")
            content = await self._writing.content_hash() or began.record.base
            awaited = Awaited(self._keys.path, content, began.record.nodes, began.nodes)
            await self._settle(awaited, "runs what the key says")

    def _ended(self, fate: Fate, end: CanaryRecord, began: _Began, why: str) -> bool:
        """Note what became of an end; True: it was written."""
        report = self._report
        if fate is Fate.WRITTEN and end.ended is not None:
            report.ending, report.record, report.why = Ending(end.ended.how), end, why
            return True
        if fate is Fate.UNKNOWN:
            left_s = max(0.0, began.deadline - time.monotonic())
            report.ending = Ending.ENDS_BY_ITSELF
            report.why = (
                f"{why}; Consul could not be told, so the canary ends by itself, within {left_s:.0f} s"
            )
        else:
            report.ending, report.why = Ending.TAKEN_OVER, _OTHERS
        return False

    async def _settle(self, awaited: Awaited, word: str = "runs it") -> None:
        """Wait until those have it who are to have it."""
        try:
            self._report.nodes = await self._looker.arrived(
                awaited, time.monotonic() + self._order.taking_s, word=word
            )
        except InterruptedHere:
            self._say("not waited for any longer")


def _unready(look: Look, began: _Began) -> str | None:
    """Name the canary's nodes that were ready for clients, and are not any more: who gets none cannot fail any."""
    live = {view.name: view.record for view in look.picture.live()}
    found = []
    for name in began.record.nodes:
        old, now = began.nodes.get(name), live.get(name)
        if old is not None and old.ready and now is not None and not now.ready:
            found.append(f"{name}: not ready any more: {now.reason}")
    return "; ".join(found) or None


def _fresh_s(nodes: Collection[str]) -> float:
    """Return how long to wait for the last numbers, in seconds."""
    return numbers_every_s(len(nodes)) + FRESH_S


def _lacking(found: Sequence[Arrival]) -> str:
    return "; ".join(f"{each.node}: {each.why}" for each in found)
