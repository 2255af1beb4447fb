"""Real programs on both sides of the balancer."""

from __future__ import annotations

import contextlib
import json
import subprocess

import pytest

from dataplane.core.proxy_protocol.decode import decode
from dataplane.core.proxy_protocol.fields import CLIENT_CERT_SESS, CLIENT_SSL, Kind, decode_ssl
from dataplane.core.proxy_protocol.header import NEED_DATA
from tests.dataplane.net.through import through
from tests.support.backends import LineServer, Recorder, payload
from tests.support.clients import ask, dial, read_to_end
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.process import Program
from tests.support.programs import Haproxy, Nginx, Postgres, Redis, require
from tests.support.tls import CertificateAuthority

POOLS = [
    {"mode": "off"},
    {"mode": "preconnect", "min_idle": 2},
    {"mode": "reuse", "min_idle": 1},
]
CLOSED = {"client_closed", "backend_closed"}
"""How connections may end that nothing bad happened to."""


@pytest.fixture(scope="module")
def plane():
    """One data plane for all of these tests."""
    with DataPlane() as plane:
        yield plane


def run(*argv, **environment):
    """Run a client to its end, which must be a good one; return its output."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False, env=environment or None
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def port_of(address):
    """Return the port of an address."""
    return address.rpartition(":")[2]


def nothing_bad(service):
    """Assert that every connection has ended by itself."""
    status = service.wait(lambda now: now["active"] == 0)
    assert set(status["totals"]["closed"]) <= CLOSED
    assert all(backend["totals"]["connect_failures"] == 0 for backend in status["backends"])
    return status


def told_before(backend, payload):
    """Return the header that a connection begins with whose next bytes are these."""

    def found():
        for stream in backend.streams:
            got = decode(bytes(stream))
            if got is not NEED_DATA and bytes(stream[got[1] :]) == payload:
                return got[0]
        return None

    backend.wait_until(found, f"a header and {payload!r}")
    return found()


class TestProxyProtocol:
    """Others read what we send, and we read what others send."""

    @pytest.mark.needs("nginx")
    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_nginx_behind(self, plane, version):
        """Nginx sees the client's address and port."""
        with (
            Nginx(
                'return 200 "$proxy_protocol_addr:$proxy_protocol_port";', listen_options="proxy_protocol"
            ) as nginx,
            through(plane, nginx.address, proxy_protocol={"send": version}) as service,
            dial(service.address, source="127.0.0.7") as client,
        ):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := client.recv(4096):
                answer += piece
            assert answer.endswith(f"\r\n\r\n127.0.0.7:{client.getsockname()[1]}".encode())

    @pytest.mark.needs("haproxy")
    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_haproxy_behind(self, plane, version):
        """HAProxy takes our header, and hands the client's address on."""
        with (
            Recorder() as backend,
            Haproxy([backend.address], bind_options="accept-proxy", server_options="send-proxy") as haproxy,
            through(plane, haproxy.address, proxy_protocol={"send": version}) as service,
            dial(service.address, source="127.0.0.7") as client,
        ):
            client.sendall(b"hello")
            near, far = client.getsockname(), client.getpeername()
            backend.wait_received(f"PROXY TCP4 {near[0]} {far[0]} {near[1]} {far[1]}\r\n".encode() + b"hello")

    @pytest.mark.needs("haproxy")
    @pytest.mark.parametrize("theirs", ["send-proxy", "send-proxy-v2"])
    def test_haproxy_in_front(self, plane, theirs):
        """We take HAProxy's header, and hand the client's address on."""
        trusting = {"accept": "required", "trusted": ["127.0.0.0/8"], "send": "v1"}
        with (
            Recorder() as backend,
            through(plane, backend.address, proxy_protocol=trusting) as service,
            Haproxy([service.address], server_options=theirs) as haproxy,
            dial(haproxy.address, source="127.0.0.7") as client,
        ):
            client.sendall(b"hello")
            near, far = client.getsockname(), client.getpeername()
            expected = f"PROXY TCP4 {near[0]} {far[0]} {near[1]} {far[1]}\r\n".encode() + b"hello"
            # HAProxy's readiness was asked with a connection, which has a header, too
            backend.wait_until(lambda: expected in map(bytes, backend.streams), "the client's header")

    @pytest.mark.needs("haproxy")
    def test_haproxy_on_both_sides_of_fields(self, plane):
        """What HAProxy says of a client beside its address, with a checksum, comes to another HAProxy through us."""
        passing = {
            "accept": "required",
            "trusted": ["127.0.0.0/8"],
            "send": "v2",
            "pass_tlvs": True,
            "checksum": True,
        }
        answer = (
            'http-request return status 200 content-type text/plain lf-string "%[fc_pp_unique_id] %[src]"'
        )
        said = "send-proxy-v2 proxy-v2-options unique-id,crc32c"
        with (
            Haproxy([], bind_options="accept-proxy", lines=["mode http", answer]) as behind,
            through(plane, behind.address, proxy_protocol=passing) as service,
            Haproxy([service.address], server_options=said, lines=["unique-id-format id-%ci-%cp"]) as before,
            dial(before.address, source="127.0.0.7") as client,
        ):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            got = read_to_end(client)
            assert got.endswith(f"\r\n\r\nid-127.0.0.7-{client.getsockname()[1]} 127.0.0.7".encode())
            status = service.wait(lambda now: now["active"] == 0)
            assert "proxy_invalid" not in {
                word for word, count in status["totals"]["closed"].items() if count
            }

    @pytest.mark.needs("haproxy")
    def test_haproxy_in_front_tells_of_its_tls(self, plane, tmp_path):
        """What `send-proxy-v2-ssl-cn` says of a client's TLS and certificate comes to the backend as HAProxy has written it."""
        authority = CertificateAuthority(tmp_path)
        pair, own = authority.issue("front.test"), authority.issue("client.test", common_name="alice")
        bind = f"ssl crt {pair.single} ca-file {authority.ca} verify required alpn h2"
        said = "send-proxy-v2-ssl-cn proxy-v2-options authority,ssl-cipher,cert-sig,cert-key"
        passing = {"accept": "required", "trusted": ["127.0.0.0/8"], "send": "v2", "pass_tlvs": True}
        context = authority.client_context(own)
        context.set_alpn_protocols(["h2"])
        with (
            Recorder() as backend,
            through(plane, backend.address, proxy_protocol=passing) as service,
            Haproxy([service.address], server_options=said, bind_options=bind) as before,
            context.wrap_socket(dial(before.address), server_hostname="front.test") as client,
        ):
            client.sendall(b"hello")
            header = told_before(backend, b"hello")
            fields = dict(header.fields)
            assert header.endpoints.source == client.getsockname()
            assert fields[Kind.AUTHORITY] == b"front.test"
            ssl = decode_ssl(fields[Kind.SSL])
            assert (ssl.verified, ssl.cn, ssl.version) == (True, "alice", client.version())
            assert ssl.client & (CLIENT_SSL | CLIENT_CERT_SESS) == CLIENT_SSL | CLIENT_CERT_SESS
            assert ssl.cipher == client.cipher()[0]
            assert (ssl.sig_alg, ssl.key_alg) == ("ecdsa-with-SHA256", "EC256")

    @pytest.mark.needs("haproxy")
    def test_haproxy_behind_is_told_the_name(self, plane, tmp_path):
        """The name that a client of ours has asked for, where its TLS ends here."""
        authority = CertificateAuthority(tmp_path)
        tls = {"certificates": [authority.issue("one.test", "two.test").spec]}
        answer = (
            'http-request return status 200 content-type text/plain lf-string "%[fc_pp_authority] %[src]"'
        )
        with (
            Haproxy([], bind_options="accept-proxy", lines=["mode http", answer]) as behind,
            through(
                plane, behind.address, tls=tls, proxy_protocol={"send": "v2", "checksum": True}
            ) as service,
        ):
            for name in ("one.test", "two.test"):
                sock = dial(service.address, source="127.0.0.7")
                with authority.client_context().wrap_socket(sock, server_hostname=name) as client:
                    client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    assert read_to_end(client).endswith(f"\r\n\r\n{name} 127.0.0.7".encode())

    @pytest.mark.needs("nginx")
    def test_nginx_behind_skips_what_it_does_not_know(self, plane, tmp_path):
        """It takes the addresses from a header that tells of TLS."""
        authority = CertificateAuthority(tmp_path)
        tls = {"certificates": [authority.issue("one.test").spec], "alpn": ["http/1.1"]}
        with (
            Nginx('return 200 "$proxy_protocol_addr";', listen_options="proxy_protocol") as nginx,
            through(plane, nginx.address, tls=tls, proxy_protocol={"send": "v2"}) as service,
            authority.client_context().wrap_socket(
                dial(service.address, source="127.0.0.7"), server_hostname="one.test"
            ) as client,
        ):
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert read_to_end(client).endswith(b"\r\n\r\n127.0.0.7")

    @pytest.mark.needs("haproxy")
    def test_haproxy_checks_us(self, plane):
        """HAProxy's health checks of a listener that requires a header (LOCAL) do not trouble anybody."""
        trusting = {"accept": "required", "trusted": ["127.0.0.0/8"]}
        with LineServer("one") as one, through(plane, one.address, proxy_protocol=trusting) as service:
            options = "send-proxy-v2 check inter 50ms"
            with Haproxy([service.address], server_options=options) as haproxy:
                service.wait(lambda now: now["totals"]["connections"] >= 5)
                assert ask(haproxy.address) == b"one:hello\n"


