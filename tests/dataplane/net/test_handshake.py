"""The TLS handshake with a client: what it costs whom, how it ends, and what comes right behind it."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from collections.abc import Iterator

import pytest

from dataplane.core.postgres import GSSENC_REQUEST, NO, REQUEST_BYTES, SSL_REQUEST, YES
from dataplane.core.tls_cause import TlsCause
from dataplane.net.calls import OUT
from tests.dataplane.net.descriptors import looking
from tests.dataplane.net.rig import DEADLINE_S
from tests.dataplane.net.tls_rig import TlsPeer, TlsRig, tls_rigged
from tests.support.clients import reset
from tests.support.tls import CertificateAuthority


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom all here trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def rig(request, authority) -> Iterator[TlsRig]:
    """A service that ends TLS, in each version."""
    with tls_rigged(authority, "client", request.param, timeouts={"tls_handshake": "2s"}) as rig:
        yield rig


def ended(rig: TlsRig, reason: str, detail: str) -> None:
    """Assert that the one flow ends so, and that no backend was asked."""
    rig.until(lambda: rig.reasons)
    assert rig.reasons == [reason]
    assert rig.ended[0][1].detail == detail
    assert rig.ends[0].nobody()
    counted = rig.service.totals.tls
    causes = {} if counted is None else {cause: count for cause, count in counted.causes.items() if count}
    assert causes == ({"tls_failed": {detail: 1}, "tls_timeout": {"timeout": 1}}.get(reason, {}))
    rig.check_accounts()


def said(rig: TlsRig, peer: TlsPeer) -> str:
    """Return what a client is told by an alert, as OpenSSL says it."""
    told = []

    def failed() -> bool:
        try:
            peer.handshake()
            peer.recv(1)
        except BlockingIOError:
            return False
        except ssl.SSLError as error:
            told.append(error.reason)
        return True

    rig.until(failed, "an alert")
    return told[0]


def test_bytes_both_ways(rig) -> None:
    """The backend gets what was in the session, and the client what the backend says."""
    client, server = rig.pair()
    client.sendall(b"question")
    assert rig.receive(server, 8) == b"question"
    server.sendall(b"answer")
    assert rig.receive(client, 6) == b"answer"
    (flow,) = rig.service.flows
    tls = flow.client.tls
    assert tls.version == client.tls.version()
    assert tls.handshake_s == 0.0, "the test's clock stood still"
    assert rig.service.totals.tls.versions[tls.version] == rig.service.totals.tls.seconds.counts[0] == 1
    assert (flow.client.received, flow.server.received) == (8, 6)


def test_in_single_bytes(rig) -> None:
    """However it is cut: no backend is dialled before it is over."""
    client = rig.speaking()
    client.slice = 1
    while not client.handshake():
        assert rig.ends[0].nobody()
        rig.step()
    server = rig.ends[0].accept()
    client.sendall(b"x")
    assert rig.receive(server, 1) == b"x"


def test_what_comes_right_behind_it(rig) -> None:
    """Bytes and an end that were read together with the last flight reach the backend, with no further event."""
    client = rig.speaking()

    def first() -> bool:
        while client._take():
            pass
        try:
            client.tls.do_handshake()
        except ssl.SSLWantReadError:
            client.flush()
            return False
        return True

    if client.tls.context.maximum_version is ssl.TLSVersion.TLSv1_3:  # where the client's flight is the last
        rig.until(first)
        client.sendall(b"early")
        client.shutdown(socket.SHUT_WR)
    else:
        rig.until(client.handshake)
        client.sendall(b"early")
        client.shutdown(socket.SHUT_WR)
    server = rig.ends[0].accept()
    assert rig.receive_end(server) == b"early"
    server.sendall(b"late")
    server.close()
    assert rig.receive_end(client) == b"late"
    rig.settle()
    assert rig.reasons == ["client_closed"]
    rig.check_accounts()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"GET / HTTP/1.1\r\nHost: it\r\n\r\n", "http_request"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_tls"),
        (b"\x16\x03\x01\x00\x05hello", "protocol_error"),
    ],
)
def test_something_else(rig, data, word) -> None:
    """A client that does not speak TLS ends with a word for it."""
    client = rig.client()
    client.sendall(data)
    ended(rig, "tls_failed", word)


def answer(rig: TlsRig, sock: socket.socket) -> bytes:
    """Return the next byte, not before it is there."""
    told: list[bytes] = []

    def came() -> bool:
        with contextlib.suppress(BlockingIOError):
            told.append(sock.recv(1))
        return bool(told)

    rig.until(came, "an answer")
    return told[0]


@pytest.mark.parametrize("size", [1, 7, REQUEST_BYTES])
@pytest.mark.parametrize(
    "requests", [(SSL_REQUEST,), (GSSENC_REQUEST, SSL_REQUEST)], ids=["ssl", "gss and ssl"]
)
def test_postgresql_asks_first(rig, requests, size) -> None:
    """However it is cut: no to GSSAPI, yes to TLS, and then it is TLS as ever."""
    client = rig.speaking()
    for request in requests:
        for at in range(0, REQUEST_BYTES, size):
            with pytest.raises(BlockingIOError):
                client.sock.recv(1)
            client.sock.sendall(request[at : at + size])
            rig.settle()
        assert answer(rig, client.sock) == (YES if request == SSL_REQUEST else NO)
    rig.until(client.handshake)
    server = rig.ends[0].accept()
    client.sendall(b"x")
    assert rig.receive(server, 1) == b"x"


def test_postgresql_does_not_wait_for_the_yes(rig) -> None:
    """What comes together with the question is the beginning of TLS."""
    client = rig.speaking()
    client.sock.sendall(SSL_REQUEST + client.hello())
    assert answer(rig, client.sock) == YES
    rig.until(client.handshake)


@pytest.mark.parametrize("twice", [SSL_REQUEST, GSSENC_REQUEST], ids=["ssl", "gss"])
def test_postgresql_asks_again(rig, twice) -> None:
    """A second question is none: who goes on asking costs no more than who speaks something else."""
    client = rig.client()
    client.sendall(twice)
    answer(rig, client)
    client.sendall(twice)
    ended(rig, "tls_failed", "not_tls")


def test_who_wants_another_version(authority) -> None:
    """The client is told by an alert, the log by a word."""
    with tls_rigged(authority, "client") as rig:
        rig.theirs.minimum_version = rig.theirs.maximum_version = ssl.TLSVersion.TLSv1_2
        client = rig.speaking()
        assert said(rig, client) == "TLSV1_ALERT_PROTOCOL_VERSION"
        ended(rig, "tls_failed", "unsupported_version")


def test_who_has_no_certificate(rig, authority) -> None:
    """Where one is asked for, and each gets its word."""
    rig.ours.load_verify_locations(authority.ca)
    rig.ours.verify_mode = ssl.CERT_REQUIRED
    said(rig, rig.speaking())
    ended(rig, "tls_failed", "no_certificate")


def test_who_does_not_trust_us(rig, authority, tmp_path) -> None:
    """The client's alert has its word too."""
    rig.theirs = CertificateAuthority(tmp_path).client_context()
    client = rig.speaking()
    with pytest.raises(ssl.SSLCertVerificationError):
        rig.until(client.handshake)
    client.flush()
    ended(rig, "tls_failed", "alert_unknown_ca")


