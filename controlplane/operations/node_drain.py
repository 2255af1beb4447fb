"""Taking this node out, step by step, and bringing it back: what the phases of `core.drain` wait for.

A command does it, not the daemon: it works when there is none, and whoever gave it sees what it waits for. Given again it
goes on where it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from controlplane.core.drain import Drain, Phase, Turn
from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import LOOK_S, Asking, ask_all
from controlplane.errors import ControlError, DataPlaneError, GoneError, PlaceError, RefusedError
from controlplane.operations.drain_file import DrainFile

AGAIN: Final = "to take clients again: lb-control node enable"
_POLL_S: Final = 0.25
_TELL_S: Final = 5.0
_ORDER_S: Final = 1.0
"""How often the order is given again: to clients that came since, and after a change of what runs, which takes it back."""
_NAMED: Final = 8
_UNKNOWN: Final = 404


@dataclass(frozen=True, slots=True)
class Seen:
    """What all data planes of this node say at one moment."""

    active: Counter[str] = field(default_factory=Counter)
    """Connections, by service; of a process that only finishes what it has, by its name."""
    accepted: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Clients that came since the start, by data plane and service."""
    cut: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Connections that a drain timeout has ended since the start, the same way."""
    silent: Mapping[str, str] = field(default_factory=dict)
    """Data planes that do not answer, though they may live, and why."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a drain is, in seconds."""

    settle_s: float = 3.0
    """Between lowered and withdrawn."""
    quiet_s: float = 5.0
    """Without a new client, before connections in place get their deadlines."""
    timeout_s: float = 600.0
    """For all of it."""


class Node:
    """The data planes of this machine; each call looks for them anew.

    Args:
        find: Makes a client for each; raises PlaceError if there is none.
        find_draining: Makes a client for each process that has been one, and finishes what it has.
    """

    def __init__(
        self, find: Callable[[], Sequence[Asking]], find_draining: Callable[[], Sequence[Asking]] = tuple
    ) -> None:
        self._find = find
        self._find_draining = find_draining

    def look(self) -> Seen:
        """Count what there is."""
        clients, draining = self._clients(), self._find_draining()
        seen = Seen(silent=(silent := {}))
        outcomes = ask_all([*clients, *draining], requests.get("/v1/status"), timeout_s=LOOK_S)
        for number, each in enumerate(outcomes):
            name, former = each.endpoint.name, number >= len(clients)
            if each.answer is not None:
                _count(seen, name, each.answer["services"], former=former)
            elif not former and not isinstance(each.error, GoneError):
                silent[name] = str(each.error)
        return seen

    def order(self, *, draining: bool) -> dict[str, DataPlaneError]:
        """Have connections in place end, or take that back; return who did not obey, and why."""
        outcomes = ask_all(self._clients(), requests.put_drain(draining=draining), timeout_s=LOOK_S)
        return {
            each.endpoint.name: each.error
            for each in outcomes
            if each.error is not None and not isinstance(each.error, GoneError)
        }

    def _clients(self) -> Sequence[Asking]:
        try:
            return self._find()
        except PlaceError:
            return ()


def _count(seen: Seen, plane: str, services: Mapping[str, Any], *, former: bool) -> None:
    for name, service in services.items():
        seen.active[plane if former else name] += service["active"]
        if not former:
            seen.accepted[plane, name] = sum(each["accepted"] for each in service["listeners"])
            seen.cut[plane, name] = service["totals"]["closed"].get("drain_timeout", 0)


@dataclass(slots=True)
class _Look:
    """One look while something is waited for."""

    seen: Seen
    at: float
    """Seconds of `clock`."""
    words: str = ""
    """What is waited for, as whoever looks finds it."""


class LateDrainError(ControlError):
    """The node could not be drained in time; it stays in its phase."""

    code = "late"


