"""Loops: which backends lead back into the balancer."""

from __future__ import annotations

import itertools
import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.loops import Loops, Machine

HERE = Machine(lambda host: host in {"10.0.0.5", "fd00::5", "fe80::1%eth0"}, posixpath.normpath)


@pytest.mark.parametrize(
    ("listener", "address"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("10.0.0.9:80", "10.0.0.9:80"),
        ("127.0.0.1:80", "[::ffff:127.0.0.1]:80"),
        ("127.0.0.1:80", "0.0.0.0:80"),
        ("[::1]:80", "[::]:80"),
        ("0.0.0.0:80", "0.0.0.0:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.9.8.7:80"),
        ("0.0.0.0:80", "[::ffff:127.0.0.2]:80"),
        ("0.0.0.0:80", "10.0.0.5:80"),
        ("[::]:80", "[::1]:80"),
        ("[::]:80", "[fd00::5]:80"),
        ("[::]:80", "[fe80::1%eth0]:80"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth0]:80"),
        ("unix:/run/a.sock", "unix:/run/a.sock"),
        ("unix:/run/a.sock", "unix:/run/x/../a.sock"),
    ],
)
def test_lands(listener, address):
    """A connection to the address is accepted by the listener: the service would be its own backend."""
    assert "listens: each connection would come back" in Loops({"web": [listener]}, HERE).add("web", address)


@pytest.mark.parametrize(
    ("listener", "address"),
    [
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("0.0.0.0:80", "10.0.0.6:80"),
        ("0.0.0.0:80", "[::1]:80"),
        ("0.0.0.0:80", "127.example:80"),
        ("[::]:80", "127.0.0.1:80"),
        ("[::]:80", "[::ffff:127.0.0.1]:80"),
        ("[::]:80", "[fe80::1%eth1]:80"),
        ("[fe80::1%eth0]:80", "[fe80::1%eth1]:80"),
        ("0.0.0.0:80", "localhost:80"),
        ("unix:/run/a.sock", "unix:/run/b.sock"),
        ("127.0.0.1:80", "unix:/run/80"),
    ],
)
def test_does_not_land(listener, address):
    """Another port, another address, another family, another machine: the connection goes elsewhere."""
    assert Loops({"web": [listener]}, HERE).add("web", address) == ""


def test_what_only_the_machine_knows():
    """An address of an interface is refused only where it is known to be one; links of paths likewise."""
    assert Loops({"web": ["0.0.0.0:80"]}).add("web", "10.0.0.5:80") == ""
    assert Loops({"web": ["unix:/run/a"]}).add("web", "unix:/var/run/a") == ""
    linked = Machine(lambda _: False, lambda path: path.replace("/var/run", "/run"))
    assert Loops({"web": ["unix:/run/a"]}, linked).add("web", "unix:/var/run/a")


def test_a_chain_is_right_and_a_circle_is_not():
    """A service may lead to another one, and that to a third; only what closes a circle is refused, by name."""
    loops = Loops({"a": ["127.0.0.1:1"], "b": ["127.0.0.1:2"], "c": ["0.0.0.0:3"]})
    assert loops.add("a", "127.0.0.1:2") == ""
    assert loops.add("a", "127.0.0.1:3") == ""
    assert loops.add("b", "127.0.0.7:3") == ""
    assert loops.add("b", "127.0.0.7:3") == ""
    assert "(c -> a -> " in loops.add("c", "127.0.0.1:1")
    assert loops.add("c", "127.0.0.1:4") == ""


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_what_is_taken_has_no_circle(edges):
    """Whatever is asked for, in whatever order: following what was taken, nobody comes back to a service."""
    loops = Loops({str(number): [f"127.0.0.1:{number + 1}"] for number in range(6)})
    taken = [(one, other) for one, other in edges if not loops.add(str(one), f"127.0.0.1:{other + 1}")]
    reach = set(taken)
    for _ in range(6):
        reach |= {(one, end) for (one, way), (start, end) in itertools.product(reach, taken) if way == start}
    assert not any(one == other for one, other in reach)
    refused = set(edges) - set(taken)
    assert all(one == other or (other, one) in reach for one, other in refused)
