"""Who listens where: several services share an address if each client can be told whose it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any, Protocol

from schemas.changes import listened
from schemas.errors import Path
from schemas.listeners import Listener, addresses_of
from schemas.options import ProxyProtocol
from schemas.tls import Match


class Listening(Protocol):
    """A service, as far as its listeners are concerned."""

    @property
    def listen(self) -> tuple[str | Listener, ...]:
        """Where clients connect."""

    @property
    def match(self) -> Match | None:
        """Which clients it takes where it shares an address; None: all that no other takes."""

    @property
    def proxy_protocol(self) -> ProxyProtocol:
        """Whether clients must send a PROXY header."""


def listener_clashes(services: Mapping[str, Listening]) -> list[tuple[Path, str]]:
    """Find addresses that services cannot share: for each repetition its path below `services`, and the message."""
    holders: dict[str, list[tuple[str, int]]] = {}
    clashes: list[tuple[Path, str]] = []
    for name, service in services.items():
        for index, listener in enumerate(service.listen):
            addresses = addresses_of(listener)
            for address in addresses:
                there = holders.setdefault(address, [])
                both = "" if address == addresses[0] else f"{addresses[0]} takes IPv4 as well, and "
                if there and (there[-1][0] == name or not _may_share(services[there[0][0]], service)):
                    other, place = there[-1] if there[-1][0] == name else there[0]
                    taken = f"services.{other}.listen[{place}]"
                    clashes.append(
                        (
                            (name, "listen", index),
                            f"{both}{address} is already taken by {taken}{_remedy(name, other)}",
                        )
                    )
                    continue
                there.append((name, index))
    clashing = {path[0] for path, _ in clashes}
    seen: set[tuple[str, str]] = set()
    for address, sharers in holders.items():
        for (one, _), (other, at) in combinations(sharers, 2):
            if (one, other) in seen or {one, other} & clashing:
                continue
            found = list(_differing(services, address, one, (other, at)))
            clashes += found
            if found:
                seen.add((one, other))
    return clashes


def _may_share(one: Listening, other: Listening) -> bool:
    return one.match is not None or other.match is not None


def _remedy(name: str, other: str) -> str:
    if name == other:
        return ""
    return "; to share it, all services but one need a match"


def _differing(
    services: Mapping[str, Listening], address: str, one: str, other: tuple[str, int]
) -> Iterator[tuple[Path, str]]:
    """Yield why two services cannot share an address although one of them has a match."""
    name, at = other
    first, second = services[one], services[name]
    if first.match is None and second.match is None:
        yield (
            (name, "listen", at),
            f"{address} is already taken by services.{one}, which has no match either; to share it, all services but one need a match",
        )
        return
    if _options(first, address) != _options(second, address):
        yield (
            (name, "listen", at),
            f"{address} must have the same options as in services.{one}, which shares it",
        )
    for key in ("accept", "trusted"):
        if getattr(first.proxy_protocol, key) != getattr(second.proxy_protocol, key):
            yield (
                (name, "proxy_protocol", key),
                f"must be the same as in services.{one}, which shares {address}: the header comes before it is known whose client it is",
            )
    if first.match is not None and second.match is not None:
        same = indistinct(first.match, second.match)
        if same:
            yield (
                (name, "match"),
                f"takes the same clients as services.{one}, which shares {address}: {same}",
            )


def _options(service: Listening, address: str) -> Mapping[str, Any]:
    return listened([one if isinstance(one, str) else one.written() for one in service.listen])[address]


def indistinct(one: Match, other: Match) -> str:
    """Say which clients two matches both take with nothing more special about either; empty: there are none.

    A client goes by its name first, then by its protocols, then by its network: two matches are told apart if they have
    no rule in common, a rule being a name, a protocol and a network, of which a match that does not say has `any`.
    """
    common = [
        _common(mine, theirs, any_word)
        for mine, theirs, any_word in (
            (one.sni, other.sni, "any name"),
            (one.alpn, other.alpn, "any protocol"),
            (one.source, other.source, "any network"),
        )
    ]
    if not all(common):
        return ""
    said = [words for words in common if not words.startswith("any ")]
    return ", ".join(said or ["any"])


def _common(mine: Iterable[str], theirs: Iterable[str], any_word: str) -> str:
    first, second = set(mine), set(theirs)
    if not first and not second:
        return any_word
    return " ".join(sorted(first & second)[:3])
