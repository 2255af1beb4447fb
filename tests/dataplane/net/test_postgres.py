"""A backend is asked for TLS as its client has asked us, and the client hears nothing of it."""

from __future__ import annotations

import socket
import struct
from dataclasses import replace

import pytest

from dataplane.core.postgres import SSL_REQUEST
from dataplane.core.proxy_protocol.decode import decode
from dataplane.net.backend import Backend
from tests.dataplane.net.routed import RoutedRig, routed
from tests.support.hellos import real_hello

HELLO = real_hello("b.example")
B = {"match": {"sni": ["b.example"]}}
RESET = struct.pack("ii", 1, 0)


def begin(rig: RoutedRig) -> socket.socket:
    """Return a client that was promised TLS, and has sent its ClientHello."""
    client = rig.client()
    client.sendall(SSL_REQUEST)
    assert rig.receive(client, 1) == b"S"
    client.sendall(HELLO)
    return client


def test_the_proxy_header_goes_first() -> None:
    """It is what a backend that wants one reads before anything else."""
    with routed({"t": {**B, "proxy_protocol": {"send": "v1"}}}, match={"sni": ["a.example"]}) as rig:
        begin(rig)
        server = rig.ends[1].accept()
        rig.until(
            lambda: (
                len(server.recv(1000, socket.MSG_PEEK)) > len(SSL_REQUEST) + 8
                if not rig.silent(server)
                else False
            )
        )
        seen = server.recv(1000)
        _, used = decode(seen)  # type: ignore[misc]
        assert seen[used:] == SSL_REQUEST
        server.sendall(b"S")
        assert rig.receive(server, len(HELLO)) == HELLO


def test_a_client_that_goes_on_is_not_read_before_the_answer() -> None:
    """Its bytes would reach the backend as if they were its beginning."""
    with routed({"t": B}, match={"sni": ["a.example"]}) as rig:
        client = begin(rig)
        server = rig.ends[1].accept()
        assert rig.receive(server, 8) == SSL_REQUEST
        client.sendall(b"further")
        assert rig.silent(server)
        server.sendall(b"S" + b"greeting")
        assert rig.receive(server, len(HELLO) + 7) == HELLO + b"further"
        assert rig.receive(client, 8) == b"greeting"


def test_a_client_that_resets_meanwhile() -> None:
    """It is gone; its backend is told."""
    with routed({"t": B}, match={"sni": ["a.example"]}) as rig:
        client = begin(rig)
        server = rig.ends[1].accept()
        assert rig.receive(server, 8) == SSL_REQUEST
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()
        rig.until(lambda: rig.reasons == ["client_gone"])
        rig.check_routed_accounts()


@pytest.mark.parametrize(
    ("answer", "said"), [(b"N", "answers b'N'"), (b"E", "answers b'E'"), (b"", "ends the connection")]
)
def test_what_is_no_yes(answer: bytes, said: str) -> None:
    """The client was promised TLS: nothing else can be told to it but a reset."""
    with routed({"t": B}, match={"sni": ["a.example"]}) as rig:
        client = begin(rig)
        server = rig.ends[1].accept()
        server.sendall(answer)
        server.shutdown(socket.SHUT_WR)
        rig.until(lambda: rig.reasons == ["backend_tls_failed"])
        assert [backend for backend, _ in rig.failures] == ["b1"]
        assert said in rig.ended[0][1].detail
        with pytest.raises(ConnectionResetError):
            rig.receive(client, 1)
        rig.check_routed_accounts()


def test_a_pooled_connection_that_has_died_is_replaced() -> None:
    """As without TLS: the client has not been heard yet."""
    options = {**B, "pool": {"mode": "preconnect", "min_idle": 1, "max_idle": 1}}
    with routed({"t": options}, match={"sni": ["a.example"]}) as rig:
        pooled = rig.ends[1].accept()
        rig.settle()
        client = rig.client()
        client.sendall(SSL_REQUEST)
        assert rig.receive(client, 1) == b"S"
        client.sendall(HELLO)
        rig.until(lambda: len(rig.services["t"].flows) == 1)
        rig.until(lambda: not rig.silent(pooled))
        pooled.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        pooled.close()
        server = rig.ends[1].accept()
        while rig.silent(server):  # the pool's next, which nobody has asked anything
            server = rig.ends[1].accept()
        assert rig.receive(server, 8) == SSL_REQUEST
        server.sendall(b"S")
        assert rig.receive(server, len(HELLO)) == HELLO


def test_another_backend_is_tried() -> None:
    """Nothing of the client's was sent to the first: it is served by the one that agrees."""
    with routed({"t": B}, match={"sni": ["a.example"]}) as rig:
        second = rig.services["t"]
        spec = second.spec.backends[0]
        both = (spec, spec._replace(id="b0", address=f"127.0.0.1:{rig.ends[0].port}"))
        second.spec = replace(second.spec, backends=both)
        second.backends["b0"] = Backend(rig.reactor, both[1], second.spec)
        own, rig.service = rig.service, second
        rig.select()
        rig.service = own
        begin(rig)
        rig.until(lambda: not (rig.ends[0].nobody() and rig.ends[1].nobody()))
        first, other = (0, 1) if rig.ends[1].nobody() else (1, 0)
        server = rig.ends[first].accept()
        assert rig.receive(server, 8) == SSL_REQUEST
        server.sendall(b"N")
        server = rig.ends[other].accept()
        assert rig.receive(server, 8) == SSL_REQUEST
        server.sendall(b"S")
        assert rig.receive(server, len(HELLO)) == HELLO
        assert rig.reasons == []
