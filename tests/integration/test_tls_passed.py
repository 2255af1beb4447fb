"""TLS passes through to whom a client asks for: openssl, curl, HAProxy and nginx, on one listener."""

from __future__ import annotations

import ssl
import subprocess
from contextlib import suppress

import pytest

from tests.dataplane.net.sharing import shared
from tests.support.backends import LineServer, Recorder
from tests.support.clients import ask, dial
from tests.support.dataplane import DataPlane
from tests.support.openssl import SClient, SServer
from tests.support.programs import Haproxy, Nginx, require
from tests.support.tls import CertificateAuthority

pytestmark = [pytest.mark.needs("openssl")]


@pytest.fixture(scope="module", params=["1", "2"], ids=["one worker", "two workers"])
def plane(request):
    """One data plane for all of these tests."""
    with DataPlane(["--workers", request.param]) as plane:
        yield plane


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom clients trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


def to(*backends, **match):
    """Return a service with these backends, and this match."""
    return {"backends": list(backends), **({"match": match} if match else {})}


def turned(address, authority, name, *arguments):
    """Ask for a name, and have a line turned round by an `SServer` of that name; return what s_client wrote."""
    with SClient(address, authority.ca, *arguments, name=name) as client:
        client.say("hello", "olleh")
        return client.quit()


class TestNames:
    """Each name has its service, and the server behind that has the certificate of that name."""

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_names(self, plane, authority, version):
        """A name, a wildcard, and the rest: whoever answers is believed, so it is who was asked for."""
        with (
            SServer(authority.issue("web.example.com")) as web,
            SServer(authority.issue("*.db.example.com")) as db,
            SServer(authority.issue("other.example.org")) as other,
            shared(
                plane,
                web=to(web.address, sni=["web.example.com"]),
                db=to(db.address, sni=["*.db.example.com"]),
                other=to(other.address),
            ) as services,
        ):
            for name in ("web.example.com", "a.db.example.com", "b.db.example.com", "other.example.org"):
                turned(services.address, authority, name, version)
            for word, count in (("web", 1), ("db", 2), ("other", 1)):
                services.services[word].wait(lambda now, count=count: now["totals"]["connections"] == count)
            with SClient(services.address, authority.ca, version, answers="other.example.org") as client:
                client.say("hello", "olleh")

    def test_nobody(self, plane, authority):
        """A name that nobody has, none at all, and what is no TLS: closed, each with its word, and no backend is called."""
        with (
            LineServer("one") as one,
            shared(
                plane,
                web=to(one.address, sni=["web.example.com"]),
                db=to(one.address, sni=["db.example.com"]),
            ) as services,
        ):
            for name in ("else.example.com", None):
                with SClient(services.address, authority.ca, name=name) as client:
                    client.wait_end()
                    assert client.returncode != 0
            services.wait_closed(no_route=2)
            with dial(services.address) as client:
                client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
                with suppress(ConnectionResetError):
                    assert client.recv(1) == b""
            services.wait_closed(no_route=2, not_tls=1)
            assert one.accepted == 0

    def test_plain_to_the_rest(self, plane):
        """What is no TLS goes to the service without a match, if there is one."""
        with (
            LineServer("one") as one,
            LineServer("two") as two,
            shared(plane, web=to(one.address, sni=["web.example.com"]), rest=to(two.address)) as services,
        ):
            assert ask(services.address) == b"two:hello\n"

    def test_protocols(self, plane, authority):
        """Of one name, who offers a protocol goes to the service that says it."""
        pair = authority.issue("web.example.com")
        with (
            SServer(pair, ["-alpn", "h2"]) as two,
            SServer(pair) as any_other,
            shared(
                plane,
                two=to(two.address, sni=["web.example.com"], alpn=["h2"]),
                other=to(any_other.address, sni=["web.example.com"]),
            ) as services,
        ):
            said = turned(services.address, authority, "web.example.com", "-alpn", "h2,http/1.1")
            assert "ALPN protocol: h2" in said
            said = turned(services.address, authority, "web.example.com", "-alpn", "http/1.1")
            assert "No ALPN negotiated" in said
            for service in services.services.values():
                service.wait(lambda now: now["totals"]["connections"] == 1)


@pytest.mark.needs("curl", "nginx")
def test_http_2_to_nginx(plane, authority):
    """Curl agrees on HTTP/2 with the nginx of the name, and on HTTP/1.1 with the other."""
    names = ("one.example.com", "two.example.com")
    servers = [
        f"ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};"
        'return 200 "$ssl_server_name $ssl_alpn_protocol";'
        for pair in map(authority.issue, names)
    ]
    with (
        Nginx(servers[0], listen_options="ssl") as one,
        Nginx(servers[1], listen_options="ssl http2") as two,
        shared(plane, one=to(one.address, sni=[names[0]]), two=to(two.address, sni=[names[1]])) as services,
    ):
        host, _, port = services.address.rpartition(":")
        for name, spoken in zip(names, ("http/1.1 1.1", "h2 2"), strict=True):
            argv = [require("curl"), "-sS", "--cacert", str(authority.ca), "--max-time", "30"]
            argv += [
                "--resolve",
                f"{name}:{port}:{host}",
                "-w",
                " %{http_version}",
                f"https://{name}:{port}/",
            ]
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stdout) == (0, f"{name} {spoken}"), done.stderr


class TestProxyProtocol:
    """HAProxy's header comes before the ClientHello, and ours before it as well."""

    @pytest.mark.needs("haproxy")
    @pytest.mark.parametrize("theirs", ["send-proxy", "send-proxy-v2"])
    def test_header_first(self, plane, authority, theirs):
        """The name is read behind HAProxy's header, which is of the client that `source` is about."""
        accepting = {"accept": "required", "trusted": ["127.0.0.0/8"], "send": "v1"}
        pair = authority.issue("web.example.com")
        with (
            LineServer("one") as one,
            LineServer("two") as two,
            Haproxy([one.address], bind_options=f"accept-proxy ssl crt {pair.single}") as first,
            Haproxy([two.address], bind_options=f"accept-proxy ssl crt {pair.single}") as second,
            shared(
                plane,
                first={
                    **to(first.address, sni=["web.example.com"], source=["127.0.0.7/32"]),
                    "proxy_protocol": accepting,
                },
                second={**to(second.address, sni=["web.example.com"]), "proxy_protocol": accepting},
            ) as services,
            Haproxy([services.address], server_options=theirs) as front,
        ):
            for source, name in (("127.0.0.7", "one"), ("127.0.0.8", "two")):
                with dial(front.address, source=source) as sock:
                    context = authority.client_context()
                    with context.wrap_socket(sock, server_hostname="web.example.com") as client:
                        client.sendall(b"hello\n")
                        assert client.recv(100) == f"{name}:hello\n".encode()

    def test_untouched(self, plane, authority):
        """What the backend gets is what the client has sent, in one piece or many."""
        with (
            Recorder() as backend,
            shared(
                plane, web=to(backend.address, sni=["web.example.com"]), rest=to("127.0.0.1:1")
            ) as services,
        ):
            hello = _client_hello(authority, "web.example.com")
            for number, size in enumerate((len(hello), 100)):
                with dial(services.address) as client:
                    for at in range(0, len(hello), size):
                        client.sendall(hello[at : at + size])
                    client.sendall(b"more")
                    backend.wait_received(hello + b"more", number)


def _client_hello(authority, name):
    """Return what OpenSSL sends first."""
    out = ssl.MemoryBIO()
    client = authority.client_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()
