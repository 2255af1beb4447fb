"""One active check against real sockets."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
import struct
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.health import Outcome
from dataplane.core.proxy_protocol.v2 import encode_v2
from dataplane.core.spec import ActiveCheckSpec, CheckType, ProxySend
from dataplane.errors import LocalError, NowhereError
from dataplane.net.probes import Probe, Target, excerpt
from dataplane.net.sockopts import error_text, to_sockaddr
from tests.support.checked import backend, saying
from tests.support.loops import on_both_loops

to_sockaddr(
    "127.0.0.1:1"
)  # reads a kernel setting once a process, which `no_blocking` would take for disk access

OK = Outcome(ok=True, cause="ok")
TCP = ActiveCheckSpec(
    type=CheckType.TCP,
    interval_s=2.0,
    timeout_s=10.0,
    rise=2,
    fall=3,
    jitter=0.1,
    port=None,
    http_path="/",
    http_status=((200, 200),),
    http_host="",
    expect_send=b"",
    expect_expect=b"",
    expect_quit=b"",
)
HTTP = replace(TCP, type=CheckType.HTTP)
PING = replace(TCP, type=CheckType.EXPECT, expect_send=b"PING\r\n", expect_expect=b"+PONG")
SHORT_S = 0.05
"""A timeout that is meant to run out, whatever happens before."""
AMPLE_S = 0.5
"""A timeout that is meant to run out after the connection has been made, on a busy machine too."""
TCP_CLOSE_WAIT = 8
"""The peer has sent a FIN, and no reset after it (include/net/tcp_states.h)."""


async def probe(address, check=TCP, *, proxy=ProxySend.OFF, **where):
    """Probe once, leave cleanly, and return what was found."""
    outcome, connection = await Probe(Target("web", "b1", address, check, proxy), **where).run()
    if connection is not None:
        await connection.leave(check.timeout_s)
    return outcome


@asynccontextmanager
async def greeted():
    """Yield a probe's connection with a greeting that nobody has read, and the server's end of it."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        outcome, connection = await Probe(Target("web", "b1", address, TCP, ProxySend.OFF)).run()
        assert outcome == OK
        server, _ = await loop.sock_accept(listener)
        with server:
            await loop.sock_sendall(server, b"220 mail.example ESMTP\r\n")
            yield connection, server