@pytest.mark.needs("redis-server", "redis-cli", "redis-benchmark")
@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool["mode"])
def test_redis(plane, pool):
    """redis-cli and redis-benchmark work in each mode of the pool, with connections kept and with one a request."""
    with Redis() as redis, through(plane, redis.address, pool=pool) as service:
        host = ["-h", "127.0.0.1", "-p", port_of(service.address)]
        for number in range(10):
            assert run(require("redis-cli"), *host, "SET", f"key{number}", str(number)) == "OK\n"
            assert run(require("redis-cli"), *host, "GET", f"key{number}") == f"{number}\n"
        benchmark = [require("redis-benchmark"), *host, "-q", "-t", "set,get", "-n", "3000", "-c", "10"]
        for more in (["-P", "8"], ["-k", "0"]):
            assert run(*benchmark, *more).count("requests per second") == 2
        status = nothing_bad(service)
        pooled = status["backends"][0]["totals"]["pool"]
        if pool["mode"] == "reuse":
            assert pooled["hits"] > 10 * pooled["misses"]
        elif pool["mode"] == "preconnect":
            assert pooled["hits"] > 0
        else:
            assert pooled["hits"] == pooled["misses"] == 0


@pytest.mark.needs("redis-server", "redis-cli")
def test_redis_reuse_keeps_answers_apart(plane):
    """A client that leaves before its answer has come never causes the next client to read it."""
    pool = {"mode": "reuse"}
    with Redis() as redis, through(plane, redis.address, pool=pool) as service:
        for number in range(50):
            with dial(service.address) as rude:
                rude.sendall(b"ECHO rude\r\n" * (1 + number % 3))
                if number % 2:
                    assert rude.recv(4) == b"$4\r\n"
            with dial(service.address) as polite:
                polite.sendall(b"ECHO polite\r\n")
                answer = b""
                while not answer.endswith(b"polite\r\n"):
                    answer += polite.recv(100)
                assert answer == b"$6\r\npolite\r\n"


