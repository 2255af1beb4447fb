"""The real programs start, answer, and are gone afterwards."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.process import Program, answers
from tests.support.programs import Haproxy, Nginx, Postgres, Redis, require
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