def refused_address():
    """Return an address on which nobody listens: bound, so that nobody else gets it either."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock, f"127.0.0.1:{sock.getsockname()[1]}"


@contextmanager
def full_unix_listener(directory):
    """Listen at `s` in a directory, with a full accept queue."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(directory / "s"))
        listener.listen(0)
        first.connect(str(directory / "s"))
        yield listener


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestTcp:
    """Connect, and nothing else."""

    async def test_accepting_backend_passes(self):
        """Whoever accepts is up, and sees a clean end without a byte."""
        async with backend() as it:
            assert await probe(it.address) == OK
            assert await it.ends.get() == ("fin", b"")

    async def test_ipv6(self):
        """An address in brackets is IPv6."""
        async with backend(host="::1") as it:
            assert await probe(it.address) == OK
            assert await it.ends.get() == ("fin", b"")

    async def test_refused(self):
        """A port without a listener fails."""
        sock, address = refused_address()
        with sock:
            assert await probe(address) == Outcome(False, "connection refused", False)

    async def test_full_accept_queue_times_out(self):
        """A backend that does not accept fails after the timeout."""
        with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for sock in (first, second):  # a backlog of 0 holds one, and the second waits for an answer
                sock.setblocking(False)
                assert sock.connect_ex(listener.getsockname()) in {0, errno.EINPROGRESS}
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            outcome = await probe(address, replace(TCP, timeout_s=SHORT_S))
        assert outcome == Outcome(False, "connect timeout", False)

    async def test_unread_banner_does_not_turn_the_close_into_a_reset(self):
        """The greeting is read, and the backend may even answer the FIN, before the connection is closed."""
        async with greeted() as (connection, server):
            leaving = asyncio.create_task(connection.leave(10.0))
            loop = asyncio.get_running_loop()
            assert await loop.sock_recv(server, 1) == b""
            await loop.sock_sendall(server, b"221 good bye\r\n")
            server.shutdown(socket.SHUT_WR)
            await leaving
            assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0

    async def test_close_without_waiting_reads_what_is_there(self):
        """Without time to wait, a greeting that is there still does not turn the close into a reset."""
        async with greeted() as (connection, server):
            connection.leave_nowait()
            assert await asyncio.get_running_loop().sock_recv(server, 1) == b""
            assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_CLOSE_WAIT

    async def test_endless_sender_is_left_after_a_bound(self):
        """Reading only to close cleanly has an end even if the backend's talk has none."""

        async def talk(reader, writer, seen):
            while True:
                writer.write(bytes(65536))
                await writer.drain()

        async with backend(talk) as it:
            assert await probe(it.address) == OK
            assert await it.ends.get() == ("reset", b"")

    async def test_port_overrides_the_backends(self):
        """`port` is checked in place of the backend's own."""
        sock, address = refused_address()
        with sock:
            async with backend() as it:
                check = replace(TCP, port=int(it.address.rpartition(":")[2]))
                assert await probe(address, check) == OK

    @pytest.mark.parametrize("served", [True, False])
    @pytest.mark.parametrize("checked", [True, False])
    async def test_reachable_is_told_of_where_clients_go(self, checked, served):
        """Where the check asks another port and fails, the backend's own is tried: only that one serves clients."""
        sock, address = refused_address()
        with sock:
            async with backend(saying(b"no", after=b"PING\r\n", then_close=True)) as it:
                there, gone = it.address, address
                port = int((there if checked else gone).rpartition(":")[2])
                outcome = await probe(there if served else gone, replace(PING, port=port))
        cause = "expect: got 'no'" if checked else "connection refused"
        assert outcome == Outcome(False, cause, served)

    async def test_loop_is_not_blocked(self, no_blocking):
        """Nothing in a probe blocks the event loop."""
        async with backend(saying(b"hello")) as it:
            assert await probe(it.address) == OK
            assert (await probe(it.address, HTTP)).ok is False

    async def test_cancellation_closes(self):
        """A probe that is broken off leaves no descriptor behind, and the backend sees it go."""
        reached = asyncio.Event()

        async def behave(reader, writer, seen):
            seen += await reader.read(65536)
            reached.set()

        async with backend(behave) as it:
            task = asyncio.create_task(probe(it.address, PING))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await it.ends.get() == ("fin", b"PING\r\n")


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestUnix:
    """Backends on Unix sockets."""

    async def test_passes(self, tmp_path):
        """A Unix socket that accepts is up."""
        async with backend(path=str(tmp_path / "s")) as it:
            assert await probe(it.address) == OK
            assert await it.ends.get() == ("fin", b"")

    async def test_port_does_not_apply(self, tmp_path):
        """`port` means nothing to a Unix socket, and Host has a name that every server takes."""
        async with backend(saying(b"HTTP/1.1 200\r\n\r\n", then_close=True), path=str(tmp_path / "s")) as it:
            assert await probe(it.address, replace(HTTP, port=80)) == OK
            assert b"\r\nHost: localhost\r\n" in (await it.ends.get())[1]

    async def test_missing_file_fails(self, tmp_path):
        """A socket file that is not there is the backend's fault."""
        outcome = await probe(f"unix:{tmp_path}/none")
        assert not outcome.ok
        assert "no such" in outcome.cause

    async def test_full_accept_queue_is_waited_for(self, tmp_path):
        """A backend that is busy for a while passes: connect() only says "again", which is no failure, nor a success."""
        with full_unix_listener(tmp_path) as listener:
            it = Probe(Target("web", "b1", f"unix:{tmp_path}/s", TCP, ProxySend.OFF))
            probing = asyncio.create_task(it.run())
            while it._stage != "busy" and not probing.done():  # noqa: ASYNC110 - nothing else tells
                await asyncio.sleep(0)
            listener.accept()[0].close()
            outcome, connection = await probing
            assert outcome == OK
            connection.close()

    async def test_full_accept_queue_fails(self, tmp_path):
        """Who takes nobody in for as long as a check may take has not passed it: it may hang."""
        with full_unix_listener(tmp_path):
            outcome = await probe(f"unix:{tmp_path}/s", replace(TCP, timeout_s=SHORT_S))
        assert outcome == Outcome(ok=False, cause=error_text(errno.EAGAIN), reachable=True)


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestHttp:
    """GET, and the status of the final answer."""

    @pytest.mark.parametrize(
        ("pieces", "cause"),
        [
            ([b"HTTP/1.1 200 OK\r\n\r\n"], "ok"),
            ([b"HTTP/1.0 200\r\nServer: x\r\n\r\nbody"], "ok"),
            ([b"HTTP/1.1 2", b"00 OK\r", b"\n\r\n"], "ok"),
            (
                [
                    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r",
                    b"\nHTTP/1.1 200 OK\r\n\r\n",
                ],
                "ok",
            ),
            ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], "http status 503"),
            ([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], "http status 101"),
            ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 Oh\r\n\r\n"], "http status 500"),
            ([b"SSH-2.0-OpenSSH_9.6\r\n"], "http: got 'SSH-2.0-OpenSSH_9.6\\r\\n'"),
            ([b"HTTP/2.0 200 OK\r\n\r\n"], "http: got 'HTTP/2.0 200 OK\\r\\n\\r\\n'"),
            ([b"HTTP/1.1 200 O"], "http: got 'HTTP/1.1 200 O'"),
            ([b"\x15\x03\x01\x00\x02\x02\x46"], "http: got '\\x15\\x03\\x01\\x00\\x02\\x02F'"),
            ([], "http: connection closed"),
        ],
    )
    async def test_verdict(self, pieces, cause):
        """Only a well-formed final status that is asked for passes, and the cause tells what came instead."""
        async with backend(saying(*pieces, after=b"\r\n\r\n", then_close=True)) as it:
            assert await probe(it.address, HTTP) == Outcome(ok=cause == "ok", cause=cause)
            assert (await it.ends.get())[0] == "fin"

    @pytest.mark.parametrize(
        ("status", "ok"), [(199, False), (200, True), (302, True), (399, True), (400, False)]
    )
    async def test_a_range_of_statuses(self, status, ok):
        """First and last of a range are in it."""
        answer = f"HTTP/1.1 {status} x\r\n\r\nHTTP/1.1 500 x\r\n\r\n".encode()
        async with backend(saying(answer, after=b"\r\n\r\n", then_close=True)) as it:
            assert (await probe(it.address, replace(HTTP, http_status=((200, 399),)))).ok is ok

    async def test_request(self):
        """The request is HTTP/1.1 with path and Host, and asks for the connection to be closed."""
        async with backend(
            saying(b"HTTP/1.1 204 No Content\r\n\r\n", after=b"\r\n\r\n", then_close=True)
        ) as it:
            check = replace(
                HTTP,
                http_path="/health?deep=1&x=%20",
                http_host="app.example",
                http_status=((200, 200), (204, 204)),
            )
            assert await probe(it.address, check) == OK
            _, request = await it.ends.get()
        lines = request.decode().split("\r\n")
        assert lines[0] == "GET /health?deep=1&x=%20 HTTP/1.1"
        assert {"Host: app.example", "Connection: close"} <= set(lines)
        assert request.endswith(b"\r\n\r\n")

    async def test_host_defaults_to_the_address(self):
        """Without a Host in the check, it is the address that is checked."""
        async with backend(saying(b"HTTP/1.1 200 OK\r\n\r\n", after=b"\r\n\r\n", then_close=True)) as it:
            await probe(it.address, HTTP)
            assert f"\r\nHost: {it.address}\r\n".encode() in (await it.ends.get())[1]

    async def test_path_cannot_break_the_request(self):
        """Whatever the path is, the request keeps its lines."""
        async with backend(saying(b"HTTP/1.1 200 OK\r\n\r\n", after=b"\r\n\r\n", then_close=True)) as it:
            await probe(it.address, replace(HTTP, http_path="/a b\r\nEvil: é", http_host="x\r\nEvil: 1"))
            _, request = await it.ends.get()
        assert request.startswith(
            b"GET /a%20b%0D%0AEvil:%20%C3%A9 HTTP/1.1\r\nHost: x%0D%0AEvil:%201\r\nUser-Agent:"
        )

    async def test_answer_is_read_before_the_fin(self):
        """The server has answered in full before it sees the probe's end, so it does not cancel the request."""
        body = bytes(200_000)

        async def answer(reader, writer, seen):
            while b"\r\n\r\n" not in seen:
                seen += await reader.read(65536)
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body[:1000])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), SHORT_S)
            writer.write(body[1000:])
            await writer.drain()
            writer.write_eof()

        async with backend(answer) as it:
            assert await probe(it.address, HTTP) == OK
            assert (await it.ends.get())[0] == "fin"

    async def test_silent_server_times_out(self):
        """A server that accepts and does not answer fails, and is left with a FIN."""
        async with backend() as it:
            outcome = await probe(it.address, replace(HTTP, timeout_s=AMPLE_S))
            assert outcome == Outcome(ok=False, cause="http timeout")
            assert (await it.ends.get())[0] == "fin"

    async def test_head_without_end_is_bounded(self):
        """A status line that goes on and on fails without waiting for its end."""
        async with backend(saying(b"HTTP/1.1 200 " + b"a" * 200_000, after=b"\r\n\r\n")) as it:
            outcome = await probe(it.address, HTTP)
            assert outcome.cause.startswith("http: got 'HTTP/1.1 200 aaa")


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestExpect:
    """Send, and look for an answer."""

    @pytest.mark.parametrize("pieces", [[b"+PONG\r\n"], [b"+PO", b"NG"], [b"noise ", b"+", b"+P", b"ONG"]])
    async def test_match(self, pieces):
        """The answer passes wherever it stands and however it is cut."""
        async with backend(saying(*pieces, after=b"PING\r\n")) as it:
            assert await probe(it.address, PING) == OK
            assert await it.ends.get() == ("fin", b"PING\r\n")

    async def test_banner_only(self):
        """With nothing to send, what the backend says first is looked at."""
        async with backend(saying(b"220 mail ESMTP\r\n")) as it:
            assert await probe(it.address, replace(PING, expect_send=b"", expect_expect=b"220 ")) == OK
            assert await it.ends.get() == ("fin", b"")

    @pytest.mark.parametrize("then_close", [False, True])
    async def test_goodbye(self, then_close):
        """`quit` follows the answer, before the FIN; a backend that has hung up by then has passed all the same."""

        async def talk(reader, writer, seen):
            writer.write(b"220 mail\r\n")
            if not then_close:
                seen += await reader.readexactly(6)
                seen += await reader.read()

        check = replace(PING, expect_send=b"", expect_expect=b"220 ", expect_quit=b"QUIT\r\n")
        async with backend(talk) as it:
            assert await probe(it.address, check) == OK
            assert then_close or await it.ends.get() == ("fin", b"QUIT\r\n")

    async def test_no_goodbye_without_the_answer(self):
        """Whoever answers wrongly is left as before."""
        check = replace(PING, expect_quit=b"QUIT\r\n", timeout_s=AMPLE_S)
        async with backend(saying(b"-ERR\r\n", after=b"PING\r\n")) as it:
            assert not (await probe(it.address, check)).ok
            assert await it.ends.get() == ("fin", b"PING\r\n")

    async def test_mismatch_until_the_timeout(self):
        """Another answer fails at the timeout, and the cause shows it."""
        async with backend(saying(b"-ERR \x1b[31m'no'\r\n", after=b"PING\r\n")) as it:
            outcome = await probe(it.address, replace(PING, timeout_s=AMPLE_S))
            assert outcome == Outcome(ok=False, cause="expect: got '-ERR \\x1b[31m'no'\\r\\n'")
            assert (await it.ends.get())[0] == "fin"

    async def test_silence(self):
        """No answer at all is a timeout."""
        async with backend() as it:
            outcome = await probe(it.address, replace(PING, timeout_s=AMPLE_S))
            assert outcome == Outcome(ok=False, cause="expect timeout")

    @pytest.mark.parametrize(
        ("pieces", "cause"), [([b"-LOADING"], "expect: got '-LOADING'"), ([], "expect: connection closed")]
    )
    async def test_end_without_the_answer(self, pieces, cause):
        """The backend's FIN ends the wait."""
        async with backend(saying(*pieces, after=b"PING\r\n", then_close=True)) as it:
            assert await probe(it.address, PING) == Outcome(ok=False, cause=cause)

    async def test_only_the_first_64_kib_count(self):
        """An answer beyond the bound does not pass, and the talk is not read for ever."""
        async with backend(saying(b"x" * 65536 + b"+PONG", after=b"PING\r\n")) as it:
            outcome = await probe(it.address, PING)
            assert not outcome.ok
            assert outcome.cause == f"expect: got '{'x' * 64}'"

    async def test_reset(self):
        """A reset in place of an answer is named."""

        async def reset(reader, writer, seen):
            await reader.read(1)
            writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            writer.transport.abort()

        async with backend(reset) as it:
            outcome = await probe(it.address, PING)
            assert outcome == Outcome(ok=False, cause="connection reset")


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestProxy:
    """The header that a backend behind `proxy_protocol.send` expects."""

    async def test_v2_is_local(self):
        """Version 2 says LOCAL: the connection is on nobody's behalf."""
        async with backend() as it:
            assert await probe(it.address, proxy=ProxySend.V2) == OK
            assert await it.ends.get() == ("fin", encode_v2(None, None))

    async def test_v1_has_the_probes_own_addresses(self):
        """Version 1 carries the addresses of the connection itself, before the check's own bytes."""
        peers = []

        async def behave(reader, writer, seen):
            peers.append((writer.get_extra_info("peername"), writer.get_extra_info("sockname")))
            await saying(b"+PONG", after=b"PING\r\n")(reader, writer, seen)

        async with backend(behave) as it:
            assert await probe(it.address, PING, proxy=ProxySend.V1) == OK
            _, seen = await it.ends.get()
        (source, destination) = peers[0]
        assert seen == f"PROXY TCP4 127.0.0.1 127.0.0.1 {source[1]} {destination[1]}\r\nPING\r\n".encode()

    async def test_v1_on_a_unix_socket_is_unknown(self, tmp_path):
        """A Unix socket has no addresses to tell."""
        async with backend(path=str(tmp_path / "s")) as it:
            assert await probe(it.address, proxy=ProxySend.V1) == OK
            assert await it.ends.get() == ("fin", b"PROXY UNKNOWN\r\n")