@dataclass(frozen=True, slots=True)
class Draining:
    """One command that drains the node."""

    node: Node
    record: DrainFile
    by: str
    pace: Pace
    tell: Callable[[str], None]
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def run(self, *, wait: bool) -> Drain:
        """Go on from wherever the node is, to withdrawn or, with `wait`, to drained; return what is on record then.

        Raises:
            LateDrainError: The time is over.
            HeldBackError: Somebody else has enabled the node meanwhile.
        """
        deadline = self.clock() + self.pace.timeout_s
        drain = self._turn(Turn.LOWER)
        if drain.phase is Phase.LOWERED:
            self.tell(
                "lowered: routers and VRRP are asked to prefer other nodes; "
                f"withdrawn in {self.pace.settle_s:g} s"
            )
            self.sleep(self.pace.settle_s)
            drain = self._turn(Turn.WITHDRAW)
        if drain.phase is Phase.WITHDRAWN:
            self.tell("withdrawn: not ready; routes and addresses leave this node, and new clients with them")
            if not wait:
                return drain
            self._wait_quiet(deadline)
            drain = self._turn(Turn.DRAIN)
        if drain.phase is Phase.DRAINING and wait:
            self._wait_empty(deadline)
            drain = self._turn(Turn.FINISH)
        return drain

    def _turn(self, turn: Turn) -> Drain:
        return self.record.turn(turn, self.by)

    def _looks(self, turn: Turn, deadline: float) -> Iterator[_Look]:
        """Look again and again, as long as the node is where `turn` has led, and tell at times what is waited for."""
        told = self.clock()
        while True:
            self._turn(turn)  # changes nothing, or is refused: then somebody has enabled the node
            now = self.clock()
            look = _Look(self.node.look(), now)
            yield look
            if now >= deadline:
                raise LateDrainError(
                    f"not drained within {self.pace.timeout_s:g} s, and still {self.record.read().phase}: {look.words}\n"
                    f"to go on: lb-control node drain --wait; {AGAIN}"
                )
            if now - told >= _TELL_S:
                told = now
                self.tell(f"  {look.words}")
            self.sleep(_POLL_S)

    def _wait_quiet(self, deadline: float) -> None:
        """Wait until no client has come for `quiet_s`."""
        first, last, since = None, None, self.clock()
        for look in self._looks(Turn.WITHDRAW, deadline):
            seen, now = look.seen, look.at
            if first is None:
                first = last = seen.accepted
                self.tell(f"waits until no new client has come for {self.pace.quiet_s:g} s")
            if seen.silent or seen.accepted != last:
                last, since = seen.accepted, now
            if now - since >= self.pace.quiet_s:
                return
            came = _by_service(seen.accepted - first)
            look.words = _silence(seen) or (
                f"clients came since it was withdrawn: {_listed(came)}; the last {now - since:.0f} s ago"
                if came
                else f"no client came for {now - since:.0f} s"
            )

    def _wait_empty(self, deadline: float) -> None:
        """Wait until the last connection has gone."""
        ordered, before, disobeyed = None, None, ""
        for look in self._looks(Turn.DRAIN, deadline):
            seen, now = look.seen, look.at
            if before is None:
                before = seen.cut
                self.tell(
                    f"draining: {_connections(seen)}; each has the drain timeout of its service"
                    if seen.active.total()
                    else "draining: no connection is in place"
                )
            if not seen.silent and not seen.active.total():
                cut = _by_service(seen.cut - before)
                if cut:
                    self.tell(f"cut at their drain timeout: {_listed(cut)}")
                return
            if ordered is None or now - ordered >= _ORDER_S:
                ordered, disobeyed = now, _disobeyed(self.node.order(draining=True), disobeyed, self.tell)
            look.words = _silence(seen) or f"still connected: {_connections(seen)}"


def enable(node: Node, record: DrainFile, by: str) -> tuple[Drain, list[str]]:
    """Bring the node back from whatever phase it is in; return what is on record then, and what did not work."""
    failed = node.order(draining=False)
    # Not known to an older version, which cannot have been told to drain either.
    warnings = [
        f"{name}: its connections keep their last deadline: {error}"
        for name, error in failed.items()
        if not (isinstance(error, RefusedError) and error.http_status == _UNKNOWN)
    ]
    return record.turn(Turn.ENABLE, by), warnings


def _disobeyed(failed: Mapping[str, DataPlaneError], told: str, tell: Callable[[str], None]) -> str:
    """Tell once which data planes do not end their connections; return what was told."""
    said = "; ".join(f"{name}: {error}" for name, error in failed.items())
    if said and said != told:
        tell(f"connections get no deadline, and end only by themselves: {said}")
    return said


def _silence(seen: Seen) -> str:
    return "; ".join(f"{name} does not answer: {why}" for name, why in seen.silent.items())


def _connections(seen: Seen) -> str:
    total = seen.active.total()
    return f"{total} connection{'' if total == 1 else 's'}: {_listed(seen.active)}"


def _by_service(counts: Counter[tuple[str, str]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for (_, service), count in counts.items():
        found[service] += count
    return +found


def _listed(counts: Counter[str]) -> str:
    most = (+counts).most_common(_NAMED)
    more = len(+counts) - len(most)
    return ", ".join(f"{name} {count}" for name, count in most) + (
        f" and {more} more services" if more else ""
    )
