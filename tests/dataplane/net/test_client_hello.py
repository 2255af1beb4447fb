"""ClientHellos are looked at and left where they are; who does not send one costs little, and not for long."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

import pytest

from dataplane.core.postgres import GSSENC_REQUEST, SSL_REQUEST
from dataplane.net import client_hello
from tests.dataplane.net.descriptors import adopted
from tests.dataplane.net.routed import RoutedRig, routed
from tests.support.hellos import extension, message, names, protocols, real_hello, records

A = {"match": {"sni": ["a.example"]}}
B = {"match": {"sni": ["b.example"]}}
HELLO = real_hello("b.example")
LARGE = records(message(names(b"b.example") + extension(51, bytes(20_000)) + protocols(b"h2")), 1, 700)


def two(**options: Any) -> Any:
    """Return a rig whose service `s` takes a.example, and `t` b.example."""
    return routed({"t": {**B, **options}}, **A, **options)


@pytest.mark.parametrize("hello", [real_hello("B.example"), LARGE], ids=["small", "large"])
def test_the_backend_gets_every_byte(hello: bytes) -> None:
    """Whatever was looked at, and what follows it; nobody else is dialled."""
    with two() as rig:
        client = rig.client()
        client.sendall(hello + b"further")
        server = rig.ends[1].accept()
        assert rig.receive(server, len(hello) + 7) == hello + b"further"
        server.sendall(b"answer")
        assert rig.receive(client, 6) == b"answer"
        assert rig.ends[0].nobody()
        (flow,) = rig.services["t"].flows
        assert flow.hello is not None
        assert flow.hello.sni == "b.example"
        client.close()
        server.close()
        rig.until(lambda: rig.ended)
        rig.check_routed_accounts()


def test_in_slices_of_one_byte() -> None:
    """Nobody is dialled before it is complete, and then it arrives as it was sent."""
    hello = HELLO
    with two() as rig:
        client = rig.client()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(hello) - 1):
            client.sendall(hello[index : index + 1])
            rig.settle()
        assert rig.ends[1].nobody()
        client.sendall(hello[-1:])
        assert rig.receive(rig.ends[1].accept(), len(hello)) == hello


def test_a_client_that_dribbles_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hundreds of pieces it is looked at a few: before it is complete the kernel does not report it."""
    looks = []
    read = client_hello.read_hello
    monkeypatch.setattr(client_hello, "read_hello", lambda data: (looks.append(len(data)), read(data))[1])
    hello = HELLO
    with two() as rig:
        client = rig.client()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for index in range(len(hello)):
            client.sendall(hello[index : index + 1])
            rig.settle()
        assert rig.receive(rig.ends[1].accept(), len(hello)) == hello
        assert len(looks) <= 5


def test_what_lies_there_incomplete_is_not_reported_again() -> None:
    """A level-triggered epoll would spin."""
    with two() as rig:
        rig.client().sendall(HELLO[:100])
        rig.settle()
        assert not select.select([rig.reactor.epoll], [], [], 0)[0]


def test_over_a_unix_socket() -> None:
    """There the kernel can be told nothing of missing bytes: what lies there is reported once all the same."""
    with two() as rig:
        near, far = socket.socketpair()
        rig.keep(far).setblocking(False)
        rig.router.accepted(adopted(near), None)
        for index in range(0, 100, 10):
            far.sendall(HELLO[index : index + 10])
            rig.settle()
            assert not select.select([rig.reactor.epoll], [], [], 0)[0]
        far.sendall(HELLO[100:])
        assert rig.receive(rig.ends[1].accept(), len(HELLO)) == HELLO


def test_the_relay_after_it_hears_of_single_bytes() -> None:
    """What the kernel was told to wait for holds no longer."""
    hello = HELLO
    with two() as rig:
        client = rig.client()
        client.sendall(hello[:100])
        rig.settle()
        client.sendall(hello[100:])
        server = rig.ends[1].accept()
        assert rig.receive(server, len(hello)) == hello
        client.sendall(b"x")
        assert rig.receive(server, 1) == b"x"


