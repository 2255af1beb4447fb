"""Whose requests over TCP are meant for us: names that somebody's DNS turned to us are not."""

from __future__ import annotations

import functools

import pytest

from schemas.http.hosts import Hosts, host_name

hosts = functools.partial(Hosts, option="--http-host")
ADDRESSES = ("127.0.0.1:7700", "0.0.0.0:7700", "[::]:7700", ":7700", "localhost:7700", "lb.example:7700")


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("port", ["", ":", ":80", ":7700", ":8800"])
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "[::1]", "[2001:DB8::1]", "localhost", "LocalHost"]
)
def test_addresses_and_localhost_cannot_be_rebound(address, port, host):
    """They are let through with any port and with none, whatever is listened on."""
    assert hosts(address).foreign_host([host + port]) is None


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:7700",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "127.0.0.1@evil.example",
        "evil.example@127.0.0.1",
        "evil.example/127.0.0.1",
        "127.0.0.1:7700:7700",
        "127.0.0.1:7700, evil.example",
        "::1",
        "[::1",
        "[evil.example]",
        "127.1",
        "localhost:http",
        "127.0.0.1 evil.example",
        "",
        ":7700",
    ],
)
def test_other_names_can(address, host):
    """A name is refused, and so is what only looks like an address."""
    assert hosts(address).foreign_host([host]) is not None


def test_names_that_were_given():
    """The bound name, and more by option: with any port, in any case, with the root's dot."""
    ours = hosts("lb.example:7700", ["page.example"])
    for host in ("lb.example", "LB.example:443", "page.example", "Page.Example.:8443"):
        assert ours.foreign_host([host]) is None
    assert ours.foreign_host(["evil.page.example"]) is not None


def test_without_a_host_it_is_no_browser():
    """A health check of HTTP/1.0 has none; two are no request at all."""
    assert hosts("0.0.0.0:7700").foreign_host([]) is None
    assert hosts("0.0.0.0:7700").foreign_host(["127.0.0.1", "evil.example"]) is not None


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://127.0.0.1:7700", "127.0.0.1:7700", True),
        ("http://localhost:8800", "localhost:8800", True),
        ("http://LOCALHOST:8800", "localhost:8800", True),
        ("https://page.example", "page.example", True),
        ("https://page.example", "127.0.0.1:7700", True),
        ("https://page.example:8443", "127.0.0.1:7700", True),
        ("http://127.0.0.1:1", "127.0.0.1:7700", False),
        ("http://127.0.0.1", "localhost", False),
        ("http://lb.example", "127.0.0.1:7700", False),
        ("https://evil.example", "page.example", False),
        ("https://page.example.evil.example", "page.example", False),
        ("https://page.example@evil.example", "page.example", False),
        ("null", "127.0.0.1:7700", False),
        ("", "127.0.0.1:7700", False),
        ("http://[", "127.0.0.1:7700", False),
    ],
)
def test_origins(origin, host, own):
    """A page calls where it came from, or came by a name that was given; every other page is another's."""
    assert hosts("lb.example:7700", ["page.example"]).is_own(origin, [host]) is own


@pytest.mark.parametrize(
    "text", ["", ".", "https://page.example", "page.example:443", "a/b", "a b", "-a", "a..b", "*"]
)
def test_what_is_no_name(text):
    """A name that could never match is refused where it is given."""
    with pytest.raises(ValueError, match="no host name"):
        host_name(text)


def test_names_are_compared_without_case_and_dot():
    """As DNS does."""
    assert host_name("Page.Example.") == "page.example"
