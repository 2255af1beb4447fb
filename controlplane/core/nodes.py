"""The picture of a cluster: who is there, who is gone and since when, who is behind, and who disagrees in what.

Theory of operation:

1. A record with a session is a live node's. One without is the last word of a node that is gone, or has left in good order.
2. Live nodes are compared with what their key says, if that is known, else with what most of them say. Generations are not
   compared: each node numbers its own. Where there is no majority, nobody is right, and each is shown as one that disagrees.
3. Only nodes that have taken the same lb.yaml can be asked to run the same: hashes are compared among those. They differ as well
   while one node has found a backend that another has not, for as long as discovery takes. A node whose lb.yaml takes other values from the
   node has another hash by right; its sticky tables are compared all the same, for clients count on them.
4. What cannot be read is shown as such, and hides nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Final, TypeVar

from controlplane.core.node_record import REST, NodeRecord

T = TypeVar("T")

FORGET_S: Final = 24 * 3600.0
"""Who has been gone for longer is not shown any more."""
_AHEAD_S: Final = 60.0
_SHORT: Final = 12
_NAMED: Final = 8


class Presence(Enum):
    """Whether a node is there."""

    LIVE = "live"
    """Its session is alive."""
    GONE = "gone"
    """Its session has ended: the daemon was killed, the machine is off, or it is cut off from Consul."""
    LEFT = "left"
    """Its daemon has ended in good order."""
    UNREADABLE = "unreadable"
    """What its key holds is no record."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One key below the cluster's, as Consul has it."""

    node: str
    """The last part of the key."""
    value: bytes
    session: str | None
    """Whose the key is; None: nobody's."""
    index: int
    """Its ModifyIndex, for a check-and-set."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node, as it looks from here."""

    name: str
    presence: Presence
    since: str | None
    """Since when it is gone, at the earliest, or has left (RFC 3339); None: it is live, or that is not known."""
    record: NodeRecord | None
    """What it said last; None: it is unreadable."""
    problem: str | None = None
    """Why it is unreadable."""
    behind: str | None = None
    """What it does not run that it should; None: it has the lb.yaml that its key says, or most have, and all of it runs."""
    disagrees: tuple[str, ...] = ()
    """In what it differs from those that it should be like."""
    session: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether its session is alive."""
        return self.presence is Presence.LIVE

    def report(self) -> dict[str, Any]:
        """Return it as `nodes --json` prints it."""
        return {
            "name": self.name,
            "presence": self.presence.value,
            "since": self.since,
            "problem": self.problem,
            "behind": self.behind,
            "disagrees": list(self.disagrees),
            "record": None if self.record is None else asdict(self.record),
        }


@dataclass(frozen=True, slots=True)
class Picture:
    """All nodes of a cluster, at one moment."""

    cluster: str
    nodes: tuple[NodeView, ...]
    """By name."""
    at: float
    """When Consul said so, in seconds of the clock that `now` of `report` is of."""

    def live(self) -> tuple[NodeView, ...]:
        """Return those whose session is alive."""
        return tuple(each for each in self.nodes if each.is_live)

    def named(self, name: str) -> NodeView | None:
        """Return a node; None: there is none of that name."""
        return next((each for each in self.nodes if each.name == name), None)

    @property
    def converged(self) -> bool:
        """Whether there are live nodes, none of them is behind, and none disagrees; it need not be ready for that."""
        live = self.live()
        return bool(live) and not any(each.behind or each.disagrees for each in live)

    def troubled(self) -> list[str]:
        """Name the nodes that somebody should look at, each with a word for why: `n3 is gone`."""
        words = ((each.name, _trouble(each)) for each in self.nodes)
        return [f"{name} {word}" for name, word in words if word]

    def report(self, now: float) -> dict[str, Any]:
        """Return it as `nodes --json` prints it."""
        return {
            "cluster": self.cluster,
            "age_s": round(max(0.0, now - self.at), 3),
            "live": len(self.live()),
            "converged": self.converged,
            "nodes": [each.report() for each in self.nodes],
        }


def _trouble(view: NodeView) -> str:
    record = view.record
    if view.presence is Presence.UNREADABLE or record is None:
        return "cannot be read"
    if view.presence is Presence.GONE:
        return "is gone"
    if not view.is_live:
        return ""
    if view.behind or view.disagrees:
        return "is behind" if view.behind else "disagrees"
    return "" if record.ready or record.drain is not None else "is not ready"


def picture_of(
    cluster: str,
    entries: Iterable[Entry],
    *,
    now: float,
    wall: float,
    wanted: Mapping[str, str] | None = None,
    seen_gone: Mapping[str, float] | None = None,
) -> Picture:
    """Put the picture together.

    Args:
        cluster: Its name.
        entries: All keys of its nodes.
        now: Of the clock by which the picture ages.
        wall: Now, in seconds since the epoch.
        wanted: By key, the SHA-256 of what it holds, as far as that is known.
        seen_gone: By node, when its session was first seen to have ended, in seconds since the epoch.
    """
    views = [view for each in entries if (view := _seen(each, wall, (seen_gone or {}).get(each.node)))]
    compared = _compared(
        {view.name: view.record for view in views if view.is_live and view.record}, wanted or {}
    )
    nodes = [
        NodeView(
            view.name,
            view.presence,
            view.since,
            view.record,
            view.problem,
            *compared.get(view.name, (None, ())),
            session=view.session,
        )
        for view in sorted(views, key=lambda view: view.name)
    ]
    return Picture(cluster, tuple(nodes), now)


def forgotten(entries: Iterable[Entry], wall: float) -> list[Entry]:
    """Return those whose key nobody needs any more."""
    return [each for each in entries if each.session is None and _seen(each, wall, None) is None]


@lru_cache(maxsize=256)
def _parsed(value: bytes) -> NodeRecord:
    """Parse a record once: at each news of one node all of them are looked at."""
    return NodeRecord.parse(value)


def _seen(entry: Entry, wall: float, seen_gone: float | None) -> NodeView | None:
    """Look at one key alone; None: that node has been gone for so long that it is not shown."""
    problem, record = None, None
    try:
        record = _parsed(entry.value)
    except ValueError as error:
        problem = str(error)
    if record is not None and record.node != entry.node:
        problem = f"it is the record of {record.node}"
    if record is None or problem is not None:
        return NodeView(entry.node, Presence.UNREADABLE, None, None, problem=problem, session=entry.session)
    if record.left is not None:
        presence, since = Presence.LEFT, seconds_of(record.left)
    elif entry.session is not None:
        return NodeView(entry.node, Presence.LIVE, None, record, session=entry.session)
    else:
        presence, since = Presence.GONE, max(seconds_of(record.at), seen_gone or 0.0)
    if wall - since > FORGET_S:
        return None
    # A clock that is ahead wrote of a moment that is still to come; a little of that is usual.
    told = text_of(since) if since <= wall + _AHEAD_S else None
    return NodeView(entry.node, presence, told, record)


def seconds_of(moment: str) -> float:
    """Return a moment in RFC 3339, as a record has it, in seconds since the epoch."""
    return datetime.fromisoformat(moment).timestamp()


def text_of(wall: float) -> str:
    """Return seconds since the epoch as RFC 3339."""
    moment = datetime.fromtimestamp(wall, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- who is behind, who disagrees

_Compared = dict[str, tuple[str | None, tuple[str, ...]]]


def _compared(live: Mapping[str, NodeRecord], wanted: Mapping[str, str]) -> _Compared:
    """Compare the live nodes, by name."""
    differs: dict[str, list[str]] = {name: [] for name in live}
    _differing(live, "version", lambda one: one.livelb, differs)
    _differing(live, "key", lambda one: one.key, differs)
    plain = {name: one for name, one in live.items() if one.canary is None}
    behind = {name: _not_running(one) for name, one in live.items()}
    for key in {one.key for one in plain.values()}:
        of_key = {name: one for name, one in plain.items() if one.key == key}
        should = wanted.get(key) if key is not None else None
        if should is None:
            (should,) = _most([one.content for one in of_key.values()]) or (None,)
        if should is None:  # nobody can say who is right
            _differing(of_key, "content", lambda one: one.content, differs)
        else:
            behind |= {name: _lacks(one, should) for name, one in of_key.items() if one.content != should}
    for content in {one.content for one in live.values()}:
        _differing_in_what_runs(
            {name: one for name, one in live.items() if one.content == content and one.converged}, differs
        )
    return {name: (behind[name], tuple(differs[name])) for name in live}


def _lacks(one: NodeRecord, should: str) -> str:
    has = "no lb.yaml from there" if one.content is None else f"lb.yaml {one.content[:_SHORT]}"
    why = f": {one.error}" if one.error else ""
    return f"has {has}, not {should[:_SHORT]}{why}"


def _not_running(one: NodeRecord) -> str | None:
    return None if one.converged else f"not all its data planes run generation {one.generation}"


def _differing_in_what_runs(same: Mapping[str, NodeRecord], differs: dict[str, list[str]]) -> None:
    """Compare nodes that have taken the same lb.yaml and run all of it."""
    for values in {_used(one) for one in same.values()}:
        alike = {name: one for name, one in same.items() if _used(one) == values}
        _differing(alike, "hash", lambda one: one.hash, differs)
    services = sorted({service for one in same.values() for service in one.table_hashes})
    for service in services:
        having = {name: one for name, one in same.items() if service in one.table_hashes}
        what = "table_hash of " + ("other services" if service == REST else service)
        _differing(having, what, lambda one, service=service: one.table_hashes[service], differs)  # type: ignore[misc]  # one lambda for each turn


def _used(one: NodeRecord) -> tuple[object, ...]:
    """Return what makes a node's hash another one by right: what it has from the node, and its share of limits."""
    return (one.share, *((name, one.variables.get(name)) for name in one.uses))


