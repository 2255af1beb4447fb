"""PROXY headers: a client's is read and nothing more, a backend's is sent before everything else."""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from dataplane.core.client_hello import ClientHello
from dataplane.core.proxy_protocol.decode import decode
from dataplane.core.proxy_protocol.fields import (
    CLIENT_CERT_CONN,
    CLIENT_CERT_SESS,
    CLIENT_SSL,
    Kind,
    Ssl,
    decode_ssl,
)
from dataplane.core.proxy_protocol.header import Field
from dataplane.core.proxy_protocol.v2 import encode_v2, with_fields
from dataplane.net.tls import note_sni
from tests.dataplane.net.rig import Rig, rigged
from tests.dataplane.net.tls_rig import TlsRig, tls_rigged
from tests.support.tls import CertificateAuthority

HEADER = b"PROXY TCP4 192.0.2.7 198.51.100.1 50000 443\r\n"
REQUIRED = {"accept": "required", "trusted": ["127.0.0.0/8"]}


def reading(**options: Any) -> Any:
    """Return a rig whose clients must send a header."""
    return rigged(proxy_protocol={**REQUIRED, **options.pop("proxy_protocol", {})}, **options)


def flow_of(rig: Rig) -> Any:
    """Return the one flow that there is."""
    (flow,) = rig.service.flows
    return flow


@pytest.mark.parametrize("cut", [1, 6, len(HEADER) - 1, len(HEADER)])
def test_the_header_is_taken_and_what_follows_is_relayed(cut: int) -> None:
    """However it is cut: nobody is dialled before it is complete, and the client is the carried one from then on."""
    with reading() as rig:
        client = rig.client()
        client.sendall(HEADER[:cut])
        rig.settle()
        client.sendall(HEADER[cut:] + b"hello")
        server = rig.ends[0].accept()
        assert rig.receive(server, 5) == b"hello"
        flow = flow_of(rig)
        assert (flow.address, flow.destination) == (("192.0.2.7", 50000), ("198.51.100.1", 443))


def test_no_backend_is_touched_before_the_header_is_complete() -> None:
    """A backend would wait for somebody who may never come."""
    with reading() as rig:
        rig.client().sendall(HEADER[:-1])
        rig.settle()
        assert rig.ends[0].nobody()
        assert flow_of(rig).waiting is not None


@pytest.mark.parametrize(
    ("options", "data", "reason"),
    [
        ({}, b"GET / HTTP/1.1\r\n", "proxy_invalid"),
        ({"proxy_protocol": {"trusted": ["192.0.2.0/24"]}}, b"", "proxy_untrusted"),
    ],
)
def test_what_is_refused(options: dict[str, Any], data: bytes, reason: str) -> None:
    """Whoever begins with something else, and a peer that nobody trusts, before it has said a word."""
    with reading(**options) as rig:
        rig.client().sendall(data)
        rig.until(lambda: rig.reasons == [reason])
        assert rig.ends[0].nobody()


def test_who_leaves_before_it_is_complete() -> None:
    """A FIN in the middle is an invalid header, and the log says why."""
    with reading() as rig:
        client = rig.client()
        client.sendall(HEADER[:9])
        client.close()
        rig.until(lambda: rig.reasons == ["proxy_invalid"])
        assert "left before" in rig.ended[0][1].detail


