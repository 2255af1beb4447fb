"""What routers are told: by readiness, and in ExaBGP's words."""

from __future__ import annotations

import pytest

from controlplane.core.announcement import Call, Routes, call_of, community, next_hop, prefix
from controlplane.core.drain import Drain, Phase
from controlplane.core.readiness import readiness


@pytest.mark.parametrize(
    ("phase", "call"),
    [
        (Phase.ENABLED, Call.PREFERRED),
        (Phase.LOWERED, Call.LOWERED),
        (Phase.WITHDRAWN, Call.WITHDRAWN),
        (Phase.DRAINED, Call.WITHDRAWN),
    ],
)
def test_by_readiness(phase, call):
    """Lowered it is still announced; whatever is not ready is not."""
    assert call_of(readiness({"a": None}, Drain(phase))) is call
    assert call_of(readiness({"a": "late"}, Drain(phase))) is Call.WITHDRAWN


def test_commands():
    """A line for each prefix; the metric by what is said, communities by their kind."""
    routes = Routes(
        (prefix("203.0.113.10"), prefix("2001:db8::/64")),
        med=5,
        med_lowered=7,
        communities=("64512:100", "64512:1:2", "no-export"),
    )
    more = " community [ 64512:100 no-export ] large-community [ 64512:1:2 ]"
    assert routes.commands(Call.PREFERRED) == [
        f"announce route 203.0.113.10/32 next-hop self med 5{more}",
        f"announce route 2001:db8::/64 next-hop self med 5{more}",
    ]
    assert "med 7 " in routes.commands(Call.LOWERED)[0]
    assert routes.commands(Call.WITHDRAWN) == [
        "withdraw route 203.0.113.10/32 next-hop self",
        "withdraw route 2001:db8::/64 next-hop self",
    ]
    plain = Routes((prefix("203.0.113.10"),), next_hop="192.0.2.1")
    assert plain.commands(Call.PREFERRED) == ["announce route 203.0.113.10/32 next-hop 192.0.2.1 med 100"]


@pytest.mark.parametrize("text", ["203.0.113.10/24", "web", "", "203.0.113.10/33", "203.0.113.10 med 0"])
def test_what_is_no_prefix(text):
    """It is refused: whatever else gets into a command is a command."""
    with pytest.raises(ValueError, match="must be an address or a network"):
        prefix(text)


@pytest.mark.parametrize("text", ["", "Self", "192.0.2.0/24", "self med 0"])
def test_what_is_no_next_hop(text):
    """Only an address, or `self`."""
    with pytest.raises(ValueError, match="must be an address"):
        next_hop(text)
    assert next_hop("self") == "self"
    assert next_hop("2001:DB8::1") == "2001:db8::1"


@pytest.mark.parametrize(
    "text", ["", "1", "65536:1", "1:65536", "1:2:4294967296", "1:2:3:4", "no-way", "1:1 ] med 0"]
)
def test_what_is_no_community(text):
    """Two numbers of 16 bits, three of 32, or one of the names that routers know."""
    with pytest.raises(ValueError, match="must be two numbers"):
        community(text)


@pytest.mark.parametrize("text", ["0:0", "65535:65535", "4294967295:0:4294967295", "blackhole"])
def test_communities(text):
    """They travel as they are."""
    assert community(text) == text
