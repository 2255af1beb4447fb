"""One TLS session without a socket: what goes in, what comes out, and how it ends."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.net import tls
from dataplane.net.tls import Channel, harden, note_sni
from tests.support.backends import payload
from tests.support.tls import CertificateAuthority, Pair

DATA = payload(300_000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom all here trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pair(authority: CertificateAuthority) -> Pair:
    """A server's."""
    return authority.issue("server.test", common_name="the server")


@pytest.fixture
def server(authority: CertificateAuthority, pair: Pair) -> ssl.SSLContext:
    """A server's context, as a service has it."""
    context = authority.server_context(pair)
    harden(context)
    return context


@pytest.fixture
def client(authority: CertificateAuthority) -> ssl.SSLContext:
    """A client's."""
    context = authority.client_context()
    harden(context)
    return context


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No session leaves anything where the next one would find it."""
    yield
    assert not tls._incoming.pending
    assert not tls._outgoing.pending


def shake_hands(far: Channel, near: Channel, *, pieces: int = 1 << 20) -> None:
    """Carry a handshake from the client's side to the server's and back, in pieces of so many bytes."""
    flight, to_near = b"", True
    far.handshake(b"")
    flight = far.outgoing()
    while flight:
        receiver = near if to_near else far
        for start in range(0, len(flight), pieces):
            piece = flight[start : start + pieces]
            if receiver.is_open:
                assert not bytes(receiver.receive(piece)), "only tickets come so early"
            else:
                receiver.handshake(piece)
        flight, to_near = receiver.outgoing(), not to_near
    assert far.is_open
    assert near.is_open


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def channels(request, server, client) -> tuple[Channel, Channel]:
    """A session between a client's and a server's channel, in each version."""
    client.minimum_version = client.maximum_version = ssl.TLSVersion[request.param]
    far, near = Channel(client, False, "server.test"), Channel(server, True)
    shake_hands(far, near)
    return far, near


class TestHandshake:
    """From nothing to a session, or to one word for why not."""

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    @pytest.mark.parametrize("pieces", [1, 7, 1 << 20])
    def test_in_whatever_pieces(self, server, client, version, pieces) -> None:
        """Both are there in the end, and agree."""
        client.maximum_version = client.minimum_version = ssl.TLSVersion[version]
        far, near = Channel(client, False, "server.test"), Channel(server, True)
        shake_hands(far, near, pieces=pieces)
        assert far.version == near.version == version.replace("_", ".")
        assert far.cipher == near.cipher != ""

    def test_what_is_told_of_it(self, server, client, authority) -> None:
        """Name, protocol, and who the peer is."""
        server.sni_callback = lambda connection, name, _: note_sni(connection, name)
        server.set_alpn_protocols(["h2", "http/1.1"])
        client.set_alpn_protocols(["http/1.1"])
        own = authority.issue("client.test", common_name="the client")
        client.load_cert_chain(own.cert, own.key)
        server.load_verify_locations(authority.ca)
        server.verify_mode = ssl.CERT_REQUIRED
        far, near = Channel(client, False, "server.test"), Channel(server, True)
        assert (near.version, near.cipher, near.alpn, near.sni, near.peer_name) == ("", "", "", "", None)
        shake_hands(far, near)
        assert (far.alpn, far.sni, far.peer_name) == ("http/1.1", "server.test", "the server")
        assert (near.alpn, near.sni, near.peer_name) == ("http/1.1", "server.test", "the client")
        assert not near.resumed

    @pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
    def test_resumption(self, server, client, version) -> None:
        """A session goes on in the next connection."""
        client.maximum_version = client.minimum_version = ssl.TLSVersion[version]
        far, near = Channel(client, False, "server.test"), Channel(server, True)
        shake_hands(far, near)
        again, there = Channel(client, False, "server.test", far.session), Channel(server, True)
        shake_hands(again, there)
        assert again.resumed
        assert there.resumed

    def test_what_came_with_its_end(self, server, client) -> None:
        """Bytes and an end that were right behind the last flight wait for who reads first."""
        far, near = Channel(client, False, "server.test"), Channel(server, True)
        far.handshake(b"")
        near.handshake(far.outgoing())
        far.handshake(near.outgoing())
        last = far.outgoing() + far.seal(DATA[:40_000]) + far.finish()
        assert near.handshake(last)
        assert near.early == DATA[:40_000]
        assert near.closed

    def failing(self, far: Channel, near: Channel) -> tuple[Channel, bytes]:
        """Carry a handshake that fails; return whose it was, and what that one wants to send."""
        flight, receiver, other = b"", far, near
        while True:
            try:
                receiver.handshake(flight)
            except ssl.SSLError:
                return receiver, receiver.outgoing()
            flight = receiver.outgoing()
            receiver, other = other, receiver

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ("expired", ("expired", "alert_expired")),
            ("stranger", ("unknown_ca", "alert_unknown_ca")),
            ("name", ("wrong_name", "alert_bad_certificate")),
        ],
    )
    def test_a_certificate_that_is_refused(self, authority, client, tmp_path, change, words) -> None:
        """Who refuses has the word for it, and tells the other by an alert."""
        shown = {
            "expired": lambda: authority.issue("server.test", lasts=timedelta(hours=-1), file="late"),
            "stranger": lambda: CertificateAuthority(tmp_path, "another").issue("server.test"),
            "name": lambda: authority.issue("elsewhere.test"),
        }[change]()
        near = Channel(authority.server_context(shown), True)
        far = Channel(client, False, "server.test")
        failed, alert = self.failing(far, near)
        assert failed is far
        with pytest.raises(ssl.SSLError):
            near.handshake(alert)
        assert (far.failure, near.failure) == words

    def test_no_version_in_common(self, server, client) -> None:
        """As between a server of today and a client of 2010."""
        server.minimum_version = ssl.TLSVersion.TLSv1_3
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        failed, alert = self.failing(Channel(client, False, "server.test"), Channel(server, True))
        assert failed.failure == "unsupported_version"
        assert alert

    def test_no_cipher_in_common(self, server, client) -> None:
        """With TLS 1.2, where they are configured."""
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        server.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
        client.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
        failed, _ = self.failing(Channel(client, False, "server.test"), Channel(server, True))
        assert failed.failure == "no_shared_cipher"

    @pytest.mark.parametrize(
        ("data", "word"), [(b"GET / HTTP/1.1\r\n", "http_request"), (b"SSH-2.0-it\r\n", "not_tls")]
    )
    def test_something_else(self, server, data, word) -> None:
        """Not TLS at all."""
        near = Channel(server, True)
        with pytest.raises(ssl.SSLError):
            near.handshake(data)
        assert near.failure == word
        assert near.finish() == b""

    def test_no_certificate_of_the_client(self, authority, server, client) -> None:
        """With TLS 1.3 the client thinks that it is over, and learns it by an alert."""
        server.load_verify_locations(authority.ca)
        server.verify_mode = ssl.CERT_REQUIRED
        far, near = Channel(client, False, "server.test"), Channel(server, True)
        failed, alert = self.failing(far, near)
        assert failed is near
        assert near.failure == "no_certificate"
        assert far.is_open
        assert not bytes(far.receive(alert))
        assert far.failure == "alert_no_certificate"


@pytest.fixture(scope="module")
def session(authority, pair) -> Callable[[], tuple[Channel, Channel]]:
    """What makes sessions, of TLS 1.3."""

    def make() -> tuple[Channel, Channel]:
        far = Channel(authority.client_context(), False, "server.test")
        near = Channel(authority.server_context(pair), True)
        shake_hands(far, near)
        return far, near

    return make


class TestSession:
    """Bytes both ways."""

    @settings(deadline=None, max_examples=30)
    @given(cuts=st.lists(st.integers(1, 50_000), max_size=12), size=st.integers(1, len(DATA)))
    def test_in_whatever_pieces(self, session: Callable[[], tuple[Channel, Channel]], cuts, size) -> None:
        """All that can be decrypted of what has come is given out at once."""
        far, near = session()
        sealed, got, complete = far.seal(DATA[:size]), b"", 0
        for cut in [*cuts, len(sealed)]:
            piece, sealed = sealed[:cut], sealed[cut:]
            if not piece:
                break
            complete += len(piece)
            got += bytes(near.receive(piece))
            assert len(got) >= complete - tls.RECORD_BYTES - tls.OVERHEAD_BYTES * (1 + complete // 16_000)
        assert got == DATA[:size]

    def test_both_ways(self, channels) -> None:
        """However much it is."""
        far, near = channels
        assert bytes(near.receive(far.seal(DATA))) == DATA
        assert bytes(far.receive(near.seal(memoryview(DATA)))) == DATA
        assert far.outgoing() == near.outgoing() == b""

    def test_many_at_once(self, server, client) -> None:
        """Sessions share their memory: they take turns at every record, and one that is given up leaves nothing."""
        pairs = [(Channel(client, False, "server.test"), Channel(server, True)) for _ in range(4)]
        flights = []
        for far, _ in pairs:
            far.handshake(b"")
            flights.append(far.outgoing())
        for (_, near), flight in zip(pairs, flights, strict=True):
            assert not near.handshake(flight[:100])
        del pairs[1], flights[1]
        answers = []
        for (_, near), flight in zip(pairs, flights, strict=True):
            near.handshake(flight[100:])
            answers.append(near.outgoing())
        for (far, near), answer in reversed(list(zip(pairs, answers, strict=True))):
            far.handshake(answer)
            assert near.handshake(far.outgoing())
            assert not bytes(far.receive(near.outgoing()))
        sealed = [
            far.seal(DATA[number * 1000 : number * 1000 + 50_000]) for number, (far, _) in enumerate(pairs)
        ]
        got = [b""] * len(pairs)
        for start in range(0, len(sealed[0]), 999):
            for number, (_, near) in enumerate(pairs):
                got[number] += bytes(near.receive(sealed[number][start : start + 999]))
        assert got == [DATA[number * 1000 : number * 1000 + 50_000] for number in range(len(pairs))]


class TestEnds:
    """Each direction ends on its own, by a close_notify; everything else is a failure."""

    def test_a_half_close(self, channels) -> None:
        """After its close_notify one side is still sent to, and then the other ends as well."""
        far, near = channels
        assert bytes(near.receive(far.seal(DATA[:20_000]) + far.finish())) == DATA[:20_000]
        assert near.closed
        assert near.failure is None
        assert bytes(far.receive(near.seal(DATA))) == DATA
        assert not far.closed
        assert bytes(far.receive(near.seal(b"bye") + near.finish())) == b"bye"
        assert far.closed
        assert far.failure is near.failure is None

    def test_it_is_sent_once(self, channels) -> None:
        """Also when the other side has ended first."""
        far, near = channels
        near.receive(far.finish())
        assert near.finish()
        assert near.finish() == far.finish() == b""

    def test_a_close_notify_while_something_comes(self, channels) -> None:
        """What the peer has sent meanwhile is read, after half a record of it had come before."""
        far, near = channels
        sealed = far.seal(DATA[:30_000])
        got = bytes(near.receive(sealed[:20_000]))
        bye = near.finish()
        got += bytes(near.receive(sealed[20_000:]))
        assert got == DATA[:30_000]
        assert not bytes(far.receive(bye))
        assert far.closed
        assert bytes(near.receive(far.seal(b"more"))) == b"more"

    def test_what_was_changed_on_its_way(self, channels) -> None:
        """What came before it counts; then it is over, and the peer is told."""
        far, near = channels
        good, bad = far.seal(b"good"), bytearray(far.seal(b"bad"))
        bad[-1] ^= 1
        assert bytes(near.receive(good + bytes(bad) + good)) == b"good"
        assert near.failure == "bad_record"
        assert near.finish() == b""
        assert not bytes(far.receive(near.outgoing()))
        assert far.failure == "alert_other"


def test_what_every_context_has() -> None:
    """Nobody negotiates again, and nothing is compressed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    harden(context)
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION


def test_a_wrong_end_does_no_harm_to_the_next(server, client) -> None:
    """What was left in the shared memory by a session that failed is not the next one's."""
    near = Channel(server, True)
    with pytest.raises(ssl.SSLError):
        near.handshake(b"SSH-2.0-it\r\n" + bytes(10_000))
    far, near = Channel(client, False, "server.test"), Channel(server, True)
    shake_hands(far, near)
    assert bytes(near.receive(far.seal(b"x"))) == b"x"
