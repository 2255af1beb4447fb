"""Admission: access lists, rates, counts and the queue, on a clock that is a number."""

from __future__ import annotations

import ipaddress
from collections import Counter, deque
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dataplane.core.admission import AccessList, Admission, Counts, NetworkSet, RateLimiter, WaitQueue
from dataplane.core.reasons import CloseReason
from dataplane.core.spec import AccessSpec, LimitsSpec

NO_ACCESS = AccessSpec((), ())
START = 1_000_000.25
"""Monotonic clocks do not begin at 0; after twelve days their floats are coarser."""


def access_list(allow, deny):
    """Return the list of these rules."""
    return AccessList(AccessSpec(tuple(allow), tuple(deny)))


def limits(**changed):
    """Build limits of which all but `changed` are off."""
    fields = {
        "connections": 0,
        "per_backend": 0,
        "per_client": 0,
        "client_rate": 0.0,
        "queue": 0,
        "queue_timeout_s": 5.0,
        "drop_abandoned": False,
    }
    return LimitsSpec(**(fields | changed))


# -- networks and access lists --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cidrs", "inside", "outside"),
    [
        ([], [], ["0.0.0.0", "192.0.2.1", "::", "2001:db8::1"]),
        (["192.0.2.1"], ["192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201"], ["192.0.2.0", "192.0.2.2"]),
        (["10.0.0.0/8"], ["10.0.0.0", "10.255.255.255"], ["9.255.255.255", "11.0.0.0", "::10.1.1.1"]),
        (["10.1.2.3/8"], ["10.0.0.0", "10.200.0.1"], ["11.0.0.0"]),
        (["0.0.0.0/0"], ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4"], ["::", "2001:db8::1"]),
        (["::/0"], ["::", "2001:db8::1", "fe80::1%eth0"], ["1.2.3.4", "::ffff:1.2.3.4"]),
        (["0.0.0.0/0"], [], ["::fffe:1.2.3.4", "::1:ffff:1.2.3.4", "::1.2.3.4"]),
        (["2001:db8::/32"], ["2001:db8::1", "2001:DB8:ffff::"], ["2001:db9::1"]),
        (["2001:db8::1"], ["2001:db8::1", "2001:db8:0::1%2"], ["2001:db8::2"]),
        (["::ffff:10.0.0.0/104"], ["10.1.1.1", "::ffff:10.1.1.1"], ["11.1.1.1", "::a01:101"]),
        (["::ffff:192.0.2.1"], ["192.0.2.1"], ["192.0.2.2"]),
        (["10.0.0.0/8", "192.0.2.0/24", "192.0.3.0/24"], ["10.9.9.9", "192.0.3.9"], ["192.0.4.1"]),
    ],
)
def test_a_network_set_holds_what_its_networks_hold(cidrs, inside, outside):
    """First and last address of a network are in it, neighbours are not, and IPv4-mapped ones are IPv4."""
    networks = NetworkSet(cidrs)
    assert [ip for ip in inside if ip not in networks] == []
    assert [ip for ip in outside if ip in networks] == []


@pytest.mark.parametrize("client", ["", "unix"])
def test_a_client_without_an_address_is_in_no_network(client):
    """A Unix client meets no deny rule, and no allow rule either."""
    assert client not in NetworkSet(["0.0.0.0/0", "::/0"])
    assert access_list([], ["0.0.0.0/0", "::/0"]).permits(client)
    assert not access_list(["0.0.0.0/0", "::/0"], []).permits(client)


@pytest.mark.parametrize("cidr", ["10.0.0.0/33", "10.0.0", "localhost", "", "::1/129", "10.0.0.0/8 "])
def test_what_is_no_network_is_an_error(cidr):
    """A list is not built around a rule that cannot be read: that would let somebody in."""
    with pytest.raises(ValueError):
        access_list([], ["192.0.2.0/24", cidr])


def test_no_rules_are_no_list():
    """Without rules there is nothing to ask on the connection path."""
    assert Admission(limits(), NO_ACCESS)._access is None