@pytest.mark.parametrize(("begun", "word"), [(False, "no_hello"), (True, "truncated")])
def test_who_leaves(rig, begun, word) -> None:
    """Without a word, as checks do that only connect, or in the middle."""
    client = rig.speaking()
    if begun:
        client.handshake()
        rig.settle()
    client.sock.shutdown(socket.SHUT_WR)
    ended(rig, "tls_failed", word)


def test_who_resets(rig) -> None:
    """As at any other time before there is a backend."""
    client = rig.speaking()
    client.handshake()
    rig.settle()
    reset(client.sock)
    ended(rig, "client_gone", "")


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("drained", [False, True])
def test_who_takes_too_long(rig, begun, drained) -> None:
    """`timeouts.tls_handshake` is for all of it, also if a drain was taken back meanwhile."""
    client = rig.speaking()
    if drained:
        (flow,) = rig.service.flows
        flow.deadline = rig.reactor.now + 1.0
        rig.service.deadlines.schedule(flow)
    rig.pass_time(0.5)
    if begun:
        client.handshake()
        rig.settle()
    if drained:
        flow.deadline = 0.0
    rig.pass_time(1.4)
    assert rig.reasons == []
    rig.pass_time(0.2)
    ended(rig, "tls_timeout", "")


def test_a_drain_ends_it(rig) -> None:
    """Its deadline holds while hands are shaken."""
    rig.speaking()
    (flow,) = rig.service.flows
    flow.deadline = rig.reactor.now + 1.0
    rig.service.deadlines.schedule(flow)
    rig.pass_time(1.1)
    ended(rig, "drain_timeout", "")


