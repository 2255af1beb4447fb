"""The real programs start, answer, and are gone afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.process import Program, answers
from tests.support.programs import Haproxy, Mosquitto, Nginx, Postgres, Redis, require
from tests.support.tls import CertificateAuthority
from tests.support.wait import wait_for


@pytest.mark.needs("redis-server")
def test_redis():
    """Redis answers a PING, and nobody does after the end."""
    with Redis() as redis:
        assert ask(redis.address, b"PING\r\n") == b"+PONG\r\n"
    assert not answers(redis.address)


@pytest.mark.needs("haproxy")
def test_haproxy():
    """HAProxy relays to a backend of ours."""
    with LineServer("one") as server, Haproxy([server.address]) as haproxy:
        assert ask(haproxy.address) == b"one:hello\n"


@pytest.mark.needs("nginx")
def test_nginx():
    """Nginx answers a request."""
    with Nginx('return 200 "one";') as nginx:
        assert ask(nginx.address, b"GET / HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\none")


@pytest.mark.needs("postgres", "initdb", "psql")
def test_postgres():
    """PostgreSQL takes a query, stops with a client connected, and comes back on its port."""
    with Postgres() as postgres:
        url = f"postgresql://postgres@{postgres.address}/postgres"
        for _ in range(2):
            done = subprocess.run(
                [require("psql"), "-Atc", "select 6 * 7", url], capture_output=True, check=True, text=True
            )
            assert done.stdout == "42\n"
            postgres.stop()
            postgres.start()


@pytest.mark.needs("redis-server", "redis-cli")
def test_redis_over_tls(tmp_path):
    """Redis answers a PING over TLS to who trusts its authority, and nobody without TLS."""
    authority = CertificateAuthority(tmp_path)
    with Redis(tls=authority.issue("127.0.0.1")) as redis:
        ping = [require("redis-cli"), "-p", str(redis.port)]
        done = subprocess.run(
            [*ping, "--tls", "--cacert", str(authority.ca), "PING"], capture_output=True, check=True
        )
        assert done.stdout == b"PONG\n"
        assert b"PONG" not in subprocess.run([*ping, "PING"], capture_output=True, check=False).stdout


@pytest.mark.needs("postgres", "initdb", "psql")
def test_postgres_over_tls(tmp_path):
    """PostgreSQL shows the certificate that it was given."""
    authority = CertificateAuthority(tmp_path)
    with Postgres(tls=authority.issue("127.0.0.1")) as postgres:
        url = f"postgresql://postgres@{postgres.address}/postgres?sslmode=verify-full&sslrootcert={authority.ca}"
        query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        done = subprocess.run(
            [require("psql"), "-Atc", query, url], capture_output=True, check=True, text=True
        )
        assert done.stdout == "t\n"


@pytest.mark.needs("mosquitto", "mosquitto_pub", "mosquitto_sub")
def test_mosquitto():
    """Mosquitto keeps a retained message for who comes later."""
    with Mosquitto() as broker:
        at = ["-h", "127.0.0.1", "-p", str(broker.port), "-t", "a"]
        subprocess.run([require("mosquitto_pub"), *at, "-r", "-m", "b"], check=True)
        done = subprocess.run([require("mosquitto_sub"), *at, "-C", "1"], check=True, capture_output=True)
        assert done.stdout == b"b\n"


class Never(Program):
    """A program that does not get ready."""

    def ready(self):
        """Say no."""
        return False


def test_program_that_dies_shows_its_output():
    """A program that ends instead of getting ready fails the test with what it said."""
    with pytest.raises(AssertionError, match="what a pity"):
        Never(["sh", "-c", "echo what a pity; exit 3"]).__enter__()


def test_children_are_ended():
    """What a program leaves running in its process group is ended with it."""
    with Program(["sh", "-c", "sleep 1000 & echo $!; wait"]) as program:
        wait_for(lambda: program.output.strip().isdigit(), "the child's id")
        child = Path(f"/proc/{int(program.output)}/stat")
        assert child.exists()

    def gone():
        try:
            return child.read_text().rpartition(")")[2].split()[0] == "Z"
        except FileNotFoundError:
            return True

    wait_for(gone, "the child's end")


def test_a_run_says_why_tests_were_skipped():
    """The last lines name each reason, with the number of its tests."""
    root = Path(__file__).resolve().parents[2]
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/tools/test_bench.py"]
    environment = {**os.environ, "PATH": "", "CI": "", "PYTEST_ADDOPTS": ""}
    done = subprocess.run(argv, cwd=root, env=environment, check=False, capture_output=True, text=True)
    *_, why, summary = done.stdout.splitlines()
    count = int(why.split()[0])
    assert why == f"{count} skipped: cc is missing; it comes with gcc and libc6-dev"
    assert summary.startswith(f"{count} skipped")