@pytest.mark.parametrize("drained", [False, True])
def test_who_sends_none_in_time(drained) -> None:
    """It has `proxy_header` seconds from the beginning on, also if a drain was taken back meanwhile."""
    with reading(timeouts={"proxy_header": "2s"}) as rig:
        rig.client()
        if drained:
            flow = flow_of(rig)
            flow.deadline = rig.reactor.now + 1.0
            rig.service.deadlines.schedule(flow)
            rig.pass_time(0.5)
            flow.deadline = 0.0
        rig.pass_time(1.9 - 0.5 * drained)
        assert rig.reasons == []
        rig.pass_time(0.2)
        assert rig.reasons == ["proxy_timeout"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_backend_is_told_who_the_client_is(version: int) -> None:
    """Its address and what it connected to come first, before a byte of its own."""
    with rigged(proxy_protocol={"send": f"v{version}"}) as rig:
        client = rig.client()
        client.sendall(b"hello")
        server = rig.ends[0].accept()
        data = b""
        while not data.endswith(b"hello"):
            data += rig.receive(server, 1)
        got = decode(data)
        assert isinstance(got, tuple)
        header, used = got
        assert (header.version, data[used:]) == (version, b"hello")
        assert header.endpoints is not None
        assert header.endpoints.source == client.getsockname()
        assert header.endpoints.destination == client.getpeername()


def test_a_carried_client_is_passed_on() -> None:
    """Between two balancers the second tells its backend whom the first has told it of."""
    with reading(proxy_protocol={"send": "v1"}) as rig:
        rig.client().sendall(HEADER)
        assert rig.receive(rig.ends[0].accept(), len(HEADER)) == HEADER


ENDS = ("192.0.2.7", 50000), ("198.51.100.1", 443)
SAID = (
    Field(Kind.AUTHORITY, b"a.example"),
    Field(Kind.UNIQUE_ID, b"7"),
    Field(Kind.SSL, Ssl(version="TLSv1.3").encode()),
    Field(0xEA, b"vpce-1"),
)


def told(rig: Rig, *, payload: bytes) -> bytes:
    """Return what a backend is sent before `payload`."""
    server = rig.ends[0].accept()
    data = b""
    while not data.endswith(payload):
        data += rig.receive(server, 1)
    return data.removesuffix(payload)


def test_what_a_header_says_is_passed_on() -> None:
    """Each field of it, in order and behind the addresses that it carries; its checksum and its padding are its own."""
    options = {"send": "v2", "pass_tlvs": True}
    with reading(proxy_protocol=options) as rig:
        accepted = with_fields(encode_v2(*ENDS), [Field(Kind.NOOP, b"xx"), *SAID], checksum=True)
        rig.client().sendall(accepted + b"hello")
        assert told(rig, payload=b"hello") == with_fields(encode_v2(*ENDS), SAID)


@pytest.mark.parametrize("checksum", [False, True])
def test_nothing_is_passed_on_unasked(checksum: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """A backend is sent the addresses alone, whatever else it is sent."""
    with reading(proxy_protocol={"send": "v2", "checksum": checksum}) as rig:
        rig.client().sendall(with_fields(encode_v2(*ENDS), SAID) + b"hello")
        assert told(rig, payload=b"hello") == with_fields(encode_v2(*ENDS), [], checksum=checksum)


def test_what_stands_behind_local_is_not_passed_on() -> None:
    """The balancer in front speaks for itself there, and not for a client."""
    with reading(proxy_protocol={"send": "v2", "pass_tlvs": True}) as rig:
        header = bytearray(with_fields(encode_v2(*ENDS), SAID))
        header[12] = 0x20
        client = rig.client()
        client.sendall(header + b"hello")
        got = told(rig, payload=b"hello")
        assert got == encode_v2(client.getsockname(), client.getpeername())


def test_a_checksum_is_sent_if_wanted() -> None:
    """It holds, and nothing else is added."""
    with rigged(proxy_protocol={"send": "v2", "checksum": True}) as rig:
        client = rig.client()
        client.sendall(b"hello")
        plain = encode_v2(client.getsockname(), client.getpeername())
        assert told(rig, payload=b"hello") == with_fields(plain, [], checksum=True)


def test_malformed_fields_are_refused() -> None:
    """Nobody is dialled for a name that is there twice."""
    with reading() as rig:
        twice = [Field(Kind.AUTHORITY, b"a.example"), Field(Kind.AUTHORITY, b"b.example")]
        rig.client().sendall(with_fields(encode_v2(*ENDS), twice))
        rig.until(lambda: rig.reasons == ["proxy_invalid"])
        assert rig.ends[0].nobody()


# -- with TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    """Whom all here trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


def ending(authority: CertificateAuthority, **options: Any) -> Any:
    """Return a rig that ends TLS and sends version 2, whose clients may show a certificate and speak h2."""
    proxy = {"send": "v2", **options.pop("proxy_protocol", {})}
    return tls_rigged(authority, "client", options.pop("version", "TLSv1_3"), proxy_protocol=proxy, **options)


def speak(rig: TlsRig) -> Any:
    """Have a client shake hands, and the service know the name that it asks for."""
    rig.ours.sni_callback = lambda connection, name, _: note_sni(connection, name)
    rig.ours.set_alpn_protocols(["h2"])
    rig.theirs.set_alpn_protocols(["h2", "http/1.1"])
    client = rig.speaking()
    rig.until(client.handshake)
    client.sendall(b"hello")
    return client


def fields_told(rig: Rig) -> dict[int, Any]:
    """Return what a backend is told besides addresses, by kind."""
    got = decode(told(rig, payload=b"hello"))
    assert isinstance(got, tuple)
    fields: dict[int, Any] = dict(got[0].fields)
    if Kind.SSL in fields:
        fields[Kind.SSL] = decode_ssl(fields[Kind.SSL])
    return fields


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_a_backend_is_told_of_tls_that_ends_here(authority: CertificateAuthority, version: str) -> None:
    """The name that was asked for, the protocol, and what the session is; no certificate was shown."""
    with ending(authority, version=version) as rig:
        client = speak(rig)
        assert fields_told(rig) == {
            Kind.AUTHORITY: b"server.test",
            Kind.ALPN: b"h2",
            Kind.SSL: Ssl(version=version.replace("_", "."), cipher=client.tls.cipher()[0]),
        }


@pytest.mark.parametrize("name", ["alice", None])
def test_a_backend_is_told_whose_certificate_was_shown(
    authority: CertificateAuthority, name: str | None
) -> None:
    """By its common name, if it has one; that it was verified is told in any case."""
    with ending(authority) as rig:
        own = authority.issue("client.test", common_name=name, file="client")
        rig.theirs.load_cert_chain(own.cert, own.key)
        rig.ours.load_verify_locations(authority.ca)
        rig.ours.verify_mode = ssl.CERT_REQUIRED
        client = speak(rig)
        assert fields_told(rig)[Kind.SSL] == Ssl(
            CLIENT_SSL | CLIENT_CERT_CONN | CLIENT_CERT_SESS,
            verified=True,
            version="TLSv1.3",
            cn=name or "",
            cipher=client.tls.cipher()[0],
        )


def test_a_backend_is_told_nothing_of_tls_that_it_shall_not_know(authority: CertificateAuthority) -> None:
    """Without `send_tls` it gets the addresses alone."""
    with ending(authority, proxy_protocol={"send_tls": False}) as rig:
        client = speak(rig)
        plain = encode_v2(client.sock.getsockname(), client.sock.getpeername())
        assert told(rig, payload=b"hello") == plain


def test_what_the_balancer_in_front_says_of_the_client_stands(authority: CertificateAuthority) -> None:
    """Between it and us may be TLS, too: ours is told where it has said nothing."""
    proxy = {**REQUIRED, "pass_tlvs": True}
    front = Ssl(version="TLSv1.2", cn="bob"), b"front.example"
    said = [Field(Kind.SSL, front[0].encode()), Field(Kind.AUTHORITY, front[1])]
    with ending(authority, proxy_protocol=proxy) as rig:
        rig.ours.set_alpn_protocols(["h2"])
        rig.theirs.set_alpn_protocols(["h2"])
        client = rig.speaking()
        client.sock.sendall(with_fields(encode_v2(*ENDS), said))
        rig.until(client.handshake)
        client.sendall(b"hello")
        assert fields_told(rig) == {Kind.SSL: front[0], Kind.AUTHORITY: front[1], Kind.ALPN: b"h2"}


@pytest.mark.parametrize("send_tls", [True, False])
def test_a_backend_is_told_the_name_of_tls_that_is_passed_on(send_tls: bool) -> None:  # noqa: FBT001 - a parameter of pytest's
    """A router has looked at it; what both ends agree on, nobody knows here."""
    with rigged(
        proxy_protocol={"send": "v2", "send_tls": send_tls}, limits={"connections": 1, "queue": 1}
    ) as rig:
        first = rig.client()
        server = rig.ends[0].accept()
        client = rig.client()
        rig.settle()
        flow = rig.service.queue.peek()
        assert flow is not None
        flow.hello = ClientHello(sni="a.example", alpn=("h2",))
        client.sendall(b"hello")
        first.close()
        server.close()
        fields = fields_told(rig)
        assert fields == ({Kind.AUTHORITY: b"a.example"} if send_tls else {})
