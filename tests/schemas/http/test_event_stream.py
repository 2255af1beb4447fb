"""What is on the wire of an event stream."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request

from schemas.http.event_stream import event_stream, event_text


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
