"""Which service a client is for."""

from __future__ import annotations

import ipaddress
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.core.client_hello import ClientHello
from dataplane.core.routing import Routes
from dataplane.core.spec import MatchSpec

TABLE: list[tuple[MatchSpec | None, str]] = [
    (MatchSpec(sni=("www.example.com",)), "name"),
    (MatchSpec(sni=("*.example.com",)), "wildcard"),
    (MatchSpec(sni=("*.example.com",), alpn=("h2",)), "wildcard-h2"),
    (MatchSpec(sni=("*.example.com",), alpn=("grpc",), source=("10.0.0.0/8",)), "wildcard-grpc-10"),
    (MatchSpec(alpn=("postgresql",)), "postgres"),
    (MatchSpec(source=("10.0.0.0/8", "2001:db8::/32")), "ten"),
    (MatchSpec(source=("10.1.0.0/16",)), "ten-one"),
    (None, "rest"),
]
TLS = ClientHello()


@pytest.mark.parametrize(
    ("sni", "alpn", "client", "expected"),
    [
        ("www.example.com", ("h2",), "10.0.0.1", "name"),
        ("a.example.com", (), "10.0.0.1", "wildcard"),
        ("a.example.com", ("h2", "http/1.1"), "192.0.2.1", "wildcard-h2"),
        ("a.example.com", ("h2", "grpc"), "10.0.0.1", "wildcard-h2"),
        ("a.example.com", ("grpc", "h2"), "10.0.0.1", "wildcard-grpc-10"),
        ("a.example.com", ("grpc", "h2"), "192.0.2.1", "wildcard-h2"),
        ("a.b.example.com", (), "192.0.2.1", "rest"),
        ("example.com", (), "192.0.2.1", "rest"),
        ("", ("postgresql",), "10.1.0.1", "postgres"),
        ("other.example", ("postgresql",), "10.1.0.1", "postgres"),
        ("", (), "10.1.0.1", "ten-one"),
        ("", (), "::ffff:10.1.0.1", "ten-one"),
        ("", (), "10.2.0.1", "ten"),
        ("", (), "2001:db8::1%eth0", "ten"),
        ("", (), "", "rest"),
    ],
)
def test_the_most_specific_wins(sni: str, alpn: tuple[str, ...], client: str, expected: str) -> None:
    """First the name, then the protocol that the client prefers, then the smallest network; the rest is the rest's."""
    assert Routes(TABLE).find(ClientHello(sni, alpn), client) == expected
    assert Routes(TABLE[::-1]).find(ClientHello(sni, alpn), client) == expected


def test_who_does_not_speak_tls() -> None:
    """Only what asks for neither name nor protocol takes it."""
    routes = Routes(TABLE)
    assert routes.find(None, "10.2.0.1") == "ten"
    assert routes.find(None, "192.0.2.1") == "rest"
    assert Routes(TABLE[:5]).find(None, "10.2.0.1") is None


def test_nobody_s_client() -> None:
    """Without a service for the rest there is no answer."""
    assert Routes(TABLE[:-1]).find(ClientHello("other.example"), "192.0.2.1") is None


@pytest.mark.parametrize(
    ("match", "needed"),
    [
        (None, False),
        (MatchSpec(source=("10.0.0.0/8",)), False),
        (MatchSpec(sni=("a.example",)), True),
        (MatchSpec(alpn=("h2",)), True),
    ],
)
def test_whether_a_hello_is_needed(match: MatchSpec | None, needed: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Addresses are known without one."""
    assert Routes([(match, "x"), (None, "rest")]).needs_hello is needed


SNI = st.sampled_from(["a.example", "b.example", "*.example"])
WORD = st.sampled_from(["h2", "http/1.1", "x"])
NET = st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "::/0"])
MATCH = st.builds(
    MatchSpec,
    sni=st.lists(SNI, max_size=2, unique=True).map(tuple),
    alpn=st.lists(WORD, max_size=2, unique=True).map(tuple),
    source=st.lists(NET, max_size=2, unique=True).map(tuple),
)


def holds(match: MatchSpec, hello: ClientHello, client: str) -> bool:
    """Return whether everything holds that a match says: rule 1, in the plainest words."""
    names = {hello.sni, "*." + hello.sni.partition(".")[2]}
    address = ipaddress.ip_address(client)
    return (
        (not match.sni or bool(names & set(match.sni)))
        and (not match.alpn or bool(set(hello.alpn) & set(match.alpn)))
        and (not match.source or any(address in ipaddress.ip_network(one) for one in match.source))
    )


@given(
    st.lists(MATCH, min_size=1, max_size=4),
    st.sampled_from(["a.example", "b.example", "c.example", ""]),
    st.lists(WORD, max_size=3, unique=True).map(tuple),
    st.sampled_from(["10.1.0.1", "10.2.0.1", "192.0.2.1", "2001:db8::1"]),
)
def test_who_is_found_matches_and_somebody_is_if_anybody_does(
    matches: list[MatchSpec], sni: str, alpn: tuple[str, ...], client: str
) -> None:
    """No rule is found that does not hold, none that holds is overlooked, and order decides only between equals."""
    hello = ClientHello(sni, alpn)
    held = [index for index, match in enumerate(matches) if holds(match, hello, client)]
    numbered = [(match, index) for index, match in enumerate(matches)]
    found = Routes(numbered).find(hello, client)
    assert (found in held) if held else found is None
    apart = all(
        (one.sni or other.sni) and not set(one.sni) & set(other.sni)
        for one, other in permutations(matches, 2)
    )
    if apart:
        assert Routes(numbered[::-1]).find(hello, client) == found
