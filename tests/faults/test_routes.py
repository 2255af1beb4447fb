"""Several services on one listener, each client routed by the name that it asks for: with real programs, and while things happen."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import dial, read_exactly
from tests.support.dataplane import DataPlane
from tests.support.hellos import real_hello
from tests.support.openssl import SClient, SServer
from tests.support.ports import HeldPort
from tests.support.tls import CertificateAuthority
from tests.support.wait import DEADLINE_S

QUIET: dict[str, Any] = {"pool": {"mode": "off"}, "health": {"active": {"type": "none"}}}
SILENT = {"1": 5_000, "2": 10_000}
"""By the number of workers: each may have half as many clients as it has descriptors, of which there are 20,000 nearly everywhere."""


class Named(socketserver.ThreadingTCPServer):
    """Ends TLS, says its own name to each client, and stays until the client goes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, name: bytes, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Saying)
        self.name = name
        self.context = context
        self.address = "{}:{}".format(*self.server_address[:2])
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        self.shutdown()
        self.server_close()


class _Saying(socketserver.BaseRequestHandler):
    server: Named

    def handle(self) -> None:
        self.request.settimeout(DEADLINE_S)
        try:
            with self.server.context.wrap_socket(self.request, server_side=True) as sock:
                sock.sendall(self.server.name)
                while data := sock.recv(1024):
                    sock.sendall(data)
        except OSError:
            pass  # the client has gone


class Site:
    """A data plane, two services on one listener, and a server of certificates for both names behind each."""

    def __init__(self, stack: ExitStack, folder: Path, *arguments: str) -> None:
        self.stack = stack
        self.ca = CertificateAuthority(folder)
        self.pair = self.ca.issue("a.example", "b.example", "*.c.example")
        context = self.ca.server_context(self.pair)
        self.one, self.two = Named(b"one", context), Named(b"two", context)
        stack.callback(self.one.close)
        stack.callback(self.two.close)
        self.port = stack.enter_context(HeldPort())
        self.plane = stack.enter_context(DataPlane(arguments))

    def service(self, backend: str, *names: str, **options: Any) -> dict[str, Any]:
        """Return a service for clients who ask for these names; none: for all others."""
        match = {"match": {"sni": list(names)}} if names else {}
        return {"listen": self.port.address, "backends": [backend], **QUIET, **match, **options}

    def ask(self, name: str) -> tuple[ssl.SSLSocket, bytes]:
        """Connect a client that asks for `name` and believes only its certificate; return it, and who has answered."""
        sock = self.stack.enter_context(dial(self.port.address))
        client = self.stack.enter_context(self.ca.client_context().wrap_socket(sock, server_hostname=name))
        return client, client.recv(3)


@pytest.fixture
def site(workers: str, tmp_path: Path) -> Iterator[Site]:
    """A data plane of each kind."""
    with ExitStack() as stack:
        yield Site(stack, tmp_path, "--workers", workers)


def test_openssl_on_both_sides(site: Site) -> None:
    """Each client meets the certificate of the name that it asks for; who asks for another is closed, with a reason."""
    pairs = [site.ca.issue(name) for name in ("a.example", "www.c.example")]
    servers = [site.stack.enter_context(SServer(pair)) for pair in pairs]
    site.plane.put_snapshot(
        {
            "a": site.service(servers[0].address, "a.example"),
            "c": site.service(servers[1].address, "*.c.example"),
        }
    )
    for name in ("a.example", "www.c.example", "a.example"):
        with SClient(site.port.address, site.ca.ca, name=name) as client:
            assert "Verification: OK" in client.say("hello", "olleh")
            client.quit()
    for name in ("x.example", "a.b.c.example", None):
        with SClient(site.port.address, site.ca.ca, name=name) as client:
            client.wait_end()
            assert client.returncode != 0
    status = site.plane.wait_status(
        lambda now: (
            now["services"]["a"]["totals"]["closed"].get("no_route") == 3
            and now["services"]["c"]["totals"]["connections"] == 1
        )
    )
    assert status["services"]["a"]["totals"]["connections"] == 2 + 3
    listeners = {name: one["listeners"] for name, one in status["services"].items()}
    assert {name: [one["accepted"] for one in each] for name, each in listeners.items()} == {
        "a": [5],
        "c": [1],
    }