def test_deny_wins_over_allow():
    """An address in both is refused, whichever network is the narrower one."""
    access = access_list(["10.0.0.0/8", "192.0.2.7"], ["10.1.0.0/16", "192.0.2.0/24"])
    assert access.permits("10.2.0.1")
    assert not access.permits("10.1.0.1")
    assert not access.permits("192.0.2.7")
    assert not access.permits("::ffff:10.1.0.1")
    assert not access.permits("198.51.100.1")


def test_deny_alone_lets_everybody_else_in():
    """An empty allow list is everybody, not nobody."""
    access = access_list([], ["10.1.0.0/16"])
    assert access.permits("192.0.2.1")
    assert access.permits("2001:db8::1")
    assert not access.permits("10.1.0.1")


# few distinct bits, so that random networks and addresses meet
near_v4 = st.integers(0, 63).map(lambda n: ipaddress.IPv4Address((10 << 24) + (n & 7) + ((n & 56) << 13)))
near_v6 = st.integers(0, 63).map(
    lambda n: ipaddress.IPv6Address((0x20010DB8 << 96) + (n & 7) + ((n & 56) << 61))
)
near_mapped = near_v4.map(lambda address: ipaddress.IPv6Address(f"::ffff:{address}"))
addresses = st.one_of(near_v4, near_v6, near_mapped, st.ip_addresses())
networks_v4 = st.builds("{}/{}".format, st.one_of(near_v4, st.ip_addresses(v=4)), st.integers(0, 32))
networks_v6 = st.builds("{}/{}".format, st.one_of(near_v6, st.ip_addresses(v=6)), st.integers(0, 128))
networks_mapped = st.builds("{}/{}".format, near_mapped, st.integers(96, 128))
rules = st.lists(st.one_of(networks_v4, networks_v6, networks_mapped), max_size=8)


def as_v4(address):
    """Return the IPv4 address of a mapped one, any other as it is."""
    return getattr(address, "ipv4_mapped", None) or address


def naive_network(cidr):
    """Parse a network; one of mapped addresses becomes IPv4."""
    network = ipaddress.ip_network(cidr, strict=False)
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < 96:
        return network
    return ipaddress.ip_network((mapped, network.prefixlen - 96))


@settings(deadline=None, max_examples=300)
@given(rules, rules, addresses)
@example(["::/0"], [], ipaddress.ip_address("::ffff:1.2.3.4"))
@example([], ["::ffff:0.0.0.0/96"], ipaddress.ip_address("1.2.3.4"))
def test_access_agrees_with_asking_every_network(allow, deny, address):
    """Whatever the rules and the address, the answer is that of comparing with one rule after the other."""
    plain = as_v4(address)
    allowed = not allow or any(plain in naive_network(cidr) for cidr in allow)
    expected = allowed and not any(plain in naive_network(cidr) for cidr in deny)
    access = access_list(allow, deny)
    assert access.permits(str(address)) is expected
    assert (str(address) in NetworkSet(deny)) is any(plain in naive_network(cidr) for cidr in deny)


# -- rates ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "burst"),
    [(0.1, 1), (0.5, 1), (1, 1), (1.5, 1), (2.5, 2), (3, 3), (10, 10), (49, 49), (1000, 1000)],
)
def test_a_burst_is_one_second_and_then_it_is_the_rate(rate, burst):
    """A new client gets a second's worth at once, at least one, and then one each 1 / rate seconds."""
    limiter = RateLimiter(rate)
    assert [limiter.admit("a", START) for _ in range(burst + 3)] == [True] * burst + [False] * 3
    full = max(1, rate) / rate
    again = START + full
    assert [limiter.admit("a", again) for _ in range(burst + 3)] == [True] * burst + [False] * 3
    later = again + full
    for turn in range(1, 20):
        taken = sum(limiter.admit("a", later + turn / rate) for _ in range(burst + 3))
        assert taken == (burst if turn == 1 else 1)


