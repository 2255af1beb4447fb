"""One selection's backends: its datacenters' tracks, and the choice among them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from pydantic import ValidationError

from controlplane.core.failover import Failover
from controlplane.core.guard import GuardPolicy
from controlplane.core.instances import Classified, Condition, Instance, Names, Remark, classify, listed
from controlplane.core.track import Track, Trust
from controlplane.core.weights import MAX_WEIGHT, fitting
from controlplane.discovery.consul.pulse import Pulse
from controlplane.discovery.consul.query import Selection
from controlplane.discovery.consul.watch import Runtime, Watch, Wish
from schemas.reading.findings import findings_of
from schemas.snapshot import Backend


class Pool:
    """What one `discover.consul` comes to.

    `answers` tells whether a service's backend, by its id, passes the data planes' own checks.
    """

    def __init__(
        self, selection: Selection, policy: GuardPolicy, answers: Callable[[str, str], bool], runtime: Runtime
    ) -> None:
        self.selection = selection
        self.services: set[str] = set()
        """Whose backends they are."""
        self.watches: tuple[Watch, ...] = ()
        """One for each datacenter, shared with other pools; set by whoever runs them."""
        self.pulses: tuple[Pulse, ...] = ()
        """The same."""
        self.state = ("", 0.0)
        """What status calls it, and since when, in monotonic seconds: see `status.note_state`."""
        self.due: float | None = None
        """When `advance` has something to do without an answer, in monotonic seconds; None: never."""
        self.tracks = tuple(
            Track(self._track_policy(policy), answers=self._is_answering) for _ in selection.datacenters
        )
        self.chosen = 0
        """The index of the datacenter that serves."""
        self.saved_at: float | None = None
        """When the backends were saved, in seconds since the epoch; None since Consul has answered."""
        self.kept_since: float | None = None
        """Since when every one of several datacenters is empty and the last backends are kept; monotonic."""
        self.divided: tuple[Remark, ...] = ()
        """Whose weights made all of a tier's smaller, and whose share is not what they asked for."""
        self._answers = answers
        self._runtime = runtime
        self.policy = policy
        self._failover = Failover(runtime.clock())
        self.backends: tuple[Backend, ...] | None = None
        """The last known good set, sorted by id; None before the first one."""
        self._may_be_empty = False

    def _is_answering(self, backend: str) -> bool:
        return any(self._answers(service, backend) for service in self.services)

    def set_policy(self, policy: GuardPolicy) -> None:
        """Let other limits of the guard hold."""
        self.policy = policy
        for track in self.tracks:
            track.guard.policy = self._track_policy(policy)

    def receive(self, index: int, entries: list[object], trust: Trust, whole: Names | None = None) -> Wish:
        """Take an answer of one datacenter's watch; arguments and result as for `Receive`."""
        now = self._runtime.clock()
        track, rules = self.tracks[index], self.selection.rules_for(index)
        elsewhere = rules.ids(whole - listed(entries)) if whole else frozenset()
        track.observe(only_backends(classify(entries, rules)), now, trust, elsewhere)
        track.advance(now)
        self.saved_at = None
        return Wish(track.confirm_every(now), whole=track.lacks())

    def advance(self) -> bool:
        """Publish what is due; True if the backends have changed since the last call."""
        now = self._runtime.clock()
        for track in self.tracks:
            track.advance(now)
        before, table = self.backends, self._table(now)
        if table is not None:
            self.backends, self.divided = _backends_of(table)
        times = [track.due(now) for track in self.tracks]
        if len(self.tracks) > 1:
            times.append(self._failover.due(now))
        self.due = min((at for at in times if at is not None), default=None)
        return self.backends != before

    def release(self) -> None:
        """Publish what Consul shows, whatever the guard thinks of it."""
        for track in self.tracks:
            track.release(self._runtime.clock())
        self._may_be_empty = True
        self.advance()

    def shown(self) -> tuple[Backend, ...] | None:
        """Return the backends that `release` would let be; changes nothing."""
        now = self._runtime.clock()
        tables = [track.shown(now) for track in self.tracks]
        chosen: int | None = 0
        if len(tables) > 1:
            usable = [_usable(table) for table in tables]
            chosen = copy.deepcopy(self._failover).choose(usable, now)
        table = None if chosen is None else tables[chosen]
        return self.backends if table is None else _backends_of(table)[0]

    def settled(self) -> bool:
        """Tell whether a moment of waiting would tell nothing new.

        Every datacenter has answered, and that was weighed. Or it cannot be asked, and that does not mend itself soon, or
        there is something to go on with.
        """
        for track, watch in zip(self.tracks, self.watches, strict=True):
            error = watch.health.error
            if track.heard:
                if not track.settled:
                    return False
            elif error is None or not (error.is_operators or self.backends is not None):
                return False
        return True

    def saved(self) -> dict[str, Any]:
        """Return what `restore` takes: JSON."""
        return {
            "at": self._runtime.wall() if self.saved_at is None else self.saved_at,
            "datacenters": {
                name: [packed(item) for item in track.guard.published.values()]
                for name, track in zip(self.selection.datacenters, self.tracks, strict=True)
                if track.guard.published is not None
            },
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Begin with what an earlier life had published; what cannot be read is left out."""
        by_name, at = saved.get("datacenters"), saved.get("at")
        if not isinstance(by_name, dict) or not isinstance(at, int | float):
            return
        now = self._runtime.clock()
        for name, track in zip(self.selection.datacenters, self.tracks, strict=True):
            rows = by_name.get(name)
            if not isinstance(rows, list) or track.guard.published is not None:
                continue
            found = [unpacked(row) for row in rows]
            table = {item.id: item for item in found if item is not None}
            if table or not rows:  # that there was none is known as well
                track.guard.restore(table, now)
                self.saved_at = self.saved_at if track.heard else float(at)
        self.advance()

    def recall(self, other: Pool) -> None:
        """Begin with all that a pool of the same selection remembers, its holds and high waters too, under the own policy."""
        for track, before in zip(self.tracks, other.tracks, strict=True):
            track.recall(before)
        self._failover = copy.deepcopy(other._failover)
        self.chosen, self.kept_since, self._may_be_empty = other.chosen, other.kept_since, other._may_be_empty
        self.backends = other.backends
        self.advance()

    def _track_policy(self, policy: GuardPolicy) -> GuardPolicy:
        """Let a datacenter of several run empty, after its hold: the next one takes over."""
        return replace(policy, allow_empty=True) if len(self.selection.datacenters) > 1 else policy

    def _table(self, now: float) -> Mapping[str, Instance] | None:
        """Return the instances that hold; None for what is known, or that there is nothing to know yet."""
        if len(self.tracks) == 1:
            return self.tracks[0].guard.published
        usable = [_usable(track.guard.published) for track in self.tracks]
        chosen = self._failover.choose(usable, now)
        if chosen is None:
            # empty everywhere from the start; that is an answer only to those who asked for it
            return {} if self.policy.allow_empty and None not in usable else None
        self.chosen = chosen
        table = self.tracks[chosen].guard.published or {}
        if table:
            self._may_be_empty = False
        elif self.backends and not self.policy.allow_empty and not self._may_be_empty:
            self.kept_since = now if self.kept_since is None else self.kept_since
            return None
        self.kept_since = None
        return table


def _backends_of(table: Mapping[str, Instance]) -> tuple[tuple[Backend, ...], tuple[Remark, ...]]:
    """Return the backends of a table, sorted by id, and whose weights were divided."""
    weights, divided = fitting(table.values())
    return tuple(backend_of(table[name], weights[name]) for name in sorted(table)), divided


def _usable(table: Mapping[str, Instance] | None) -> int | None:
    """Count the instances that take new connections: a datacenter in maintenance has none; None: nothing is known."""
    if table is None:
        return None
    return sum(item.condition is not Condition.MAINTENANCE for item in table.values())


def backend_of(item: Instance, weight: int) -> Backend:
    """Return an instance as a snapshot shows it, with the weight that fits its neighbours'.

    Raises:
        ValidationError: Snapshots have no place for it.
    """
    state = "drain" if item.condition is Condition.MAINTENANCE else "enabled"
    return Backend(id=item.id, address=item.address, weight=weight, tier=item.tier, state=state)


def only_backends(seen: Classified) -> Classified:
    """Reject what a snapshot has no place for, so that `backend_of` takes all the rest."""
    instances: list[Instance] = []
    rejected = list(seen.rejected)
    for item in seen.instances:
        try:
            _check(item)
        except ValidationError as error:
            rejected.append(Remark(item.id, findings_of(error, Backend)[0].message))
        else:
            instances.append(item)
    return replace(seen, instances=tuple(instances), rejected=tuple(rejected))


def packed(item: Instance) -> dict[str, Any]:
    """Return an instance as JSON."""
    return {**asdict(item), "condition": item.condition.value}


def unpacked(row: object) -> Instance | None:
    """Return a packed instance; None if it is none: a state file is input like any other."""
    if not isinstance(row, dict):
        return None
    try:
        known = {each.name: row[each.name] for each in fields(Instance)}
        item = Instance(**{**known, "condition": Condition(row["condition"])})
        _check(item)
    except (KeyError, ValueError, TypeError):
        return None
    return item


def _check(item: Instance) -> None:
    """Raise what `backend_of` would raise: a weight that is too large will be divided."""
    backend_of(item, min(item.weight, MAX_WEIGHT))