def test_in_slices_of_one_byte(site: Site) -> None:
    """A whole handshake, every byte of the client's in a segment of its own."""
    site.plane.put_snapshot(
        {"a": site.service(site.one.address, "a.example"), "b": site.service(site.two.address, "b.example")}
    )
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = site.ca.client_context().wrap_bio(incoming, outgoing, server_hostname="b.example")
    with dial(site.port.address) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            try:
                answer = client.read(3)
            except ssl.SSLWantReadError:
                for octet in outgoing.read():
                    sock.sendall(bytes([octet]))
                incoming.write(sock.recv(65536))
            else:
                break
        assert answer == b"two"


def test_ten_thousand_silent_clients_are_in_nobody_s_way(site: Site, workers: str) -> None:
    """Half of them have begun a ClientHello; one who speaks is served, and so it is with a change of routes."""
    patient = {"timeouts": {"client_hello": "600s"}}
    services = {
        "a": site.service(site.one.address, "a.example", **patient),
        "b": site.service(site.two.address, "b.example", **patient),
    }
    site.plane.put_snapshot(services)
    begun = real_hello("b.example")[:100]
    for index in range(SILENT[workers]):
        silent = site.stack.enter_context(dial(site.port.address))
        if index % 2:
            silent.sendall(begun)
    assert site.ask("b.example")[1] == b"two"
    services["a"], services["b"] = (
        site.service(site.one.address, "b.example", **patient),
        site.service(site.two.address, "a.example", **patient),
    )
    site.plane.put_snapshot(services)
    assert site.ask("b.example")[1] == b"one"


def test_names_move_under_connections(site: Site) -> None:
    """While names move to and fro each client is answered by one of the two, and who is connected stays."""
    there = site.service(site.one.address, "a.example"), site.service(site.two.address, "b.example")
    back = site.service(site.one.address, "b.example"), site.service(site.two.address, "a.example")
    site.plane.put_snapshot({"a": there[0], "b": there[1]})
    client, answer = site.ask("b.example")
    assert answer == b"two"
    failures: list[BaseException] = []
    asked = [0]
    done = threading.Event()

    def keep_asking() -> None:
        try:
            while not done.is_set():
                with ExitStack() as stack:
                    sock = stack.enter_context(dial(site.port.address))
                    wrapped = site.ca.client_context().wrap_socket(sock, server_hostname="b.example")
                    with wrapped:
                        assert wrapped.recv(3) in {b"one", b"two"}
                asked[0] += 1
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            failures.append(error)

    threads = [threading.Thread(target=keep_asking) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        one, two = back if turn % 2 else there
        rest = site.service(site.two.address) if turn % 3 == 0 else None
        site.plane.put_snapshot({"a": one, "b": two, **({"rest": rest} if rest else {})})
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert asked[0]
    client.sendall(b"x")
    assert client.recv(1) == b"x"
    assert site.ask("b.example")[1] == b"one"


def test_a_successor_takes_the_listener_with_its_routes(site: Site, workers: str) -> None:
    """Nobody is lost, and names lead where they did."""
    site.plane.put_snapshot(
        {"a": site.service(site.one.address, "a.example"), "b": site.service(site.two.address, "b.example")}
    )
    before, answer = site.ask("b.example")
    assert answer == b"two"
    successor = DataPlane(["--workers", workers, "--takeover"], runtime_dir=site.plane.runtime_dir)
    successor.state_dir = site.plane.state_dir
    successor._environment["LB_STATE_DIR"] = str(site.plane.state_dir)
    with successor:
        for name, expected in (("a.example", b"one"), ("b.example", b"two")):
            client, answer = site.ask(name)
            assert answer == expected
            client.close()
        before.sendall(b"x")
        assert before.recv(1) == b"x"
        before.close()


def test_workers_hand_over_whom_they_have_routed(tmp_path: Path) -> None:
    """A few long clients are spread evenly over the workers, service by service, and each is counted once."""
    with ExitStack() as stack:
        site = Site(stack, tmp_path, "--workers", "2")
        balanced = {"balance_workers": True}
        site.plane.put_snapshot(
            {
                "a": site.service(site.one.address, "a.example", **balanced),
                "b": site.service(site.two.address, "b.example", **balanced),
            }
        )
        clients = []
        for _ in range(12):
            client, answer = site.ask("b.example")
            assert answer == b"two"
            clients.append(client)
        status = site.plane.wait_status(lambda now: now["services"]["b"]["active"] == len(clients))
        assert [one["active"] for one in status["workers"]] == [6, 6]
        assert status["services"]["b"]["totals"]["connections"] == len(clients)
        assert status["services"]["a"]["totals"]["connections"] == 0
        assert sum(one["accepted"] for one in status["services"]["b"]["listeners"]) == len(clients)
        for client in clients:
            client.sendall(b"x")
            assert read_exactly(client, 1) == b"x"
