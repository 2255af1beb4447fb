"""A check's connection over TLS: its handshake, what is inside, and how it ends; and what checks find with it."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace

import pytest

from dataplane.core.spec import CheckType, ProxySend
from dataplane.net.probes import CheckTls, Probe, Target
from tests.dataplane.net.test_probes import AMPLE_S, HTTP, PING, TCP
from tests.support.checked import backend, saying
from tests.support.loops import on_both_loops
from tests.support.tls_ends import Certificates, PlainBackendTls, TlsEnd

TLS = replace(TCP, type=CheckType.TLS)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Return what the backends of this module's tests have, and its checks trust."""
    return Certificates(tmp_path_factory.mktemp("tls"))


async def probe(address, context, check=TLS, *, server_name="127.0.0.1", proxy=ProxySend.OFF):
    """Probe once over TLS, leave cleanly, and return what was found."""
    tls = CheckTls(PlainBackendTls(context), server_name)
    outcome, connection = await Probe(Target("web", "b1", address, check, proxy, tls)).run()
    if connection is not None:
        await connection.leave(check.timeout_s)
    return outcome


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestOverTls:
    """The same checks as without, with a handshake before them."""

    async def test_handshake_alone(self, certificates):
        """Whoever does the handshake passes, sees a clean end, and its certificate's end is known."""
        async with backend(context=certificates.server()) as it:
            outcome = await probe(it.address, certificates.client())
            assert (outcome.ok, outcome.cause) == (True, "ok")
            assert await it.ends.get() == ("fin", b"")
        assert outcome.certificate_ends > 0

    async def test_tcp(self, certificates):
        """A `tcp` check over TLS is a handshake too."""
        async with backend(context=certificates.server()) as it:
            assert (await probe(it.address, certificates.client(), TCP)).ok
            assert await it.ends.get() == ("fin", b"")

    async def test_http(self, certificates):
        """The request and the answer are inside."""
        answer = saying(b"HTTP/1.1 200 OK\r\n\r\n", after=b"\r\n\r\n")
        async with backend(answer, context=certificates.server()) as it:
            assert (await probe(it.address, certificates.client(), replace(HTTP, timeout_s=AMPLE_S))).ok
        sick = saying(b"HTTP/1.1 503 No\r\n\r\n", after=b"\r\n\r\n")
        async with backend(sick, context=certificates.server()) as it:
            outcome = await probe(it.address, certificates.client(), replace(HTTP, timeout_s=AMPLE_S))
            assert (outcome.ok, outcome.cause) == (False, "http status 503")

    async def test_expect(self, certificates):
        """An answer that comes in pieces is found, whatever records they are in."""
        async with backend(saying(b"+PO", b"NG\r\n", after=b"PING"), context=certificates.server()) as it:
            assert (await probe(it.address, certificates.client(), PING)).ok

    async def test_tls_1_2(self, certificates):
        """The older version works as well."""
        context = certificates.server()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        async with backend(saying(b"+PONG", after=b"PING"), context=context) as it:
            assert (await probe(it.address, certificates.client(), PING)).ok
            assert (await probe(it.address, certificates.client())).ok

    async def test_proxy_header_goes_first(self, certificates):
        """It is in plain text, before the ClientHello."""
        first = asyncio.get_running_loop().create_future()

        async def read(reader, _writer, _seen):
            first.set_result(await reader.readexactly(16 + 3))

        async with backend(read) as it:
            outcome = await probe(
                it.address, certificates.client(), replace(TLS, timeout_s=AMPLE_S), proxy=ProxySend.V2
            )
        assert not outcome.ok
        data = await first
        assert data.startswith(b"\r\n\r\n\0\r\nQUIT\n")
        assert data[16:].startswith(b"\x16\x03")


@pytest.mark.usefixtures("no_leaks")
@on_both_loops
class TestFailures:
    """A handshake that fails has a cause."""

    @pytest.mark.parametrize(
        ("names", "served", "server_name", "cause"),
        [
            (("other.example",), {}, "localhost", "wrong_name"),
            (("127.0.0.2",), {}, "127.0.0.1", "wrong_name"),
            ((), {"expired": True}, "127.0.0.1", "expired"),
            ((), {"stranger": True}, "127.0.0.1", "unknown_ca"),
        ],
    )
    async def test_bad_certificate(self, certificates, names, served, server_name, cause):
        """Wrong name, expired and unknown authority each have a word."""
        async with backend(context=certificates.server(*names, **served)) as it:
            outcome = await probe(it.address, certificates.client(), server_name=server_name)
        assert not outcome.ok
        assert outcome.reachable
        assert outcome.cause.startswith(f"tls: {cause}")

    async def test_client_certificate_is_missing(self, certificates):
        """With TLS 1.3 the backend's objection comes after our handshake, and is still found."""
        context = certificates.server(asks=True)

        async def object_to_it(reader, writer, _seen):
            end = TlsEnd(context)
            while end.failure is None and (data := await reader.read(65536)):
                writer.write(end.take(data))

        async with backend(object_to_it) as it:
            outcome = await probe(it.address, certificates.client())
        assert not outcome.ok
        assert "tls: alert_no_certificate" in outcome.cause

    async def test_plain_answer(self):
        """A backend that does not speak TLS."""
        async with backend(saying(b"220 mail.example ESMTP\r\n")) as it:
            outcome = await probe(it.address, ssl.create_default_context())
        assert (outcome.ok, outcome.reachable) == (False, True)
        assert outcome.cause.startswith("tls: ")

    async def test_stall(self):
        """A backend that says nothing in the handshake is too slow."""
        async with backend() as it:
            outcome = await probe(it.address, ssl.create_default_context(), replace(TLS, timeout_s=AMPLE_S))
        assert (outcome.ok, outcome.cause, outcome.reachable) == (False, "tls timeout", True)

    async def test_close_in_the_handshake(self):
        """A backend that closes in the handshake."""
        async with backend(saying(then_close=True)) as it:
            outcome = await probe(it.address, ssl.create_default_context())
        assert (outcome.ok, outcome.cause) == (
            False,
            "tls: truncated: the connection was closed in the handshake",
        )

    async def test_no_name_to_verify(self, certificates):
        """It fails, though OpenSSL would take any certificate of a trusted authority then."""
        async with backend(context=certificates.server()) as it:
            outcome = await probe(it.address, certificates.client(), server_name=None)
        assert not outcome.ok
        assert outcome.cause.startswith("tls: wrong_name: no name to verify")
