"""TLS begins here: to openssl, nginx, HAProxy and Redis behind, believed or not, for clients that speak plain."""

from __future__ import annotations

import subprocess

import pytest

from tests.dataplane.net.through import through
from tests.support.backends import LineServer
from tests.support.clients import ask, dial, read_exactly, read_to_end
from tests.support.dataplane import DataPlane
from tests.support.openssl import SServer
from tests.support.programs import Haproxy, Nginx, Redis, require
from tests.support.tls import CertificateAuthority

pytestmark = [pytest.mark.needs("openssl")]

DB = "db.example.com"
POOLS = [{"mode": "off"}, {"mode": "preconnect", "min_idle": 2}, {"mode": "reuse", "min_idle": 1}]
REFUSED = {"backend_tls_failed": 1}


@pytest.fixture(scope="module")
def plane():
    """One data plane for all of these tests."""
    with DataPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom we trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> CertificateAuthority:
    """Whom we do not trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("stranger"), "stranger")


def trusting(authority, **more):
    """Return the section `backend_tls` that believes this authority."""
    return {"ca": str(authority.ca), **more}


def turned(address):
    """Say a line to `SServer`, and return its answer."""
    with dial(address) as client:
        client.sendall(b"hello\n")
        return read_exactly(client, 6)


def nothing(address):
    """Say a line, and tell whether not a byte came back."""
    try:
        return turned(address) == b""
    except ConnectionResetError:
        return True


class TestOpenssl:
    """What a server that tells everything has seen."""

    @pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
    def test_versions(self, plane, authority, version):
        """Whichever version the backend speaks, what the client says comes there and back."""
        option = "-" + version.lower().replace("v", "").replace(".", "_")
        with (
            SServer(authority.issue(DB), [option]) as server,
            through(plane, server.address, backend_tls=trusting(authority, server_name=DB)) as service,
        ):
            assert turned(service.address) == b"olleh\n"
            server.wait_output(f"Protocol version: {version}")
            service.wait(lambda now: now["active"] == 0 and now["totals"]["connections"] == 1)

    def test_name_that_is_asked_for(self, plane, authority):
        """`server_name` is sent as SNI, and verified; an IP address is verified, and not sent."""
        pair, other = authority.issue("127.0.0.1"), authority.issue(DB)
        # who asks for the name gets the certificate of the name, everybody else that of the address
        by_name = ["-servername", DB, "-cert2", str(other.cert), "-key2", str(other.key)]
        with SServer(pair, by_name) as server:
            for more in ({"server_name": DB}, {}):
                with through(plane, server.address, backend_tls=trusting(authority, **more)) as service:
                    assert turned(service.address) == b"olleh\n"

    @pytest.mark.needs("nginx")
    def test_alpn(self, plane, authority):
        """`alpn` is offered."""
        pair = authority.issue(DB)
        server = (
            f'ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};return 200 "<$ssl_alpn_protocol>";'
        )
        with Nginx(server, listen_options="ssl") as nginx:
            for alpn in ([], ["http/1.1"]):
                offering = trusting(authority, server_name=DB, alpn=alpn)
                with (
                    through(plane, nginx.address, backend_tls=offering) as service,
                    dial(service.address) as client,
                ):
                    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    assert read_to_end(client).endswith(f"\r\n\r\n<{''.join(alpn)}>".encode())

    @pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
    def test_our_certificate(self, plane, authority, stranger, version):
        """A backend that wants a certificate gets ours; without one, or with a stranger's, the client is refused."""
        own, other = authority.issue("lb.example.com"), stranger.issue("lb.example.com")
        wanting = [version, "-Verify", "1", "-verify_return_error", "-CAfile", str(authority.ca)]
        with SServer(authority.issue(DB), wanting) as server:
            shown = {"cert": str(own.cert), "key": str(own.key)}
            named = trusting(authority, server_name=DB)
            with through(plane, server.address, backend_tls={**named, **shown}) as service:
                assert turned(service.address) == b"olleh\n"
            for pair in ({}, other.spec):
                with through(plane, server.address, backend_tls={**named, **pair}) as service:
                    assert nothing(service.address)
                    closed = service.wait(lambda now: now["totals"]["closed"])["totals"]["closed"]
                    # with TLS 1.3 it says so after our handshake is over
                    assert closed in (REFUSED, {"backend_reset": 1})


class TestVerification:
    """Who is believed."""

    @pytest.mark.parametrize("pool", ["off", "preconnect"])
    def test_not_believed(self, plane, authority, stranger, pool):
        """Another's authority, an ended certificate, another name: the client is refused, and never relayed to it."""
        for pair, name in (
            (stranger.issue(DB), DB),
            (authority.expired(DB), DB),
            (authority.issue(DB), "web.example.com"),
            (authority.issue(DB), ""),  # it is asked for by its address, which it does not name
        ):
            with (
                SServer(pair) as server,
                through(
                    plane,
                    server.address,
                    backend_tls=trusting(authority, server_name=name),
                    pool={"mode": pool},
                    retries=0,
                ) as service,
            ):
                assert nothing(service.address)
                service.wait_closed(**REFUSED)
                assert "hello" not in server.output

    def test_without_verification(self, plane, stranger):
        """With `verify: false` anybody is believed."""
        with (
            SServer(stranger.expired(DB)) as server,
            through(plane, server.address, backend_tls={"verify": False}) as service,
        ):
            assert turned(service.address) == b"olleh\n"

    @pytest.mark.needs("haproxy")
    def test_another_backend(self, plane, authority, stranger):
        """A client of a backend that is not believed gets the next one."""
        with (
            SServer(stranger.issue(DB)) as wrong,
            LineServer("one") as one,
            Haproxy([one.address], bind_options=f"ssl crt {authority.issue(DB).single}") as right,
            through(
                plane, wrong.address, right.address, backend_tls=trusting(authority, server_name=DB)
            ) as service,
        ):
            for _ in range(4):
                assert ask(service.address) == b"one:hello\n"
            service.wait_closed(client_closed=4)
            assert service.backend(wrong.address)["totals"]["connect_failures"] >= 1


