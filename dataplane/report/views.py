"""What a process sees: how services and backends are configured, and what is observed of them.

Adding, of parts of one process as of several processes: how something is configured is the first one's word. What is observed
is the worst that anybody has found: a backend is ejected if one worker has ejected it. Whoever drains is told of no change and
no check any more, and is `silent`: what it sees holds only where nobody else sees anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from dataplane.core.spec import BackendTlsSpec, MatchSpec
from dataplane.tls.service import CertificateView


@cache
def values_of(fields: tuple[str, ...]) -> Callable[[object], tuple[Any, ...]]:
    """Return what reads these fields of a row at once."""
    return attrgetter(*fields)


class Row:
    """What travels as the values of its fields, without their names: in half the time."""

    __slots__: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), values_of(self.__slots__)(self)


@dataclass(slots=True)
class ServiceView:
    """How a service is configured, and what its selection is made of."""

    mode: str
    table_hash: str | None
    tier: int | None
    panic: bool
    usable: int
    """How many backends are usable."""
    serving: int
    """How many backends get new connections."""
    silent: bool = False
    """Whether all who run it drain."""
    certificates: tuple[CertificateView, ...] = ()
    """Those in use, with clients and with backends."""
    match: MatchSpec | None = None
    """Which clients of its listeners it takes; None: all that no other service takes."""
    backend_tls: BackendTlsSpec | None = None
    """How TLS to its backends begins."""

    def __add__(self, other: ServiceView) -> ServiceView:
        if self.silent or other.silent:
            return self if other.silent else other
        return replace(
            self,
            panic=self.panic or other.panic,
            usable=min(self.usable, other.usable),
            serving=min(self.serving, other.serving),
            certificates=worst_certificates(self.certificates, other.certificates),
        )


def worst_certificates(
    one: tuple[CertificateView, ...], other: tuple[CertificateView, ...]
) -> tuple[CertificateView, ...]:
    """Return of each place what is worse: trouble, then what ends first, as of somebody who has not taken the new one yet."""
    if one == other:
        return one
    found = {view.place: view for view in one}
    for view in other:
        known = found.get(view.place)
        if known is None or (not view.trouble, view.not_after) < (not known.trouble, known.not_after):
            found[view.place] = view
    return tuple(found.values())


@dataclass(slots=True)
class BackendView(Row):
    """How a backend is configured, and what is observed of it."""

    address: str
    weight: int
    tier: int
    state: Literal["enabled", "drain", "disabled"]
    overridden: dict[str, tuple[Any, float]]
    """By field, what an operator has said, and when (monotonic seconds: the same clock in all processes)."""
    draining_since: float | None
    """Monotonic seconds."""
    removed: bool
    health: Literal["up", "down", "unknown", "ejected"]
    cause: str
    """Of `health`."""
    since: float
    """Of `health`, monotonic seconds."""
    reachable: bool
    usable: bool
    silent: bool = False
    """Whether all who have it drain."""

    @property
    def draining(self) -> bool:
        """Whether an operator has drained or disabled it."""
        return self.draining_since is not None

    def silenced(self) -> BackendView:
        """Return what is seen by somebody who drains."""
        return replace(self, silent=True)

    def __add__(self, other: BackendView) -> BackendView:
        if self.silent or other.silent:
            return self if other.silent else other
        both = self
        if other.health == "ejected" and (
            self.health not in {"ejected", "down"} or (self.health == "ejected" and other.since < self.since)
        ):
            both = replace(both, health=other.health, cause=other.cause, since=other.since)
        if self.reachable > other.reachable or self.usable > other.usable:
            reachable, usable = self.reachable and other.reachable, self.usable and other.usable
            both = replace(both, reachable=reachable, usable=usable)
        return both


class Sight(NamedTuple):
    """As much of a `BackendView` as metrics tell."""

    weight: int
    usable: bool
    reachable: bool
    draining_since: float | None
    health: str

    @property
    def draining(self) -> bool:
        """Whether an operator has drained or disabled it."""
        return self.draining_since is not None

    def join(self, other: Sight) -> Sight:
        """Return the worst of what two processes see."""
        ejected = other.health == "ejected" and self.health != "down"
        return self._replace(
            usable=self.usable and other.usable,
            reachable=self.reachable and other.reachable,
            health=other.health if ejected else self.health,
        )


class Sights(dict[str, Sight]):
    """What is seen of the backends of a service, by id; nothing where all who have them drain."""

    def silenced(self) -> Sights:
        """Return what is seen by somebody who drains."""
        return Sights()

    def __add__(self, other: Sights) -> Sights:
        if not self or not other or self == other:
            return self or other
        both = Sights(self | other)
        both.update((id_, one.join(both[id_])) for id_, one in self.items() if both[id_] != one)
        return both
