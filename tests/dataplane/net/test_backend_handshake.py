"""The handshake with a backend: who hears how it went, and what was sent by then."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.postgres import SSL_REQUEST
from dataplane.net.backend_handshake import BackendHandshake, Offer
from dataplane.net.calls import IN, UNWATCHED, close, receive
from dataplane.net.counters import BackendTotals
from dataplane.net.reactor import Reactor
from dataplane.net.sockopts import SocketAddress, to_sockaddr
from tests.dataplane.net.descriptors import adopted
from tests.support.tls_ends import Certificates, PlainBackendTls, TlsEnd

TARGET: SocketAddress = to_sockaddr("127.0.0.1:1")  # type: ignore[assignment]
TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return what backends have, and who begins trusts."""
    return Certificates(tmp_path_factory.mktemp("tls"))


class Site:
    """A handshake on a socket pair, whose other end the test is."""

    def __init__(
        self,
        tls: PlainBackendTls,
        *,
        header: bytes = b"",
        asks: bool = False,
        offer: Offer | None = None,
    ) -> None:
        self.reactor = Reactor(SimpleNamespace(), 4096)  # type: ignore[arg-type]
        near, self.far = socket.socketpair()
        self.far.setblocking(False)
        self.heard: list[str] = []
        self.handshake = BackendHandshake(self.reactor, adopted(near), UNWATCHED, TARGET)
        self.handshake.offer = offer
        deadline = self.reactor.now + TIMEOUT_S
        self.totals = BackendTotals()
        backend: Any = SimpleNamespace(id="b", totals=self.totals)
        self.handshake.start(self, tls, backend, deadline, header, asks=asks)

    def shaken(self, handshake: BackendHandshake) -> None:
        """Write it down."""
        assert handshake is self.handshake
        self.heard.append(handshake.failure)

    def crank(self) -> None:
        """Handle what there is."""
        self.reactor._ready()

    def pass_time(self, seconds: float) -> None:
        """Let time pass."""
        self.reactor.now += seconds
        self.reactor.wheel.advance(self.reactor.now)

    def receive(self) -> bytes:
        """Return what the backend gets now; nothing at the end too."""
        try:
            return self.far.recv(1 << 20)
        except BlockingIOError:
            return b""

    def serve(self, end: TlsEnd, slice_bytes: int = 1 << 20) -> None:
        """Be a TLS server until the handshake is over, with what it sends cut into slices."""
        while not self.heard:
            data = self.receive()
            out = end.take(data)
            for start in range(0, len(out), slice_bytes):
                self.far.send(out[start : start + slice_bytes])
                self.crank()
            assert data or out, "nobody says anything"

    def failures(self) -> dict[str, int]:
        """Return what was counted, by cause."""
        assert self.totals.tls is not None
        return {cause: count for cause, count in self.totals.tls.causes.items() if count}

    def close(self) -> None:
        """Close everything."""
        if not self.heard:
            self.handshake.cancel()
        self.far.close()
        self.reactor.epoll.close()


@pytest.fixture
def sites() -> Iterator[list[Site]]:
    """Close what a test has put here."""
    made: list[Site] = []
    yield made
    for site in made:
        if site.heard == [""]:
            close(site.handshake.fd)
        site.close()


def site(sites: list[Site], tls: PlainBackendTls, **options: Any) -> Site:
    """Make one that is closed in the end."""
    sites.append(Site(tls, **options))
    return sites[-1]


@pytest.mark.parametrize("slice_bytes", [1, 1000, 1 << 20])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_in_whatever_pieces_the_answer_comes(
    certificates: Certificates, sites: list[Site], slice_bytes: int, version: ssl.TLSVersion
) -> None:
    """The owner hears once, the descriptor is watched, nothing is left in the wheel, and both sides understand each other."""
    context = certificates.server()
    context.maximum_version = version
    one, end = site(sites, PlainBackendTls(certificates.client())), TlsEnd(context)
    one.serve(end, slice_bytes)
    handshake = one.handshake
    end.take(one.receive())
    assert one.heard == [""]
    assert (handshake.mask, handshake.tick, end.established) == (IN, 0, True)
    end.take(handshake.channel.seal(b"hello"))
    assert end.received == b"hello"
    totals = one.totals.tls
    assert totals is not None
    assert sum(totals.versions.values()) == totals.versions[end.tls.version() or ""] == 1
    assert sum(totals.causes.values()) == 0


def test_a_proxy_header_goes_first_in_plain_text(certificates: Certificates, sites: list[Site]) -> None:
    """What follows it is a ClientHello."""
    one = site(sites, PlainBackendTls(certificates.client()), header=b"PROXY UNKNOWN\r\n")
    said = one.receive()
    assert said.startswith(b"PROXY UNKNOWN\r\n\x16\x03")