class TestBehind:
    """Other balancers and servers end TLS for us."""

    @pytest.mark.needs("haproxy")
    @pytest.mark.parametrize("header", ["off", "v1", "v2"])
    @pytest.mark.parametrize("pool", ["off", "preconnect"])
    def test_haproxy(self, plane, authority, header, pool):
        """HAProxy ends it, and takes our PROXY header before it."""
        accepting = "" if header == "off" else "accept-proxy"
        options = f"{accepting} ssl crt {authority.issue(DB).single}"
        with (
            LineServer("one") as one,
            Haproxy([one.address], bind_options=options) as haproxy,
            through(
                plane,
                haproxy.address,
                backend_tls=trusting(authority, server_name=DB),
                proxy_protocol={"send": header},
                pool={"mode": pool},
            ) as service,
        ):
            for _ in range(5):
                assert ask(service.address) == b"one:hello\n"
            service.wait_closed(client_closed=5)

    @pytest.mark.needs("nginx")
    def test_nginx(self, plane, authority):
        """Nginx ends it, sees the name, and whose connection it is by the PROXY header."""
        pair = authority.issue(DB)
        server = (
            f"ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};"
            'return 200 "$ssl_server_name $proxy_protocol_addr";'
        )
        with (
            Nginx(server, listen_options="ssl proxy_protocol") as nginx,
            through(
                plane,
                nginx.address,
                backend_tls=trusting(authority, server_name=DB),
                proxy_protocol={"send": "v2"},
            ) as service,
            dial(service.address, source="127.0.0.7") as client,
        ):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert read_to_end(client).endswith(f"\r\n\r\n{DB} 127.0.0.7".encode())

    @pytest.mark.needs("nginx")
    def test_what_the_client_wants(self, plane, authority):
        """With `pass_sni` and `pass_alpn` nginx sees what the client asked for; what is verified stays `server_name`."""
        pair = authority.issue(DB)
        server = (
            f"ssl_certificate {pair.cert}; ssl_certificate_key {pair.key};"
            'return 200 "<$ssl_server_name $ssl_alpn_protocol>";'
        )
        ours = {"certificates": [authority.issue("*.example.com").spec], "alpn": ["http/1.1"]}
        with Nginx(server, listen_options="ssl") as nginx:
            for passed, seen in ((True, "web.example.com http/1.1"), (False, f"{DB} ")):
                theirs = trusting(authority, server_name=DB, pass_sni=passed, pass_alpn=passed)
                with through(plane, nginx.address, tls=ours, backend_tls=theirs) as service:
                    context = authority.client_context()
                    context.set_alpn_protocols(["http/1.1"])
                    with (
                        dial(service.address) as sock,
                        context.wrap_socket(sock, server_hostname="web.example.com") as client,
                    ):
                        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                        assert read_to_end(client).endswith(f"\r\n\r\n<{seen}>".encode())


@pytest.mark.needs("redis-server", "redis-cli", "redis-benchmark")
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool["mode"])
def test_redis(plane, authority, pool):
    """A Redis that speaks nothing but TLS, and wants a certificate, serves clients that speak plain, from each kind of pool."""
    own = authority.issue("lb.example.com")
    with (
        Redis(tls=authority.issue("127.0.0.1"), client_ca=authority.ca) as redis,
        through(
            plane,
            redis.address,
            backend_tls=trusting(authority, **own.spec),
            pool=pool,
        ) as service,
    ):
        port = service.address.rpartition(":")[2]
        cli = [require("redis-cli"), "-p", port]
        for number in range(10):
            assert run([*cli, "SET", f"key{number}", str(number)]) == "OK\n"
            assert run([*cli, "GET", f"key{number}"]) == f"{number}\n"
        benchmark = [require("redis-benchmark"), "-p", port, "-q", "-t", "set,get", "-n", "1000", "-c", "5"]
        for more in (["-P", "8"], ["-k", "0"]):
            assert run([*benchmark, *more]).count("requests per second") == 2
        status = service.wait(lambda now: now["active"] == 0)
        assert set(status["totals"]["closed"]) <= {"client_closed", "backend_closed"}
        pooled = status["backends"][0]["totals"]["pool"]
        assert (pooled["hits"] > 0) == (pool["mode"] != "off")


@pytest.mark.needs("redis-server")
def test_checks(plane, authority, stranger):
    """Checks of a service with `backend_tls` are over TLS: of a Redis with a certificate that is not believed it is `down`."""
    ping = {"send": "PING\r\n", "expect": "+PONG"}
    check = {"active": {"type": "expect", "expect": ping, "interval": "50ms", "rise": 1, "fall": 1}}
    with (
        Redis(tls=authority.issue("127.0.0.1")) as good,
        Redis(tls=stranger.issue("127.0.0.1")) as bad,
        through(plane, good.address, bad.address, backend_tls=trusting(authority), health=check) as service,
    ):
        service.wait_health(**{good.address: "up", bad.address: "down"})
        own = {"active": {"type": "tls", "interval": "50ms", "rise": 1, "fall": 1}}
        service.configure(good.address, bad.address, backend_tls=trusting(authority), health=own)
        service.wait_health(**{good.address: "up", bad.address: "down"})


def run(argv):
    """Run a client to its end, which must be a good one; return its output."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout
