"""PostgreSQL, Redis and MQTT over TLS, with their own programs: passed through by name, and ended here."""

from __future__ import annotations

import subprocess

import pytest

from tests.dataplane.net.sharing import shared
from tests.dataplane.net.through import through
from tests.support.dataplane import DataPlane
from tests.support.programs import Mosquitto, Postgres, Redis, require
from tests.support.tls import CertificateAuthority

ONE, TWO = "one.example.com", "two.example.com"
ENDED = {"client_closed", "backend_closed"}
"""How connections may end that nothing bad happened to."""


@pytest.fixture(scope="module")
def plane():
    """One data plane for all of these tests."""
    with DataPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom clients trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("ca"))


def run(argv, *, fails=""):
    """Run a client to its end, and return its output.

    Args:
        argv: The command.
        fails: What it must say when it fails; empty: it must not.
    """
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if fails:
        assert done.returncode != 0
        assert fails in done.stderr, done.stderr
    else:
        assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def servers(authority):
    """Two servers that say who they are by a setting."""
    with (
        Postgres({"cluster_name": "one"}, tls=authority.issue(ONE)) as one,
        Postgres({"cluster_name": "two"}, tls=authority.issue(TWO)) as two,
    ):
        yield one, two


class TestPostgres:
    """Psql believes nobody but the server that it asks for (`sslmode=verify-full`)."""

    def psql(self, address, authority, name, query, **more):
        """Return a command that asks for a name at an address."""
        host, _, port = address.rpartition(":")
        said = {"host": name, "hostaddr": host, "port": port, "user": "postgres", "dbname": "postgres"}
        said |= {"sslmode": "verify-full", "sslrootcert": str(authority.ca), "connect_timeout": "30", **more}
        return [require("psql"), "-XAtc", query, " ".join(f"{key}={value}" for key, value in said.items())]

    @pytest.mark.needs("psql", "postgres", "initdb")
    @pytest.mark.parametrize("negotiation", ["postgres", "direct"])
    def test_passed_by_name(self, plane, authority, servers, negotiation):
        """Each name has its server, which ends TLS itself."""
        more = self.negotiated(negotiation)
        one, two = servers
        with shared(
            plane,
            one={"backends": [one.address], "match": {"sni": [ONE]}},
            two={"backends": [two.address], "match": {"sni": ["*.example.com"]}},
        ) as services:
            query = (
                "select current_setting('cluster_name'), ssl from pg_stat_ssl where pid = pg_backend_pid()"
            )
            for _ in range(3):
                for name, server in ((ONE, "one"), (TWO, "two")):
                    assert run(self.psql(services.address, authority, name, query, **more)) == f"{server}|t\n"
            for service in services.services.values():
                service.wait(lambda now: now["active"] == 0 and now["totals"]["connections"] == 3)
            # at the end of TLS each of them closes without having read what the other said last
            assert set(services.closed()) <= ENDED | {"client_reset", "backend_reset"}

    @pytest.mark.needs("psql", "postgres", "initdb")
    def test_without_tls(self, plane, authority, servers):
        """A client that wants no TLS goes to the service without a match."""
        one, two = servers
        with shared(
            plane,
            one={"backends": [one.address], "match": {"sni": [ONE]}},
            rest={"backends": [two.address]},
        ) as services:
            query = "select current_setting('cluster_name')"
            plain = {"sslmode": "disable", "gssencmode": "disable"}
            assert run(self.psql(services.address, authority, ONE, query, **plain)) == "two\n"
            assert run(self.psql(services.address, authority, ONE, query)) == "one\n"

    @pytest.mark.needs("psql", "postgres", "initdb")
    def test_much(self, plane, authority, servers):
        """A long answer and a long question pass whole."""
        with shared(plane, one={"backends": [servers[0].address], "match": {"sni": [ONE]}}) as services:
            query = "select md5(string_agg(repeat('x', 1000), '')) from generate_series(1, 20000)"
            asked = self.psql(services.address, authority, ONE, query)
            same = "select md5(repeat('x', 20000000))"
            assert run(asked) == run(self.psql(services.address, authority, ONE, same))
            long = run(self.psql(services.address, authority, ONE, "select repeat('y', 20000000)"))
            assert long == "y" * 20_000_000 + "\n"

    @pytest.mark.needs("psql", "postgres", "initdb")
    @pytest.mark.parametrize("negotiation", ["postgres", "direct"])
    def test_ended_here(self, plane, authority, servers, negotiation):
        """TLS ends here, and the server sees none; who is not believed is left by psql."""
        more = self.negotiated(negotiation)
        tls = {"certificates": [authority.issue(ONE).spec], "alpn": ["postgresql"]}
        with through(plane, servers[0].address, tls=tls) as service:
            query = (
                "select current_setting('cluster_name'), ssl from pg_stat_ssl where pid = pg_backend_pid()"
            )
            assert run(self.psql(service.address, authority, ONE, query, **more)) == "one|f\n"
            wrong = self.psql(service.address, authority, TWO, query, **more)
            run(wrong, fails="does not match host name")

    @pytest.mark.needs("psql", "postgres", "initdb")
    @pytest.mark.parametrize("pool", ["off", "preconnect"])
    def test_ended_and_begun(self, plane, authority, servers, pool):
        """TLS ends here and begins anew: the server is asked for it as we were, and it is who it should be."""
        tls = {"certificates": [authority.issue(TWO).spec]}
        query = "select current_setting('cluster_name'), ssl from pg_stat_ssl where pid = pg_backend_pid()"
        for name, answer in ((ONE, "one|t\n"), ("else.example.com", "")):
            believed = {"ca": str(authority.ca), "server_name": name}
            with through(
                plane, servers[0].address, tls=tls, backend_tls=believed, pool={"mode": pool}
            ) as service:
                asked = self.psql(service.address, authority, TWO, query)
                for _ in range(3):
                    assert run(asked, fails="" if answer else "connection to server") == answer
                if not answer:
                    service.wait_closed(backend_tls_failed=3)

    def negotiated(self, negotiation):
        """Return the setting; skip what this psql does not know."""
        if negotiation == "postgres":
            return {}
        version = subprocess.run([require("psql"), "--version"], capture_output=True, text=True, check=True)
        if int(version.stdout.split()[2].partition(".")[0]) < 17:
            pytest.skip("sslnegotiation=direct comes with psql 17")
        return {"sslnegotiation": "direct"}