@pytest.mark.parametrize(
    ("names", "served", "name", "cause"),
    [
        (("other.example",), {}, "localhost", "wrong_name: "),
        (("127.0.0.2",), {}, "127.0.0.1", "wrong_name: "),
        ((), {"expired": True}, "127.0.0.1", "expired: "),
        ((), {"stranger": True}, "127.0.0.1", "unknown_ca: "),
    ],
)
def test_a_certificate_that_is_not_accepted(
    certificates: Certificates,
    sites: list[Site],
    names: tuple[str, ...],
    served: dict[str, bool],
    name: str,
    cause: str,
) -> None:
    """The owner hears the cause, the backend an alert, and nothing stays open."""
    one = site(sites, PlainBackendTls(certificates.client(), name))
    end = TlsEnd(certificates.server(*names, **served))
    one.serve(end)
    assert one.heard[0].startswith(cause)
    assert not one.reactor.handlers
    totals = one.totals.tls
    assert totals is not None
    assert [found for found, count in totals.causes.items() if count] == [cause.partition(":")[0]]
    end.take(one.receive())
    assert end.failure is not None
    assert "ALERT" in str(end.failure.reason)
    assert one.far.recv(1) == b""


def test_a_name_that_openssl_calls(certificates: Certificates, sites: list[Site]) -> None:
    """Who reads the cause learns which name the certificate is not for."""
    one = site(sites, PlainBackendTls(certificates.client(), "db.example"))
    one.serve(TlsEnd(certificates.server()))
    assert "'db.example'" in one.heard[0]


def test_plain_text_is_no_tls(certificates: Certificates, sites: list[Site]) -> None:
    """A backend that speaks something else."""
    one = site(sites, PlainBackendTls(certificates.client()))
    one.far.send(b"220 mail.example ESMTP\r\n")
    one.crank()
    assert one.heard[0].startswith("not_tls")


def test_an_end_in_the_handshake(certificates: Certificates, sites: list[Site]) -> None:
    """A backend that closes, and one that resets."""
    one = site(sites, PlainBackendTls(certificates.client()))
    one.receive()
    one.far.close()
    one.crank()
    assert one.heard == ["truncated: the connection was closed in the handshake"]
    other = site(sites, PlainBackendTls(certificates.client()))
    other.far.close()  # with our ClientHello unread
    other.crank()
    assert other.heard[0].startswith("truncated: ")
    assert (one.failures(), other.failures()) == ({"truncated": 1}, {"truncated": 1})


def test_a_stall_ends_at_the_deadline(certificates: Certificates, sites: list[Site]) -> None:
    """And not before."""
    one = site(sites, PlainBackendTls(certificates.client()))
    one.pass_time(TIMEOUT_S - 0.1)
    assert one.heard == []
    one.pass_time(0.2)
    assert one.heard == ["timeout: the TLS handshake took too long"]
    assert one.failures() == {"timeout": 1}
    assert not one.reactor.handlers


def test_cancelled(certificates: Certificates, sites: list[Site]) -> None:
    """The owner hears nothing, and the backend sees the end."""
    one = site(sites, PlainBackendTls(certificates.client()))
    one.handshake.cancel()
    one.receive()
    one.pass_time(2 * TIMEOUT_S)
    assert one.far.recv(1) == b""
    assert (one.heard, one.reactor.handlers.all()) == ([], {})
    one.heard.append("cancelled")


def test_a_backend_that_does_not_read(certificates: Certificates, sites: list[Site]) -> None:
    """What does not fit goes when there is room."""
    filler = b"x" * (4 << 20)
    one = site(sites, PlainBackendTls(certificates.client()), header=filler)
    got = bytearray()
    while len(got) < len(filler):
        got += one.receive()
        one.crank()
    end = TlsEnd(certificates.server())
    one.far.send(end.take(bytes(got[len(filler) :])))
    one.crank()
    one.serve(end)
    assert one.heard == [""]


def test_a_name_to_verify_is_missing(certificates: Certificates, sites: list[Site]) -> None:
    """It fails, and says so, before anything is sent."""
    one = site(sites, PlainBackendTls(certificates.client(), None))
    assert one.heard[0].startswith("wrong_name: ")
    assert one.receive() == b""