def test_refused_attempts_take_nothing():
    """A client that hammers gets exactly what one that asks at the right time gets."""
    limiter = RateLimiter(2)
    admitted = sum(limiter.admit("a", START + tick / 100) for tick in range(1001))
    assert admitted == 2 + 10 * 2


def test_clients_do_not_share():
    """One client at its limit costs no other client anything."""
    limiter = RateLimiter(1)
    assert limiter.admit("a", START)
    assert not limiter.admit("a", START)
    assert limiter.admit("b", START)


@settings(deadline=None, max_examples=200)
@given(
    st.one_of(st.floats(0.05, 200), st.integers(1, 50)),
    st.lists(st.one_of(st.just(0.0), st.floats(0, 0.2), st.floats(0, 30)), min_size=1, max_size=120),
)
def test_no_window_sees_more_than_rate_and_burst(rate, gaps):
    """Between any two moments, at most rate x time + burst connections of a client are admitted."""
    limiter = RateLimiter(rate)
    burst = max(1.0, rate)
    now, admitted = START, []
    for gap in gaps:
        now += gap
        if limiter.admit("a", now):
            admitted.append(now)
    for first, begin in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= rate * (admitted[last] - begin) + burst + 0.01


@settings(deadline=None, max_examples=200)
@given(
    st.integers(1, 40),
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2000)), min_size=1, max_size=100),
)
def test_it_is_a_token_bucket(rate, attempts):
    """Attempt by attempt, the verdict is that of counting tokens, for several clients at once."""
    limiter = RateLimiter(rate)
    # exact: the clock ticks in milliseconds, and tokens are counted in thousandths
    buckets, now_ms = {}, 0
    for client, gap_ms in attempts:
        now_ms += gap_ms
        tokens, since_ms = buckets.get(client, (rate * 1000, now_ms))
        tokens = min(rate * 1000, tokens + (now_ms - since_ms) * rate)
        got = limiter.admit(client, START + now_ms / 1000)
        # a thousandth of a token is the tolerance for floats: with 999, either verdict will do
        assert got is (tokens >= 1000) or tokens == 999
        buckets[client] = (tokens - 1000 if got else tokens, now_ms)


def test_a_client_with_a_full_bucket_is_forgotten_by_those_who_come():
    """A scan over very many addresses holds those of about the last second, not all."""
    limiter = RateLimiter(5)
    largest = 0
    for number in range(20_000):
        assert limiter.admit(str(number), START + number / 1000)
        largest = max(largest, len(limiter._full_at))
    assert largest <= 202  # 1000 clients a second, each full again after a fifth of one


def test_a_client_that_keeps_coming_does_not_keep_others_remembered():
    """The one who came first and comes again is no reason to hold those who came once."""
    limiter = RateLimiter(5)
    for number in range(5_000):
        limiter.admit("busy", START + number / 1000)
        assert limiter.admit(str(number), START + number / 1000)
    assert len(limiter._full_at) <= 203


def test_what_a_burst_left_goes_as_others_come():
    """Each newcomer lets two go, so a crowd that left is forgotten by the time that as many others have come."""
    limiter = RateLimiter(1)
    for number in range(1000):
        assert limiter.admit(str(number), START)
    for number in range(1000):
        assert limiter.admit(f"late {number}", START + 10 + number * 2)
    assert len(limiter._full_at) == 1


def test_a_sweep_forgets_within_its_budget_and_nobody_too_early():
    """A sweep takes out full buckets only, no more than it is told to, and thereby changes no verdict."""
    limiter = RateLimiter(1)
    for number in range(100):
        assert limiter.admit(str(number), START + number / 1000)
    limiter.sweep(START + 0.5, 1000)
    assert len(limiter._full_at) == 100
    limiter.sweep(START + 1.0495, 20)
    assert len(limiter._full_at) == 80
    limiter.sweep(START + 1.0495, 1000)
    assert len(limiter._full_at) == 50
    assert not limiter.admit("99", START + 1.0495)
    assert limiter.admit("0", START + 1.0495)
    limiter.sweep(START + 10, 1000)
    assert len(limiter._full_at) == 0


