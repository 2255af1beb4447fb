"""Who may come in: address lists, per-client limits, and the queue of those who wait for a place.

Theory of operation.

1. `AccessList` and `NetworkSet` are built once per update and never change. A look-up costs one set test per
   distinct prefix length, however many networks there are.
2. `RateLimiter` and `Counts` keep one number per client, and none for a client who is entitled to everything.
3. `Admission` puts them together for one service. An update changes the limits and keeps the numbers.
4. `WaitQueue` is first come, first served; a client who leaves is taken out where it stands.

A client is the text of its IP address, in one spelling. Clients of a Unix socket have none and go by any word
without dot or colon: no network holds them, and limits take them for one client together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from ipaddress import IPv6Address, ip_network
from typing import Final, Generic, TypeVar

from dataplane.core.reasons import CloseReason
from dataplane.core.spec import AccessSpec, LimitsSpec

T = TypeVar("T", bound=Hashable)

_V4_BITS: Final = 32
_MAPPED: Final = 0xFFFF
"""The first 96 bits of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2)."""
_MAPPED_BITS: Final = 96


def _parse(ip: str) -> tuple[bool, int] | None:
    """Return whether an address is IPv6, and its number; a mapped one is IPv4. None: no address at all."""
    if ":" not in ip:
        if "." not in ip:
            return None
        # 0.6 us against 2.0 us through IPv4Address; the kernel and the PROXY decoder write nothing else
        first, second, third, fourth = ip.split(".")
        return False, int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)
    number = int(IPv6Address(ip))  # without its scope, if it has one
    if number >> _V4_BITS == _MAPPED:
        return False, number & 0xFFFFFFFF
    return True, number


_Tables = tuple[tuple[int, frozenset[int]], ...]
"""For each distinct prefix length: how far to shift an address right, and the networks shifted likewise."""


def _tables(networks: Iterable[tuple[int, int]]) -> _Tables:
    """Group networks, each a shift and its shifted number, by shift; the widest first."""
    by_shift: dict[int, set[int]] = {}
    for shift, number in networks:
        by_shift.setdefault(shift, set()).add(number)
    return tuple((shift, frozenset(by_shift[shift])) for shift in sorted(by_shift, reverse=True))


class NetworkSet:
    """Which networks an address may be in.

    An IPv4-mapped IPv6 address, and a network of such, is IPv4: `::ffff:10.0.0.0/104` is `10.0.0.0/8`, and
    `::/0` holds no IPv4 client.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(self, cidrs: Iterable[str]) -> None:
        """Take CIDRs or plain addresses; bits behind the prefix do not count.

        ValueError: it is neither, which validation prevents.
        """
        v4: list[tuple[int, int]] = []
        v6: list[tuple[int, int]] = []
        for cidr in cidrs:
            network = ip_network(cidr, strict=False)
            number = int(network.network_address)
            shift = network.max_prefixlen - network.prefixlen
            if network.version == 4:  # noqa: PLR2004 - the version's own name
                v4.append((shift, number >> shift))
            elif network.prefixlen >= _MAPPED_BITS and number >> _V4_BITS == _MAPPED:
                v4.append((shift, (number & 0xFFFFFFFF) >> shift))
            else:
                v6.append((shift, number >> shift))
        self._v4 = _tables(v4)
        self._v6 = _tables(v6)

    def __contains__(self, ip: str) -> bool:
        parsed = _parse(ip)
        return parsed is not None and self.holds(*parsed)

    def holds(self, is_v6: bool, number: int) -> bool:  # noqa: FBT001 - what `_parse` returns
        """Tell whether a network holds an address that is parsed already."""
        return any(number >> shift in networks for shift, networks in (self._v6 if is_v6 else self._v4))


class AccessList:
    """The `access` rules of a service: deny wins over allow, and without allow everybody else may enter."""

    __slots__ = ("_allow", "_deny")

    def __init__(self, spec: AccessSpec) -> None:
        """Take the rules. ValueError: one is no CIDR, which validation prevents."""
        self._allow = NetworkSet(spec.allow) if spec.allow else None
        self._deny = NetworkSet(spec.deny)

    def permits(self, ip: str) -> bool:
        """Tell whether a client may enter; one without an address only if nothing is named in `allow`."""
        parsed = _parse(ip)
        if parsed is None:
            return self._allow is None
        return not self._deny.holds(*parsed) and (self._allow is None or self._allow.holds(*parsed))


class RateLimiter:
    """A token bucket per client: `rate` tokens a second, at most one second's worth and at least one token.

    Kept as the time at which the bucket will be full again (the "virtual scheduling" form of the GCRA, ITU-T
    I.371, annex A): one float, and a client whose time has come need not be known. A refused attempt takes
    nothing.

    Memory: clients stand in the order of their last admission, and each admission forgets up to two full
    buckets from the front. So the clients known are about those admitted within the last second (1 / rate, if
    that is longer), and `sweep` forgets the rest of them when nobody comes any more.
    """

    __slots__ = ("_full_at", "_interval", "_tolerance", "_window")

    def __init__(self, rate: float) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self.reconfigure(rate)

    def reconfigure(self, rate: float) -> None:
        """Change the rate, connections a second and client, above 0; 0.1 is one in ten seconds.

        Each bucket keeps the time that it needs to be full, or the new longest, if less.
        """
        burst = max(1.0, rate)
        self._interval = 1.0 / rate
        self._window = burst * self._interval
        # a thousandth of a token on top: sums of floats must not cost a client the last one of its burst
        self._tolerance = self._window - self._interval * 0.999

    def admit(self, client: str, now: float) -> bool:
        """Take a token for one new connection of a client; tell whether there was one."""
        full_at = self._full_at.get(client, now)
        if full_at - now > self._tolerance:
            if full_at - now > self._window:  # the rate was raised meanwhile
                self._full_at[client] = now + self._window
            return False
        self._full_at[client] = max(full_at, now) + self._interval
        self._full_at.move_to_end(client)
        self.sweep(now, 2)
        return True

    def sweep(self, now: float, budget: int) -> None:
        """Forget up to `budget` clients whose bucket is full, those who came longest ago first."""
        full_at = self._full_at
        for _ in range(min(budget, len(full_at))):
            client = next(iter(full_at))
            if full_at[client] > now:
                return
            del full_at[client]


