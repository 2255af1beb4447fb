"""The daemon's client: what went wrong is told as commands' client tells it, and a stream of events is read whole."""

from __future__ import annotations

import contextlib
import socket

import pytest
from aiohttp import web

from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import BlockingClient
from controlplane.dataplanes.client import DataPlaneClient
from controlplane.dataplanes.endpoint import Endpoint, endpoint_of
from controlplane.errors import LateError, RefusedError, UnreachableError
from tests.controlplane.dataplanes.answering import OK, server


async def ask_async(location, timeout_s):
    """Ask with the daemon's client."""
    async with DataPlaneClient(endpoint_of(location)) as client:
        return await client.ask(requests.get("/v1/info"), timeout_s=timeout_s)


async def ask_blocking(location, timeout_s):
    """Ask with the commands' client."""
    return BlockingClient(endpoint_of(location)).ask(requests.get("/v1/info"), timeout_s=timeout_s)


both = pytest.mark.parametrize("ask", [ask_async, ask_blocking])


@both
async def test_answer(tmp_path, ask):
    """A JSON object is the answer."""
    with server(tmp_path / "s", OK) as location:
        assert await ask(location, 5) == {"pid": 7}


@both
async def test_nobody_there_is_unreachable(tmp_path, ask):
    """A missing socket, or one that nobody listens on, is said with its path."""
    with pytest.raises(UnreachableError, match=r"nothing.*: No such file"):
        await ask(str(tmp_path / "nothing"), 5)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "dead"))
    with pytest.raises(UnreachableError, match="refused"):
        await ask(str(tmp_path / "dead"), 5)


@both
async def test_address_without_a_scheme_is_told_from_a_path(tmp_path, ask):
    """What looks like host and port was meant for TCP."""
    hint = r"No such file or directory; for TCP write http://127\.0\.0\.1:1 or https://127\.0\.0\.1:1$"
    with pytest.raises(UnreachableError, match=hint):
        await ask("127.0.0.1:1", 5)
    with pytest.raises(UnreachableError, match=r"No such file or directory$"):
        await ask(str(tmp_path / "a:1"), 5)


@both
async def test_silence_is_late(tmp_path, ask):
    """A data plane that hangs is named as late at the deadline."""
    with (
        server(tmp_path / "s", hang=True) as location,
        pytest.raises(LateError, match=r"no answer within 0\.05 s"),
    ):
        await ask(location, 0.05)


@both
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"SSH-2.0-x\r\n\r\n"]
)
async def test_broken_answer_is_unreachable(tmp_path, ask, answer):
    """Whatever is no HTTP, or breaks off, comes from nobody that can be spoken to."""
    with server(tmp_path / "s", answer) as location, pytest.raises(UnreachableError):
        await ask(location, 5)


@both
async def test_error_body_is_the_refusal(tmp_path, ask):
    """Code, message and details of the error body are what an operator reads."""
    body = b'{"code": "invalid", "message": "no", "details": [{"path": "a.b", "message": "bad"}]}'
    head = f"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with server(tmp_path / "s", head + body) as location, pytest.raises(RefusedError) as caught:
        await ask(location, 5)
    assert str(caught.value) == "refused: no (a.b: bad)"
    assert (caught.value.http_status, caught.value.reason, caught.value.permanent()) == (422, "invalid", True)


@both
async def test_error_without_our_body_is_still_a_refusal(tmp_path, ask):
    """A proxy's plain text is shown as it is."""
    busy = b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy"
    with server(tmp_path / "s", busy) as location, pytest.raises(RefusedError) as caught:
        await ask(location, 5)
    assert (str(caught.value), caught.value.permanent()) == ("refused: busy", False)


@contextlib.asynccontextmanager
async def serving(tmp_path, *pieces, status=200):
    """Serve these pieces as an event stream; yields a client of it."""
    path = tmp_path / "s.sock"

    async def answer(request):
        assert request.headers["Last-Event-ID"] == "0"
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return response

    app = web.Application()
    app.router.add_get("/v1/events", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.UnixSite(runner, str(path)).start()
        async with DataPlaneClient(Endpoint("a", str(path))) as client:
            yield client
    finally:
        await runner.cleanup()


STREAM = (
    b': livelb events\n\nid: 7\nevent: backend_down\ndata: {"at": "x", "cause": "a\\nb"}\n\n: heartbeat\n\n'
)


@pytest.mark.parametrize("cut", range(0, len(STREAM), 7))
async def test_stream_is_read_however_it_is_cut(tmp_path, cut):
    """Comments are no events, and an event may come in any pieces."""
    async with serving(tmp_path, *filter(None, (STREAM[:cut], STREAM[cut:]))) as client:
        assert [each async for each in client.events()] == [
            ("7", "backend_down", {"at": "x", "cause": "a\nb"})
        ]


@pytest.mark.parametrize(
    "piece",
    [b"id: 1\nevent: x\ndata: {\n\n", b"id: 1\ndata: {}\n\n", b"event: x\ndata: {}\n\n", b"nonsense\n\n",
     b"id: 1\nevent: x\ndata: []\n\n", b"\xff\n\n", b"x" * (1 << 20) + b"y"],
)  # fmt: skip
async def test_stream_that_makes_no_sense_is_an_error(tmp_path, piece):
    """Whatever listens there, following it ends in our error and no other."""
    async with serving(tmp_path, piece) as client:
        with pytest.raises(UnreachableError):
            _ = [each async for each in client.events()]


async def test_refusal_is_told(tmp_path):
    """An answer that is no stream is a refusal, with its words."""
    async with serving(tmp_path, b'{"code": "no_token", "message": "a token"}', status=401) as client:
        with pytest.raises(RefusedError, match="a token"):
            _ = [each async for each in client.events()]


async def test_nobody_there(tmp_path):
    """A socket that is missing is unreachable."""
    async with DataPlaneClient(Endpoint("a", str(tmp_path / "none"))) as client:
        with pytest.raises(UnreachableError):
            _ = [each async for each in client.events()]
