"""The one body that errors have, and what becomes of each kind of error."""

from __future__ import annotations

import json
import os
import socket

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from schemas.http.answers import (
    Refusal,
    alive,
    answered,
    caller_uid,
    event_stream,
    event_text,
    prometheus,
    refuse_host,
    refuse_page,
    refuse_peer,
    refuse_token,
)
from schemas.http.hosts import Hosts


def explain(error):
    """Know of one error."""
    return Refusal(422, "invalid", "it is wrong", [{"path": "a", "message": "b"}]) if error.args else None


async def answer_of(error=None, refusal=None):
    """Return status and body of a call that fails, or is refused."""

    async def handler(request):
        if error is not None:
            raise error
        return await alive(request)

    response = await answered(lambda _: refusal, explain)(make_mocked_request("GET", "/"), handler)
    return response.status, json.loads(response.body)


async def test_a_call_is_let_in():
    """Without a refusal the call is answered."""
    assert await answer_of() == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("error", "status", "code", "message"),
    [
        (ValueError("x"), 422, "invalid", "it is wrong"),
        (web.HTTPRequestEntityTooLarge(1, 2), 413, "too_large", "a body has at most 8388608 bytes"),
        (web.HTTPNotFound(), 404, "not_found", "404: Not Found"),
        (web.HTTPBadRequest(text="no JSON"), 400, "bad_request", "no JSON"),
    ],
)
async def test_errors_have_one_body(error, status, code, message):
    """Whether the plane, aiohttp or a limit said no."""
    got, body = await answer_of(error)
    assert (got, body["code"], body["message"]) == (status, code, message)
    assert body.keys() == {"code", "message", "details"}


async def test_refusals_have_the_same_body():
    """Who may not call learns why in the same form, and the call is not made."""
    refusal = Refusal(403, "foreign", "go away")
    body = {"code": "foreign", "message": "go away", "details": []}
    assert await answer_of(RuntimeError(), refusal) == (403, body)


async def test_a_bug_stays_one():
    """What nobody can explain is an error of ours, and reaches who logs those."""
    with pytest.raises(RuntimeError):
        await answer_of(RuntimeError())


def test_metrics_are_prometheus_text():
    """The version of the format is said."""
    response = prometheus(b"a 1\n")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.body == b"a 1\n"


async def events(*given):
    """Yield what happens."""
    for each in given:
        yield each


def written(event):
    """Write an event."""
    return event_text("up", {"n": event}, f"x-{event}")


async def test_stream():
    """A title at once, each event with its id, and a comment where nothing happens."""

    async def follow(request):
        return await event_stream(request, "what happens", events(1, None, 2), written)

    app = web.Application()
    app.router.add_get("/", follow)
    async with TestClient(TestServer(app)) as client, client.get("/") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        assert await response.text() == (
            ": what happens\n\n"
            'id: x-1\nevent: up\ndata: {"n": 1}\n\n'
            ": heartbeat\n\n"
            'id: x-2\nevent: up\ndata: {"n": 2}\n\n'
        )


def test_an_event_may_have_no_id():
    """Who never comes back needs none."""
    assert event_text("up", {}) == "event: up\ndata: {}\n\n"


async def test_a_reader_that_leaves_is_no_error(monkeypatch):
    """The stream just ends."""

    async def gone(_self, _data):
        raise ConnectionResetError

    async def prepare(_self, _request):
        return None

    monkeypatch.setattr(web.StreamResponse, "prepare", prepare)
    monkeypatch.setattr(web.StreamResponse, "write", gone)
    await event_stream(make_mocked_request("GET", "/"), "what happens", events(1), written)


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
        monkeypatch.setattr("schemas.http.answers.caller_uid", lambda _: 4711)
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