class Counts:
    """How many connections each client has; only those who have some take memory."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def opened(self, client: str) -> None:
        """Count a connection."""
        self._counts[client] = self._counts.get(client, 0) + 1

    def closed(self, client: str) -> None:
        """Count a connection no longer; nothing happens for a client who has none."""
        left = self._counts.get(client, 0) - 1
        if left > 0:
            self._counts[client] = left
        else:
            self._counts.pop(client, None)

    def clear(self) -> None:
        """Count none."""
        self._counts.clear()

    def count(self, client: str) -> int:
        """Return how many connections a client has."""
        return self._counts.get(client, 0)


class Admission:
    """Whether one service takes a new client; `limits` and `access` together.

    Connections are counted per client only while `limits.per_client` is set, so that a service without it pays
    nothing. An update may set it while there are connections: then the caller hands over their clients
    (`recount`) before it serves the next one. That is O(connections) once, instead of two dictionary writes for
    every connection ever, and from then on old and new ones count alike. Unset, the counts are dropped.
    """

    __slots__ = ("_access", "_access_spec", "_counts", "_make_counts", "_make_rate", "_per_client", "_rate")

    def __init__(
        self,
        limits: LimitsSpec,
        access: AccessSpec,
        *,
        counts: Callable[[], Counts] = Counts,
        rate: Callable[[float], RateLimiter] = RateLimiter,
    ) -> None:
        """Take limits and rules, and what makes the counts and the buckets when they are needed."""
        self._make_counts = counts
        self._make_rate = rate
        self._access: AccessList | None = None
        self._access_spec = AccessSpec((), ())
        self._counts: Counts | None = None
        self._per_client = 0
        self._rate: RateLimiter | None = None
        self.reconfigure(limits, access)

    def reconfigure(self, limits: LimitsSpec, access: AccessSpec) -> None:
        """Take new limits and rules; counts and buckets stay. If `per_client` was 0, `recount` comes next.

        ValueError: `access` holds what is no CIDR; then nothing has changed.
        """
        if access != self._access_spec:
            self._access = AccessList(access) if access.allow or access.deny else None
            self._access_spec = access
        if limits.client_rate <= 0:
            self._rate = None
        elif self._rate is None:
            self._rate = self._make_rate(limits.client_rate)
        else:
            self._rate.reconfigure(limits.client_rate)
        self._per_client = limits.per_client
        if limits.per_client > 0:
            if self._counts is None:
                self._counts = self._make_counts()
        elif self._counts is not None:
            self._counts.clear()
            self._counts = None

    def recount(self, clients: Iterable[str]) -> None:
        """Count anew: `clients` has the client of each connection that `closed` will be called for."""
        if self._counts is not None:
            self._counts.clear()
            for client in clients:
                self._counts.opened(client)

    def refuse(self, client: str, now: float) -> CloseReason | None:
        """Return why a new connection is refused: DENIED, LIMIT_PER_CLIENT or CLIENT_RATE, in this order.

        None: it may enter, or wait, and the caller calls `opened` now and `closed` in the end. A token of the client's
        rate is taken only if all else allows it.
        """
        if self._access is not None and not self._access.permits(client):
            return CloseReason.DENIED
        if self._counts is not None and self._counts.count(client) >= self._per_client:
            return CloseReason.LIMIT_PER_CLIENT
        if self._rate is not None and not self._rate.admit(client, now):
            return CloseReason.CLIENT_RATE
        return None

    def opened(self, client: str) -> None:
        """Count a connection, if there is a limit."""
        if self._counts is not None:
            self._counts.opened(client)

    def closed(self, client: str) -> None:
        """Count a connection no longer, if there is a limit."""
        if self._counts is not None:
            self._counts.closed(client)


class WaitQueue(Generic[T]):
    """Clients who wait for a place, first come, first served.

    Every operation is O(1). Items are told apart by equality and hash; how long each may wait is the caller's.
    """

    __slots__ = ("_size", "_waiting")

    def __init__(self, size: int) -> None:
        # an OrderedDict, because the first key of a plain dict is found by walking over all that were deleted
        self._waiting: OrderedDict[T, None] = OrderedDict()
        self.reconfigure(size)

    def reconfigure(self, size: int) -> None:
        """Let `size` clients wait, 0: nobody; who waits already is not turned away for it."""
        self._size = size

    def push(self, item: T) -> bool:
        """Put an item at the end; False if the queue is full. Raises ValueError if it waits already, the caller's bug."""
        if item in self._waiting:
            raise ValueError("the item waits already")
        if len(self._waiting) >= self._size:
            return False
        self._waiting[item] = None
        return True

    def peek(self) -> T | None:
        """Return the item that has waited longest and leave it there; None: nobody waits."""
        return next(iter(self._waiting), None)

    def pop(self) -> T | None:
        """Take the item that has waited longest; None: nobody waits."""
        return self._waiting.popitem(last=False)[0] if self._waiting else None

    def discard(self, item: T) -> bool:
        """Take out an item wherever it stands; tell whether it waited."""
        return self._waiting.pop(item, self) is None

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)