@pytest.mark.parametrize(
    ("data", "reason", "detail"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not_tls", "is not TLS"),
        (b"\x16\x03\x01\x00\x00", "not_tls", "a record has 0 bytes"),
        (real_hello("c.example", ["h2"]), "no_route", "takes the name c.example, offering h2"),
        (real_hello(), "no_route", "takes a client that sends no name"),
    ],
    ids=["http", "record", "name", "no name"],
)
def test_what_nobody_takes(data: bytes, reason: str, detail: str) -> None:
    """Each has its word, and nobody is dialled."""
    with two() as rig:
        rig.client().sendall(data)
        rig.until(lambda: rig.reasons == [reason])
        assert detail in rig.ended[0][1].detail
        assert rig.ends[0].nobody()
        assert rig.ends[1].nobody()
        rig.check_routed_accounts()


@pytest.mark.parametrize("data", [b"", b"\x16\x03", HELLO[:100]], ids=["nothing", "2 bytes", "100 bytes"])
def test_who_finishes_before_it_is_complete(data: bytes) -> None:
    """A FIN tells that nothing more will come."""
    with two() as rig:
        client = rig.client()
        client.sendall(data)
        rig.settle()
        client.shutdown(socket.SHUT_WR)
        rig.until(lambda: rig.reasons == ["not_tls"])
        assert "has finished before" in rig.ended[0][1].detail
        rig.check_routed_accounts()