def test_many_that_say_nothing(rig) -> None:
    """They have no session, they hold up nobody, and the deadline ends each of them."""
    silent = [rig.speaking() for _ in range(300)]
    client, server = rig.pair()
    client.sendall(b"x")
    assert rig.receive(server, 1) == b"x"
    rig.pass_time(2.1)
    assert rig.reasons == ["tls_timeout"] * len(silent)
    counted = rig.service.totals.tls
    assert counted is not None
    assert counted.causes[TlsCause.TIMEOUT] == len(silent)
    assert len(rig.service.flows) == 1


def test_a_client_that_reads_nothing(authority) -> None:
    """What it does not take of our flight is kept, and nothing more is read of it; when it reads on, all is well."""
    with tls_rigged(authority, "client") as rig:
        client = rig.speaking(receive_buffer=4096)
        (flow,) = rig.service.flows
        fd, filled = flow.client.fd, 0
        with looking(fd) as ours:
            full = False
            while not full:  # what is under way makes room for a moment
                full = not select.select([], [ours], [], 0.05)[1]
                with contextlib.suppress(BlockingIOError):
                    while True:
                        filled += ours.send(bytes(100_000), socket.MSG_DONTWAIT)
        client.sock.send(client.hello())
        rig.settle()
        assert flow.client.mask == OUT, "it waits for room, not for bytes"
        while filled:
            assert select.select([client.sock], [], [], DEADLINE_S)[0], "it is under way"
            filled -= len(client.sock.recv(min(filled, 65536)))
            rig.settle()
        rig.until(client.handshake)
        client.sendall(b"x")
        assert rig.receive(rig.ends[0].accept(), 1) == b"x"


def test_places_while_hands_are_shaken(authority) -> None:
    """Who shakes hands has its place under `limits.connections`; who waits for one begins when it has it."""
    limits = {"connections": 1, "queue": 5}
    with tls_rigged(authority, "client", limits=limits) as rig:
        first, second = rig.speaking(), rig.speaking()
        second.handshake()
        rig.settle()
        assert rig.silent(second.sock), "nobody answers yet"
        first.sock.close()
        rig.until(lambda: rig.reasons == ["tls_failed"])
        rig.until(second.handshake)
        second.sendall(b"x")
        assert rig.receive(rig.ends[0].accept(), 1) == b"x"


def test_nobody_to_serve_it(authority) -> None:
    """A client that has shaken hands and gets no backend is told by a close_notify that nothing was cut."""
    with tls_rigged(authority, "client") as rig:
        rig.ends[0].refuse()
        client = rig.speaking()
        rig.until(client.handshake)
        assert rig.receive_end(client) == b""
        assert rig.reasons == ["connect_failed"]
        rig.check_accounts()


def test_a_new_certificate(authority) -> None:
    """Who comes next gets what the service has then."""
    with tls_rigged(authority, "client") as rig:
        other = authority.issue("server.test", file="renewed")
        rig.service.tls.context = authority.server_context(other)
        client, _ = rig.pair()
        shown = client.tls.getpeercert(binary_form=True)
        assert ssl.DER_cert_to_PEM_cert(shown) in other.cert.read_text()