@pytest.mark.needs("redis-server", "redis-cli")
class TestRedis:
    """redis-cli over TLS."""

    def cli(self, address, authority, name, *command):
        """Return a command that asks for a name at an address."""
        port = address.rpartition(":")[2]
        believed = ["--tls", "--cacert", str(authority.ca), "--sni", name]
        return [require("redis-cli"), "-h", "127.0.0.1", "-p", port, *believed, *command]

    def test_passed_by_name(self, plane, authority):
        """Each name has its Redis, which ends TLS itself."""
        with (
            Redis(tls=authority.issue(ONE, "127.0.0.1")) as one,
            Redis(tls=authority.issue(TWO, "127.0.0.1")) as two,
            shared(
                plane,
                one={"backends": [one.address], "match": {"sni": [ONE]}},
                two={"backends": [two.address], "match": {"sni": [TWO]}},
            ) as services,
        ):
            for name in (ONE, TWO):
                assert run(self.cli(services.address, authority, name, "SET", "name", name)) == "OK\n"
            for name in (ONE, TWO):
                assert run(self.cli(services.address, authority, name, "GET", "name")) == f"{name}\n"

    @pytest.mark.parametrize("pool", ["off", "preconnect", "reuse"])
    def test_ended_here(self, plane, authority, pool):
        """TLS ends here, and the same Redis serves all, from each kind of pool."""
        tls = {"certificates": [authority.issue(ONE, "127.0.0.1").spec]}
        with Redis() as redis, through(plane, redis.address, tls=tls, pool={"mode": pool}) as service:
            for number in range(10):
                text = str(number)
                assert run(self.cli(service.address, authority, ONE, "SET", f"key{text}", text)) == "OK\n"
                assert run(self.cli(service.address, authority, ONE, "GET", f"key{text}")) == f"{text}\n"
            status = service.wait(lambda now: now["active"] == 0)
            # redis-cli leaves without a close_notify, which is a truncation
            assert set(status["totals"]["closed"]) <= ENDED | {"client_reset"}

    def test_both(self, plane, authority):
        """TLS ends here and begins anew: the certificate that the client believes is ours, and ours to check is Redis's."""
        with (
            Redis(tls=authority.issue("redis.internal")) as redis,
            through(
                plane,
                redis.address,
                tls={"certificates": [authority.issue(ONE, "127.0.0.1").spec]},
                backend_tls={"ca": str(authority.ca), "server_name": "redis.internal"},
            ) as service,
        ):
            long = "x" * 100_000
            assert run(self.cli(service.address, authority, ONE, "SET", "key", long)) == "OK\n"
            assert run(self.cli(service.address, authority, ONE, "GET", "key")) == f"{long}\n"


@pytest.mark.needs("mosquitto", "mosquitto_pub", "mosquitto_sub")
class TestMqtt:
    """Mosquitto's clients and broker."""

    def options(self, address, authority):
        """Return what both clients are told."""
        port = address.rpartition(":")[2]
        return ["-h", "localhost", "-p", port, "--cafile", str(authority.ca), "-t", "news", "-q", "1"]

    def heard(self, address, authority):
        """Publish a retained message, and return what somebody hears who comes later."""
        said = self.options(address, authority)
        run([require("mosquitto_pub"), *said, "-r", "-m", "hello"])
        return run([require("mosquitto_sub"), *said, "-C", "1"])

    def test_ended_here(self, plane, authority):
        """The broker speaks plain, its clients TLS."""
        tls = {"certificates": [authority.issue("localhost").spec]}
        with Mosquitto() as broker, through(plane, broker.address, tls=tls) as service:
            assert self.heard(service.address, authority) == "hello\n"

    def test_certificates_of_clients(self, plane, authority):
        """A device without a certificate is not let in; one with it is."""
        own = authority.issue("device-7.example.com")
        tls = {"certificates": [authority.issue("localhost").spec], "client_ca": str(authority.ca)}
        with Mosquitto() as broker, through(plane, broker.address, tls=tls) as service:
            said = [require("mosquitto_pub"), *self.options(service.address, authority), "-m", "hello"]
            run(said, fails="Error")
            service.wait_closed(tls_failed=1)
            run([*said, "--cert", str(own.cert), "--key", str(own.key)])
            status = service.wait(lambda now: sum(now["totals"]["closed"].values()) == 2)
            assert set(status["totals"]["closed"]) - ENDED == {"tls_failed"}

    def test_passed_by_name(self, plane, authority):
        """The broker ends TLS itself."""
        pair = authority.issue("localhost")
        lines = [f"certfile {pair.cert}", f"keyfile {pair.key}"]
        with (
            Mosquitto(lines) as broker,
            shared(
                plane,
                mqtt={"backends": [broker.address], "match": {"sni": ["localhost"]}},
                web={"backends": ["127.0.0.1:1"], "match": {"sni": [ONE]}},
            ) as services,
        ):
            assert self.heard(services.address, authority) == "hello\n"
