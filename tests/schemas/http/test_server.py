"""The API's connections whose first request does not come in time, on both event loops."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from schemas.http import server as module
from schemas.http.server import ImpatientRunner
from tests.support.loops import on_both_loops

REQUEST = b"PUT /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"


@asynccontextmanager
async def serving(monkeypatch, headers_s):
    """Serve an application that echoes, with this patience; yield its address."""
    monkeypatch.setattr(module, "HEADERS_S", headers_s)

    async def echo(request):
        return web.Response(body=await request.read())

    app = web.Application()
    app.router.add_put("/echo", echo)
    sock = socket.create_server(("127.0.0.1", 0))
    runner = ImpatientRunner(app)
    await runner.setup()
    await web.SockSite(runner, sock).start()
    try:
        yield sock.getsockname()
    finally:
        await runner.cleanup()


async def ended(reader):
    """Return whatever still comes before the connection ends, by a FIN or a reset."""
    try:
        return await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        return b""


@on_both_loops
class TestErrors:
    """Who is told of a request that fails."""

    async def test_what_is_no_http(self, monkeypatch, no_leaks, capsys, caplog):
        """Its sender gets a 400, and nothing is logged: whoever reaches the port could fill the log."""
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with serving(monkeypatch, 30.0) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
            answer = await ended(reader)
            writer.close()
            assert answer.split()[1] == b"400"
        assert (told, caplog.records, capsys.readouterr().err) == ([], [], "")

    async def test_a_bug_of_ours(self, monkeypatch, no_leaks, caplog):
        """Its sender gets a 500, and the loop's handler the error, in one piece."""
        told = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        monkeypatch.setattr(web, "Response", None)
        async with serving(monkeypatch, 30.0) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(REQUEST.replace(b"Host", b"Connection: close\r\nHost") + b"hello")
            answer = await ended(reader)
            writer.close()
            assert answer.split()[1] == b"500"
        assert [type(context["exception"]) for context in told] == [TypeError]
        assert caplog.records == []


@on_both_loops
class TestPatience:
    """Headers within some seconds."""

    @pytest.mark.parametrize("said", [b"", b"GET", REQUEST[:-1]])
    async def test_who_does_not_finish(self, monkeypatch, no_leaks, said):
        """Silence, half a line or everything but the last byte: the connection is closed without an answer."""
        async with serving(monkeypatch, 0.05) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(said)
            assert await ended(reader) == b""
            writer.close()

    @pytest.mark.parametrize("pieces", [1, 2, 7, len(REQUEST)])
    async def test_however_it_is_cut(self, monkeypatch, no_leaks, pieces):
        """A request that comes in pieces is answered, and so is the next one on the connection."""
        async with serving(monkeypatch, 30.0) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            size = -(-len(REQUEST) // pieces)
            for _ in range(2):
                for start in range(0, len(REQUEST), size):
                    writer.write(REQUEST[start : start + size])
                    await asyncio.sleep(0)
                writer.write(b"hello")
                answer = await asyncio.wait_for(reader.readuntil(b"hello"), 10)
                assert answer.startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()

    async def test_a_body_may_take_longer(self, monkeypatch, no_leaks):
        """Once the headers are there, the clock has stopped."""
        async with serving(monkeypatch, 0.05) as (host, port):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(REQUEST)
            others, other = await asyncio.open_connection(host, port)
            assert await ended(others) == b"", "whoever came later has been closed meanwhile"
            other.close()
            writer.write(b"hello")
            assert (await asyncio.wait_for(reader.readuntil(b"hello"), 10)).startswith(b"HTTP/1.1 200")
            writer.close()
