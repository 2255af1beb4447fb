"""What a balancer is, and what it asks of a backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import ClassVar, Generic, Protocol, TypeVar


class Target(Protocol):
    """A backend as balancers see it."""

    @property
    def id(self) -> str:
        """Identity across updates: whoever keeps it keeps its place in the rotation."""

    @property
    def active(self) -> int:
        """Its connections now, as far as this node knows; changes between picks."""


T = TypeVar("T", bound=Target)


class Balancer(ABC, Generic[T]):
    """Chooses among a fixed set of usable targets; a new set means a new balancer, another weight need not.

    A pick is on the path of every connection: O(log n) at worst for the first one. A further pick for the
    same connection passes what has been tried and may cost a little more.
    """

    __slots__ = ()
    tracks_load: ClassVar = False
    """Whether `changed` must be called."""

    @abstractmethod
    def pick(self, key: int, tried: Collection[T]) -> T | None:
        """Return the best target that is not in `tried`, which is usually empty; None if there is none.

        `key` is a 64-bit hash of the client address; only `sticky` looks at it.
        """

    @abstractmethod
    def order(self, key: int) -> Iterator[T]:
        """Yield all targets in the order in which one connection would try them now; change nothing."""

    def changed(self, target: T) -> None:
        """Take note that `target.active` has changed; targets of other balancers are ignored."""

    @abstractmethod
    def reweigh(self, target: T, old: int, new: int) -> bool:
        """Give one target another effective weight, at least 1, in place, and keep whose turn it is.

        False, with nothing changed, if it is not among the targets or a new balancer is needed.
        """