def _differing(
    live: Mapping[str, NodeRecord],
    what: str,
    value: Callable[[NodeRecord], str | None],
    differs: dict[str, list[str]],
) -> None:
    """Note who has another value than most; all of them, where no value has a majority."""
    values = {name: value(one) for name, one in live.items()}
    if len(set(values.values())) <= 1:
        return
    most = _most(list(values.values()))
    for name, mine in values.items():
        if most == (mine,):
            continue
        if most:
            count = sum(each == most[0] for each in values.values())
            unlike = f"{_short(most[0])} on {count} node{'s' if count > 1 else ''}"
        else:
            unlike = _names(sorted(other for other, theirs in values.items() if theirs != mine))
        differs[name].append(f"{what}: {_short(mine)}, unlike {unlike}")


def _most(values: Sequence[T]) -> tuple[T] | tuple[()]:
    """Return the value that more have than any other; empty: there is none."""
    ranked = Counter(values).most_common(2)
    if not ranked or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return ()
    return (ranked[0][0],)


def _short(value: str | None) -> str:
    return "none" if not value else value[:_SHORT] if len(value) > 2 * _SHORT else value


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


# --- what is news of it


def news(before: Picture | None, after: Picture) -> list[tuple[str, str]]:
    """Return what an operator should hear of: a node's name, and what has become of it; nothing of the first picture's well ones."""
    known = {} if before is None else {each.name: _state(each) for each in before.nodes}
    found = []
    for each in after.nodes:
        state = _state(each)
        if state != known.get(each.name, state if before is None and state == "live" else None):
            found.append((each.name, state))
    return found


def _state(view: NodeView) -> str:
    """Say how a node is, in words that do not change while it is so."""
    if view.presence is Presence.UNREADABLE:
        return f"its record cannot be read: {view.problem}"
    if not view.is_live:
        return f"{view.presence.value} since {view.since}"
    wrong = [f"behind: {view.behind}"] if view.behind else []
    wrong += [f"disagrees in {each}" for each in view.disagrees]
    return "; ".join(wrong) or "live"
