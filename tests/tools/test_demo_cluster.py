"""`make demo-cluster` shows what it promises, ends by itself, and leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.namespaces import needs_namespaces
from tests.support.process import Program
from tests.support.wait import wait_for
from tools import demo_network
from tools.demo_network import Door, Namespace, Router, missing
from tools.demo_parts import DemoError

COMMAND = [sys.executable, "-m", "tools.demo_cluster"]


def left_behind(directory):
    """Return the processes that have a folder in their environment or command line."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            text = (each / "environ").read_bytes() + (each / "cmdline").read_bytes()
        except OSError:
            continue
        if directory.encode() in text:
            found.append(each.name)
    return found


@needs_namespaces
@pytest.mark.needs("consul")
@pytest.mark.timeout(600)
def test_shows_all_steps():
    """A canary goes, one is taken back, a node is drained and one is killed; clients fail only where that is said."""
    with Program(COMMAND) as program:
        status = program.wait(580)
        assert status == 0, program.output
        said = program.output
    for step in (
        "Three nodes announce",
        "It is on every node.",
        "It was taken back; only clients of n2 met it.",
        "n2 has no clients, and could be switched off.",
        "Every process of n3 was killed",
        "The end.",
    ):
        assert step in said
    served, failed = re.search(r"The end\. (\d+) clients were served, (\d+) failed\.", said).groups()
    assert int(served) > 500
    assert int(failed) < int(served) / 2


@needs_namespaces
@pytest.mark.needs("consul")
@pytest.mark.timeout(240)
def test_ctrl_c_leaves_nothing():
    """Interrupted with everything running, it ends every process and removes its folder."""
    with Program(COMMAND, stop_signal=signal.SIGINT) as program:
        wait_for(lambda: "The page of n1" in program.output, "everything to run", deadline_s=150)
        directory = next(
            match[1]
            for each in Path("/proc").glob("[0-9]*/environ")
            if f"PPid:\t{program.pid}" in (each.parent / "status").read_text()
            and (match := re.search(rb"LB_RUNTIME_DIR=(/[^\0]*)/n1", each.read_bytes()))
        ).decode()
        assert left_behind(directory)
        assert program.stop() == 1
        assert not Path(directory).exists()
        assert left_behind(directory) == []


def test_says_what_is_missing(monkeypatch):
    """Without root, or without a program that makes namespaces, a sentence says so."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert missing().startswith("root is missing")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(demo_network.shutil, "which", lambda _: None)
    assert missing() == "the program ip is missing: install iproute2"


@needs_namespaces
def test_a_namespace_is_a_machine():
    """What listens on its loopback is reached through a door, and by nobody else; a wrong word of `ip` is told."""
    with ExitStack() as stack:
        there = Namespace("there", stack)
        with there.entered():
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]
        assert there.answers("127.0.0.1", port)
        server.accept()[0].close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        door = Door(there, port, stack)
        door.start()
        with socket.create_connection(("127.0.0.1", door.port), timeout=5) as client:
            client.sendall(b"hello")
            with server.accept()[0] as inside:
                assert inside.recv(100) == b"hello"
                inside.sendall(b"yes")
            assert client.recv(100) == b"yes"
            assert client.recv(100) == b""
        with pytest.raises(DemoError, match="there: ip link set nothing up"):
            there.ip("link set nothing up")


@needs_namespaces
def test_the_router_follows_what_is_announced():
    """Nodes with the least MED get connections; one that withdraws, or whose pipe ends, gets none."""
    with ExitStack() as stack:
        network = Namespace("router", stack)
        for number in (1, 2):
            network.ip(f"link add v{number} type veth peer name w{number}")
            network.ip(f"link set w{number} up")
            network.ip(f"address add 10.77.{number}.1/24 dev v{number}")
            network.ip(f"link set v{number} up")
        router = Router(network, "192.0.2.10/32")
        pipes = []
        for number in (1, 2):
            reading, writing = os.pipe()
            pipes.append(stack.enter_context(os.fdopen(writing, "wb", buffering=0)))
            router.listen(os.fdopen(reading, "rb"), f"10.77.{number}.2")
        one, other = pipes

        def routes():
            shown = network.within("ip", "route", "show", "192.0.2.10")
            return subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()

        one.write(b"announce route 192.0.2.10/32 next-hop 10.77.1.2\n")
        other.write(b"announce route 192.0.2.10/32 next-hop 10.77.2.2 med 0\n")
        wait_for(lambda: router.used == ("10.77.1.2", "10.77.2.2"), "both")
        assert {"10.77.1.2", "10.77.2.2"} < set(routes())
        one.write(b"announce route 192.0.2.10/32 next-hop 10.77.1.2 med 1000\n")
        wait_for(lambda: router.used == ("10.77.2.2",), "the second alone")
        assert "10.77.1.2" not in routes()
        other.write(b"withdraw route 192.0.2.10/32 next-hop 10.77.2.2\n")
        wait_for(lambda: router.used == ("10.77.1.2",), "the first, for want of a better")
        one.close()
        wait_for(lambda: not router.used, "nobody")
        assert routes() == []