@pytest.mark.needs("postgres", "initdb", "psql", "pgbench")
@pytest.mark.parametrize("mode", ["off", "preconnect"])
def test_postgres(plane, postgres, mode):
    """Pgbench with a connection for each transaction loses none of them."""
    with through(
        plane, postgres.address, pool={"mode": mode, "min_idle": 2 if mode == "preconnect" else 0}
    ) as service:
        url = ["-h", "127.0.0.1", "-p", port_of(service.address), "-U", "postgres"]
        done = run(require("pgbench"), "-C", "-S", "-c", "4", "-t", "40", *url, "postgres")
        assert "number of transactions actually processed: 160/160" in done
        assert (
            run(require("psql"), "-Atc", "select count(*) from pgbench_accounts", *url, "postgres")
            == "100000\n"
        )
        status = nothing_bad(service)
        assert status["totals"]["connections"] > 160
        if mode == "preconnect":
            assert status["backends"][0]["totals"]["pool"]["hits"] > 0


@pytest.fixture(scope="module")
def postgres():
    """One cluster for both modes, with pgbench's tables."""
    with Postgres() as postgres:
        url = ["-h", "127.0.0.1", "-p", port_of(postgres.address), "-U", "postgres"]
        run(require("pgbench"), "-i", "-q", *url, "postgres")
        yield postgres


class Iperf(Program):
    """An iperf3 server."""

    def __init__(self):
        super().__init__([])
        self._held = HeldPort()
        self.address = self._held.address
        self.argv = [require("iperf3"), "-s", "-B", "127.0.0.1", "-p", str(self._held.port), "--forceflush"]

    def ready(self):
        """Tell whether it listens; connecting would count as a test."""
        return "Server listening" in self.output

    def close(self):
        """End it, and give the port back."""
        try:
            super().close()
        finally:
            self._held.release()


@pytest.mark.needs("iperf3")
@pytest.mark.parametrize("direction", [[], ["-R"]], ids=["up", "down"])
def test_iperf(plane, direction):
    """200 MB in each direction over four connections, every byte of them accounted for."""
    with Iperf() as iperf, through(plane, iperf.address) as service:
        argv = [
            require("iperf3"),
            "-c",
            "127.0.0.1",
            "-p",
            port_of(service.address),
            "-J",
            "-n",
            "200M",
            "-P",
            "4",
        ]
        done = json.loads(run(*argv, *direction))
        assert "error" not in done
        carried = done["end"]["sum_received"]["bytes"]
        assert carried > 150_000_000
        status = service.wait(lambda now: now["active"] == 0)
        assert status["totals"]["bytes_out" if direction else "bytes_in"] >= carried
        assert status["totals"]["closed"].keys() <= CLOSED | {"client_reset", "backend_reset"}


@pytest.mark.needs("nginx")
def test_nginx_closes_on_unread_input(plane):
    """An HTTP server that answers and closes without reading what else was sent costs the client no byte."""
    page = payload(20_000)  # as much as is surely sent before the reset: what is not is lost by nginx itself
    with (
        Nginx("root .; lingering_close off; keepalive_timeout 0;") as nginx,
        through(plane, nginx.address) as service,
    ):
        (nginx.directory / "page").write_bytes(page)
        for _ in range(50):
            with dial(service.address) as client:
                client.sendall(b"GET /page HTTP/1.0\r\n\r\n" + b"x" * 100_000)
                answer = bytearray()
                with contextlib.suppress(ConnectionResetError):
                    while piece := client.recv(65536):
                        answer += piece
                assert answer.endswith(b"\r\n\r\n" + page)
        status = service.wait(lambda now: now["active"] == 0)
        assert status["totals"]["closed"] == {"backend_reset": 50}, "it did leave it unread"