def test_an_update_of_the_rate_does_not_refill_the_bucket():
    """A client at its limit is still there after the rate has changed to a like one."""
    limiter = RateLimiter(10)
    while limiter.admit("a", START):
        pass
    limiter.reconfigure(20)
    assert not limiter.admit("a", START)
    assert sum(limiter.admit("a", START + 0.5) for _ in range(50)) == 10
    limiter.reconfigure(10)
    assert not limiter.admit("a", START + 0.5)


def test_a_raised_rate_holds_for_those_who_were_refused():
    """Nobody waits out a slow rate that is gone: after an update the wait is at most one token's time."""
    limiter = RateLimiter(0.01)
    assert limiter.admit("a", START)
    assert not limiter.admit("a", START + 1)
    limiter.reconfigure(10)
    assert not limiter.admit("a", START + 2)
    assert not limiter.admit("a", START + 2.05)
    assert limiter.admit("a", START + 2.11)


def test_a_lowered_rate_holds_at_once():
    """After an update the new rate counts, with what was used before."""
    limiter = RateLimiter(100)
    for _ in range(100):
        assert limiter.admit("a", START)
    limiter.reconfigure(0.5)
    admitted = [tick for tick in range(200) if limiter.admit("a", START + tick / 10)]
    assert len(admitted) == 10
    assert all(after - before == 20 for before, after in pairwise(admitted))


# -- counts ---------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=60))
def test_counts_are_those_of_what_is_open(events):
    """Counts follow what opens and closes, never go below nothing, and know nobody who has nothing."""
    counts, expected = Counts(), Counter()
    for client, opens in events:
        if opens:
            counts.opened(client)
            expected[client] += 1
        else:
            counts.closed(client)
            expected[client] = max(0, expected[client] - 1)
        assert all(counts.count(client) == expected[client] for client in "abcd")
        assert len(counts._counts) == len(+expected)


# -- admission ------------------------------------------------------------------------------------------


def test_without_limits_everybody_enters():
    """No limit and no rule refuse nobody, and nothing is counted."""
    admission = Admission(limits(), NO_ACCESS)
    for _ in range(1000):
        assert admission.refuse("192.0.2.1", START) is None
        admission.opened("192.0.2.1")
    admission.closed("192.0.2.1")
    assert admission._counts is None


def test_the_first_refusal_in_order_is_the_reason():
    """Who meets several limits is told the rule first, then the count, then the rate."""
    admission = Admission(limits(per_client=2, client_rate=3), AccessSpec((), ("10.0.0.0/8",)))
    for _ in range(2):
        assert admission.refuse("192.0.2.1", START) is None
        admission.opened("192.0.2.1")
    # refused for the count: the third token is not taken
    assert admission.refuse("192.0.2.1", START) is CloseReason.LIMIT_PER_CLIENT
    admission.closed("192.0.2.1")
    assert admission.refuse("192.0.2.1", START) is None
    assert admission.refuse("192.0.2.1", START) is CloseReason.CLIENT_RATE
    admission.opened("192.0.2.1")
    assert admission.refuse("192.0.2.1", START) is CloseReason.LIMIT_PER_CLIENT
    admission.reconfigure(limits(per_client=2, client_rate=3), AccessSpec((), ("192.0.2.0/24",)))
    assert admission.refuse("192.0.2.1", START) is CloseReason.DENIED


def test_an_update_keeps_counts_and_buckets():
    """Another limit or rule forgets neither who is connected nor who came too often."""
    admission = Admission(limits(per_client=2, client_rate=2), NO_ACCESS)
    for _ in range(2):
        assert admission.refuse("a", START) is None
        admission.opened("a")
    admission.reconfigure(limits(per_client=3, client_rate=2, queue=5), AccessSpec(("10.0.0.0/8",), ()))
    admission.reconfigure(limits(per_client=3, client_rate=2), NO_ACCESS)
    assert admission.refuse("a", START) is CloseReason.CLIENT_RATE
    admission.opened("a")
    assert admission.refuse("a", START + 60) is CloseReason.LIMIT_PER_CLIENT


