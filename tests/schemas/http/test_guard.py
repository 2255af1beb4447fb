"""Who may call: each rule alone, without a server."""

from __future__ import annotations

import os
import socket

import pytest
from aiohttp.test_utils import make_mocked_request

from schemas.http.guard import caller_uid, refuse_host, refuse_page, refuse_peer, refuse_token
from schemas.http.hosts import Hosts


class Transport:
    """What a request was read from."""

    def __init__(self, sock):
        self.sock = sock

    def get_extra_info(self, name, default=None):
        """Return the socket."""
        return self.sock if name == "socket" else default


def request(method="GET", sock=None, **headers):
    """Return a request as it comes in."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request(method, "/v1/status", headers=named, transport=Transport(sock))


def test_peer_is_known_by_the_kernel():
    """Whoever connects cannot lie about who it is, and our own user may call."""
    one, two = socket.socketpair(socket.AF_UNIX)
    with one, two:
        assert caller_uid(request(sock=one)) == os.getuid()
        assert refuse_peer(request(sock=one)) is None


def test_another_user_is_refused(monkeypatch):
    """Only root and our own user may use a socket, whatever its mode has become."""
    one, two = socket.socketpair(socket.AF_UNIX)
    with one, two:
        monkeypatch.setattr("schemas.http.guard.caller_uid", lambda _: 4711)
        refusal = refuse_peer(request(sock=one))
    assert (refusal.status, refusal.code) == (403, "foreign_peer")
    assert "uid 4711" in refusal.message


def test_who_cannot_be_identified_is_refused():
    """A connection that is no Unix socket has no user."""
    with socket.socket() as tcp:
        assert caller_uid(request(sock=tcp)) is None
        assert refuse_peer(request(sock=tcp)).code == "foreign_peer"
    assert refuse_peer(request()).code == "foreign_peer"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST", "DELETE"])
def test_no_web_page_changes_anything(method):
    """A browser says in Origin whose page calls; who is no browser does not."""
    assert refuse_page(request(method, Origin="null")).code == "foreign_origin"
    assert refuse_page(request(method)) is None
    assert refuse_page(request("GET", Origin="https://evil.example")) is None


def test_host_must_lead_here():
    """The words are those of the listener's hosts."""
    hosts = Hosts("127.0.0.1:7700", option="--api")
    assert refuse_host(request(Host="localhost"), hosts) is None
    refusal = refuse_host(request(Host="evil.example"), hosts)
    assert (refusal.status, refusal.code) == (403, "foreign_host")
    assert "--api" in refusal.message


@pytest.mark.parametrize(
    ("given", "allowed"),
    [("Bearer word", True), ("Bearer wor", False), ("Bearer w\xf6rd", False), ("", False)],
)
def test_only_the_whole_token_opens(given, allowed):
    """Anything else, text or not, is a wrong token."""
    refusal = refuse_token(request(Authorization=given), "word")
    assert (refusal is None) is allowed
    assert allowed or (refusal.status, refusal.code) == (401, "no_token")
