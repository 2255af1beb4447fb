"""Which of the services that share a listener takes a client: by the name that it asks for, its protocols, its address.

Theory of operation:

1. A service with a match takes clients of whom everything holds that the match says: the name is one of `sni`, one of the
   offered protocols is one of `alpn`, and the address is in a network of `source`. What it does not say holds for everybody.
2. Of several such services the most specific name decides: the name itself, before `*.` with one label in front, before
   none. Among equals one that names a protocol comes before one that does not, and of two that do, the one whose protocol
   the client prefers. Among those the smallest network.
3. So two services cannot be told apart if there are a name, a protocol and a network that both have; where one of these is
   left out in both, that is the same as well (`schemas.sharing` refuses them).
4. A service without a match is the least specific of all, and takes the rest.
5. Who does not speak TLS has neither name nor protocols: a match that asks for either does not hold.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from dataplane.core.client_hello import ClientHello
from dataplane.core.spec import MatchSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")
_ANY: Final = MatchSpec()
_SILENT: Final = ClientHello()
_Network = tuple[int, int, int]
"""IP version, network as a number, and by how many bits addresses are wider."""
_BITS: Final = {4: 32, 6: 128}


class _Rule(NamedTuple, Generic[T]):
    alpn: tuple[str, ...]
    source: tuple[_Network, ...]
    target: T


class Routes(Generic[T]):
    """The services of one listener, as a table: immutable, made anew with each change.

    Args:
        targets: Each with its match; None: it takes the rest.
    """

    __slots__ = ("_by_name", "_with_source", "needs_hello")

    def __init__(self, targets: Iterable[tuple[MatchSpec | None, T]]) -> None:
        self._by_name: dict[str, list[_Rule[T]]] = {}
        """Rules by name, by wildcard, and those for any name by the empty one."""
        self._with_source = self.needs_hello = False
        for match, target in targets:
            said = match or _ANY
            rule = _Rule(said.alpn, tuple(_network(one) for one in said.source), target)
            self.needs_hello |= bool(said.sni or said.alpn)
            self._with_source |= bool(said.source)
            for name in said.sni or ("",):
                self._by_name.setdefault(name, []).append(rule)

    def find(self, hello: ClientHello | None, client: str) -> T | None:
        """Return whose client this is.

        Args:
            hello: What it has sent first; None: something else than TLS.
            client: Its IP address; empty: it came over a Unix socket.

        Returns:
            The target; None: nobody's.
        """
        said = hello or _SILENT
        address = _number(client) if self._with_source and client else None
        name = said.sni
        exact = self._by_name.get(name)
        if exact is not None and len(exact) == 1:
            only = exact[0]
            if not only.alpn and not only.source:  # nothing else is to be looked at, as nearly always
                return only.target
        for one in (name, f"*.{name.partition('.')[2]}", "") if name else ("",):
            found = _best(self._by_name.get(one, ()), said.alpn, address)
            if found is not None:
                return found.target
        return None


def _best(
    rules: Iterable[_Rule[T]], offered: tuple[str, ...], address: tuple[int, int] | None
) -> _Rule[T] | None:
    """Return the most specific rule that holds, of those for one name."""
    best, best_rank = None, (0, 0)
    for rule in rules:
        rank = _preference(rule.alpn, offered), _narrowness(rule.source, address)
        if min(rank) >= 0 and (best is None or rank > best_rank):
            best, best_rank = rule, rank
    return best


def _preference(wanted: tuple[str, ...], offered: tuple[str, ...]) -> int:
    """Return how much a client prefers the best protocol that is wanted: 0 if none is, -1 if it offers none of them."""
    if not wanted:
        return 0
    return next((len(offered) - index for index, one in enumerate(offered) if one in wanted), -1)


def _narrowness(networks: tuple[_Network, ...], address: tuple[int, int] | None) -> int:
    """Return the prefix length of the smallest network with this address, plus 1: 0 if none is said, -1 if it is in none."""
    if not networks:
        return 0
    if address is None:
        return -1
    version, number = address
    lengths = [
        _BITS[version] - shift + 1
        for kind, network, shift in networks
        if kind == version and number >> shift == network
    ]
    return max(lengths, default=-1)


def _network(cidr: str) -> _Network:
    network = ipaddress.ip_network(cidr)
    version, number = _flat(network.network_address)
    shift = network.max_prefixlen - network.prefixlen
    return version, number >> shift, shift


def _number(client: str) -> tuple[int, int]:
    """Return an address as its version and a number; without its zone, of which networks say nothing."""
    return _flat(ipaddress.ip_address(client.partition("%")[0]))


def _flat(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[int, int]:
    """Return version and number; an IPv4-mapped IPv6 address, and a network of such, is IPv4."""
    mapped = getattr(address, "ipv4_mapped", None)
    return (4, int(mapped)) if mapped is not None else (address.version, int(address))