def test_a_limit_that_is_switched_on_counts_those_who_are_there():
    """After a recount, old connections count like new ones, and leave like new ones."""
    admission = Admission(limits(), NO_ACCESS)
    live = ["a", "a", "b"]
    for client in live:
        admission.opened(client)
    admission.reconfigure(limits(per_client=2), NO_ACCESS)
    admission.recount(iter(live))
    assert admission.refuse("a", START) is CloseReason.LIMIT_PER_CLIENT
    assert admission.refuse("b", START) is None
    admission.closed("a")
    assert admission.refuse("a", START) is None
    for client in ("a", "b"):
        admission.closed(client)
    assert len(admission._counts._counts) == 0


def test_a_limit_that_is_switched_off_is_forgotten():
    """Off means off: nobody is refused, nothing is kept, and a recount starts nothing."""
    admission = Admission(limits(per_client=1, client_rate=1), NO_ACCESS)
    assert admission.refuse("a", START) is None
    admission.opened("a")
    admission.reconfigure(limits(), NO_ACCESS)
    admission.recount(["a"])
    assert admission.refuse("a", START) is None
    assert admission._counts is None
    assert admission._rate is None


def test_rules_that_cannot_be_read_change_nothing():
    """A failed update leaves rules and limits as they were."""
    admission = Admission(limits(), AccessSpec((), ("10.0.0.0/8",)))
    with pytest.raises(ValueError):
        admission.reconfigure(limits(client_rate=1), AccessSpec((), ("nonsense",)))
    assert admission.refuse("10.0.0.1", START) is CloseReason.DENIED
    assert all(admission.refuse("192.0.2.1", START) is None for _ in range(5))


# -- the queue ------------------------------------------------------------------------------------------


def test_a_queue_without_places_takes_nobody():
    """Size 0 is no queue."""
    queue = WaitQueue(0)
    assert not queue.push("a")
    assert (queue.pop(), queue.peek(), len(queue)) == (None, None, 0)


def test_a_smaller_queue_keeps_those_who_wait():
    """An update of the size turns nobody away; new ones are, until there is room."""
    queue = WaitQueue(3)
    for item in "abc":
        assert queue.push(item)
    queue.reconfigure(1)
    assert len(queue) == 3
    assert not queue.push("d")
    assert [queue.pop(), queue.pop()] == ["a", "b"]
    assert not queue.push("d")
    assert queue.pop() == "c"
    assert queue.push("d")


def test_nobody_waits_twice():
    """Pushing what waits already is the caller's bug, and the queue stays as it was."""
    queue = WaitQueue(3)
    assert queue.push("a")
    with pytest.raises(ValueError):
        queue.push("a")
    assert len(queue) == 1
    assert queue.discard("a")
    assert not queue.discard("a")


class QueueMachine(RuleBasedStateMachine):
    """A queue beside a plain list, under random use."""

    def __init__(self):
        super().__init__()
        self.queue = WaitQueue(4)
        self.model = deque()
        self.size, self.next_item = 4, 0

    @rule()
    def push(self):
        """A client comes: it enters if and only if there is room."""
        item, self.next_item = self.next_item, self.next_item + 1
        room = len(self.model) < self.size
        assert self.queue.push(item) is room
        if room:
            self.model.append(item)

    @rule()
    def pop(self):
        """A place comes free: the first gets it."""
        assert self.queue.peek() == (self.model[0] if self.model else None)
        assert self.queue.pop() == (self.model.popleft() if self.model else None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def discard(self, data):
        """A client leaves from anywhere in the queue."""
        item = data.draw(st.sampled_from(list(self.model)))
        self.model.remove(item)
        assert self.queue.discard(item)
        assert not self.queue.discard(item)

    @rule(size=st.integers(0, 6))
    def reconfigure(self, size):
        """An update changes the size."""
        self.size = size
        self.queue.reconfigure(size)

    @invariant()
    def counts(self):
        """The length is the number of those who wait."""
        assert len(self.queue) == len(self.model)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(deadline=None, max_examples=50)