@pytest.mark.parametrize("data", [b"", HELLO[:100]], ids=["nothing", "100 bytes"])
def test_who_resets(data: bytes) -> None:
    """It is gone, whatever it wanted."""
    with two() as rig:
        client = rig.client()
        client.sendall(data)
        rig.settle()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        rig.until(lambda: rig.reasons == ["client_gone"])
        rig.check_routed_accounts()


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", False),
        (real_hello("c.example"), False),
        (b"", True),
        (b"\x16\x03\x01", True),
    ],
    ids=["http", "name", "nothing", "3 bytes"],
)
def test_the_service_without_a_match_takes_the_rest(data: bytes, left: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Who wants another name, does not speak TLS, or finishes early is served as if there were nobody else."""
    with routed({"t": A}) as rig:
        client = rig.client()
        client.sendall(data)
        if left:
            client.shutdown(socket.SHUT_WR)
        server = rig.ends[0].accept()
        assert rig.receive(server, len(data)) == data
        if left:
            assert rig.receive_end(server) == b""
        assert rig.ends[1].nobody()


@pytest.mark.parametrize(
    "data", [b"", b"\x16", HELLO[:-1], b"\0\0\0"], ids=["nothing", "1", "most", "postgres"]
)
def test_who_is_late(data: bytes) -> None:
    """It has `client_hello` seconds, however much of it has come."""
    with two(timeouts={"client_hello": "2s"}) as rig:
        rig.client().sendall(data)
        rig.pass_time(1.9)
        assert rig.reasons == []
        rig.pass_time(0.2)
        assert rig.reasons == ["client_hello_timeout"]
        rig.check_routed_accounts()


def test_without_a_deadline() -> None:
    """0s is none."""
    with two(timeouts={"client_hello": "0s"}) as rig:
        client = rig.client()
        rig.pass_time(60)
        client.sendall(real_hello("a.example"))
        rig.ends[0].accept()


HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n"
PROXY = {"proxy_protocol": {"accept": "required", "trusted": ["127.0.0.0/8"]}}


@pytest.mark.parametrize("cut", [10, len(HEADER), len(HEADER) + 30])
def test_a_proxy_header_comes_first(cut: int) -> None:
    """Then the ClientHello, which alone is left for the backend; addresses that match are the carried ones."""
    hello = HELLO
    with routed(
        {"t": {**B, **PROXY}, "u": {"match": {"source": ["192.0.2.0/24"]}, **PROXY}}, **A, **PROXY
    ) as rig:
        client = rig.client()
        client.sendall((HEADER + hello)[:cut])
        rig.settle()
        client.sendall((HEADER + hello)[cut:])
        assert rig.receive(rig.ends[1].accept(), len(hello)) == hello
        (flow,) = rig.services["t"].flows
        assert flow.address == ("192.0.2.7", 50000)
        other = rig.client()
        other.sendall(HEADER + real_hello("c.example"))
        rig.ends[2].accept()


def test_a_proxy_header_that_is_late_or_untrusted() -> None:
    """They end as elsewhere, and are counted once."""
    with two(
        proxy_protocol={"accept": "required", "trusted": ["127.0.0.0/8"]}, timeouts={"proxy_header": "2s"}
    ) as rig:
        rig.client()
        rig.pass_time(2.1)
        rig.client().sendall(b"GET / HTTP/1.1\r\n")
        rig.until(lambda: rig.reasons == ["proxy_timeout", "proxy_invalid"])
        rig.check_routed_accounts()


# -- PostgreSQL ---------------------------------------------------------------------------------------


def ask(rig: RoutedRig, client: socket.socket, request: bytes, answer: bytes) -> None:
    """Send a request in two pieces, and see what is answered."""
    client.sendall(request[:3])
    rig.settle()
    client.sendall(request[3:])
    assert rig.receive(client, 1) == answer


@pytest.mark.parametrize("gss", [False, True])
def test_postgresql_asks_first(gss: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """We answer, and ask the chosen backend the same: both see a plain beginning of PostgreSQL's."""
    hello = HELLO
    with two() as rig:
        client = rig.client()
        if gss:
            ask(rig, client, GSSENC_REQUEST, b"N")
        ask(rig, client, SSL_REQUEST, b"S")
        assert rig.ends[1].nobody()
        client.sendall(hello)
        server = rig.ends[1].accept()
        assert rig.receive(server, 8) == SSL_REQUEST
        assert rig.silent(server)
        server.sendall(b"S")
        assert rig.receive(server, len(hello)) == hello
        server.sendall(b"answer")
        assert rig.receive(client, 6) == b"answer"
        client.close()
        server.close()
        rig.until(lambda: rig.ended)
        rig.check_routed_accounts()


def test_postgresql_may_begin_with_tls() -> None:
    """`sslnegotiation=direct`: nobody is asked anything."""
    hello = real_hello("b.example", ["postgresql"])
    with two() as rig:
        rig.client().sendall(hello)
        assert rig.receive(rig.ends[1].accept(), len(hello)) == hello


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        ([GSSENC_REQUEST, GSSENC_REQUEST], b"N"),
        ([SSL_REQUEST, SSL_REQUEST], b"S"),
        ([SSL_REQUEST, b"GET / HTTP/1.1\r\n"], b"S"),
        ([GSSENC_REQUEST, b"\x00\x00\x00\x09\x00\x03\x00\x00\x00"], b"N"),
    ],
)
def test_what_is_no_tls_after_the_answer(sent: list[bytes], answered: bytes) -> None:
    """Nothing else was agreed on."""
    with two() as rig:
        client = rig.client()
        client.sendall(sent[0])
        assert rig.receive(client, 1) == answered
        client.sendall(sent[1])
        rig.until(lambda: rig.reasons == ["not_tls"])
        assert rig.ends[0].nobody()
        rig.check_routed_accounts()


def test_a_backend_that_wants_no_tls() -> None:
    """The client cannot be told any more: it is reset, and the reason says whose doing it was."""
    with two() as rig:
        client = rig.client()
        ask(rig, client, SSL_REQUEST, b"S")
        client.sendall(real_hello("b.example"))
        server = rig.ends[1].accept()
        assert rig.receive(server, 8) == SSL_REQUEST
        server.sendall(b"N")
        rig.until(lambda: rig.reasons == ["backend_tls_failed"])
        assert "SSLRequest" in rig.ended[0][1].detail
        with pytest.raises(ConnectionResetError):
            rig.receive(client, 1)
        rig.check_routed_accounts()