def test_a_session_is_resumed(certificates: Certificates, sites: list[Site]) -> None:
    """With TLS 1.2 and 1.3, where the ticket comes after the handshake."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        server = certificates.server()
        server.maximum_version = version
        tls = PlainBackendTls(certificates.client())
        for is_resumed in (False, True):
            one, end = site(sites, tls), TlsEnd(server)
            one.serve(end)
            one.far.send(end.take(one.receive()) or end.say(b"hello"))
            one.handshake.channel.receive(receive(one.handshake.fd, 65536)[0])
            assert one.handshake.channel.resumed is is_resumed
            tls.remember(SimpleNamespace(id="b"), one.handshake.channel)


@pytest.mark.parametrize("header", [b"", b"PROXY UNKNOWN\r\n"])
def test_postgresql_is_asked_first(certificates: Certificates, sites: list[Site], header: bytes) -> None:
    """Behind the PROXY header, and nothing of TLS is sent before it has agreed."""
    one = site(sites, PlainBackendTls(certificates.client()), header=header, asks=True)
    assert one.receive() == header + SSL_REQUEST
    one.crank()
    assert one.receive() == b""
    one.far.send(b"S")
    one.crank()
    one.serve(TlsEnd(certificates.server()))
    assert one.heard == [""]


@pytest.mark.parametrize(("answer", "text"), [(b"N", "answers b'N'"), (b"E", "answers b'E'")])
def test_postgresql_does_not_agree(
    certificates: Certificates, sites: list[Site], answer: bytes, text: str
) -> None:
    """The attempt has failed, and says why."""
    one = site(sites, PlainBackendTls(certificates.client()), asks=True)
    one.far.send(answer)
    one.crank()
    assert [text in words for words in one.heard] == [True]


def test_postgresql_leaves(certificates: Certificates, sites: list[Site]) -> None:
    """Instead of an answer: it has closed before TLS."""
    one = site(sites, PlainBackendTls(certificates.client()), asks=True)
    one.far.close()
    one.crank()
    assert len(one.heard) == 1
    assert one.heard[0]


class TestOffer:
    """What is of the client's own TLS."""

    def listening(self, certificates: Certificates, *names: str) -> tuple[ssl.SSLContext, list[str | None]]:
        """Return a server's context, and which names it is asked for."""
        asked: list[str | None] = []
        context = certificates.server(*names)
        context.sni_callback = lambda _tls, name, _context: asked.append(name)
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context, asked

    def test_the_name_is_sent_and_another_is_verified(
        self, certificates: Certificates, sites: list[Site]
    ) -> None:
        """The certificate has to be for the backend, whatever the client has asked for."""
        context, asked = self.listening(certificates, "db.example")
        tls = PlainBackendTls(certificates.client(), "db.example")
        one = site(sites, tls, offer=Offer("www.example", None))
        one.serve(TlsEnd(context))
        assert (one.heard, asked) == ([""], ["www.example"])
        assert tls.context.check_hostname

    def test_a_certificate_for_the_client_s_name_alone(
        self, certificates: Certificates, sites: list[Site]
    ) -> None:
        """It is refused, with the names that it is for."""
        context, _ = self.listening(certificates, "www.example")
        tls = PlainBackendTls(certificates.client(), "db.example")
        one = site(sites, tls, offer=Offer("www.example", None))
        one.serve(TlsEnd(context))
        assert one.heard == ["wrong_name: certificate is for www.example, not db.example"]
        assert not one.reactor.handlers

    def test_an_authority_is_verified_all_the_same(
        self, certificates: Certificates, sites: list[Site]
    ) -> None:
        """Only the name is looked at by us."""
        tls = PlainBackendTls(certificates.client(), "db.example")
        one = site(sites, tls, offer=Offer("www.example", None))
        one.serve(TlsEnd(certificates.server("db.example", stranger=True)))
        assert one.heard[0].startswith("unknown_ca: ")

    def test_protocols(self, certificates: Certificates, sites: list[Site]) -> None:
        """They are this client's, and no later one's."""
        tls = PlainBackendTls(certificates.client())
        for alpn, agreed in ((("http/1.1",), "http/1.1"), ((), ""), (("h2", "http/1.1"), "h2")):
            context, _ = self.listening(certificates)
            one = site(sites, tls, offer=Offer("", alpn))
            one.serve(TlsEnd(context))
            assert (one.heard, one.handshake.channel.alpn) == ([""], agreed)
        one = site(sites, tls)
        one.serve(TlsEnd(self.listening(certificates)[0]))
        assert one.handshake.channel.alpn == ""

    def test_a_name_that_is_none(self, certificates: Certificates, sites: list[Site]) -> None:
        """It fails, and the context is as before."""
        tls = PlainBackendTls(certificates.client())
        one = site(sites, tls, offer=Offer(".", ()))
        assert one.heard[0].startswith("wrong_name: ")
        assert tls.context.check_hostname