def at(*addresses):
    """Return what tells that a backend is at these addresses."""

    async def locate(target):
        return tuple(map(to_sockaddr, addresses))

    return locate


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestAddresses:
    """Checks go where clients go."""

    async def test_each_address_is_tried(self):
        """The first address that accepts passes, and whoever connects clients is told."""
        async with backend() as it:
            reached = []
            dead = it.address.replace("127.0.0.1", "127.0.0.2")
            outcome = await probe(
                "db.example:80", locate=at(dead, it.address), on_reached=lambda *told: reached.append(told)
            )
            assert outcome == OK
            assert [(target.backend_id, address) for target, address in reached] == [
                ("b1", to_sockaddr(it.address))
            ]

    async def test_the_first_is_nothing_to_tell(self):
        """Nobody is told that the address works that is used already."""
        async with backend() as it:
            reached = []
            await probe("db.example:80", locate=at(it.address), on_reached=lambda *told: reached.append(told))
            assert reached == []

    async def test_another_port(self):
        """A check of another port goes to the same hosts, and says nothing of where clients should go."""
        async with backend() as it:
            port = int(it.address.rpartition(":")[2])
            reached = []
            check = replace(TCP, port=port)
            where = at("127.0.0.2:1", "127.0.0.1:1")
            assert (
                await probe("x:1", check, locate=where, on_reached=lambda *told: reached.append(told)) == OK
            )
            assert reached == []

    async def test_an_address_that_is_silent(self):
        """One that answers nothing has its share of the time; the next one has the rest."""
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            filler = [socket.socket() for _ in range(2)]
            for sock in filler:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            async with backend() as it:
                check = replace(TCP, timeout_s=2 * AMPLE_S)
                assert (
                    await probe("x:1", check, locate=at("{}:{}".format(*full.getsockname()), it.address))
                    == OK
                )
            for sock in filler:
                sock.close()

    async def test_none_accepts(self):
        """The first that says something of the backend is the cause."""
        outcome = await probe("x:1", locate=at("127.0.0.2:1", "127.0.0.3:1"))
        assert outcome == Outcome(False, "connection refused", False)

    @pytest.mark.parametrize("address", ["db.example:80", "a..b:80"])
    async def test_nowhere(self, address):
        """A backend without an address is not judged: whoever knows why has said it."""
        with pytest.raises(NowhereError):
            await probe(address)

    async def test_not_known_yet(self):
        """An address that does not become known within the check's time is no verdict."""

        async def locate(target):
            return await asyncio.get_running_loop().create_future()

        with pytest.raises(NowhereError):
            await probe("db.example:80", replace(TCP, timeout_s=SHORT_S), locate=locate)


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestLocal:
    """What is this machine's fault is no verdict."""

    async def test_out_of_descriptors(self):
        """Without a free descriptor there is no verdict, but an error that names the cause."""
        async with backend() as it:
            ready = Probe(Target("web", "b1", it.address, TCP, ProxySend.OFF))
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # those that are open stay
            try:
                with pytest.raises(LocalError, match="EMFILE"):
                    await ready.run()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_excerpt_is_short_and_printable(data):
    """Whatever a backend sent, what is shown of it is one short printable line."""
    text = excerpt(data)
    assert len(text) <= 64
    assert text == "" or text.isprintable()
