"""TLS to backends, with a real data plane and real servers: who is verified, who is retried, what checks find."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.tls_ends import Certificates
from tests.support.tls_server import TlsLineServer
from tests.support.wait import DEADLINE_S, wait_for


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Return what backends have, and the data plane trusts."""
    return Certificates(tmp_path_factory.mktemp("tls"))


class Site:
    """A data plane with one service, whose backends have TLS."""

    def __init__(self, stack: ExitStack, certificates: Certificates, *arguments: str) -> None:
        self._stack = stack
        self.ca = str(certificates.authority.ca)
        self.plane = stack.enter_context(DataPlane(arguments))
        self.port = stack.enter_context(HeldPort())

    def backend(self, name: str, *arguments: Any, **options: Any) -> TlsLineServer:
        """Start one."""
        return self._stack.enter_context(TlsLineServer(name, *arguments, **options))

    def configure(self, *backends: TlsLineServer, **options: Any) -> None:
        """Put a snapshot; without pool, checks and ejections if nothing else is said."""
        service = {
            "listen": f"127.0.0.1:{self.port.port}",
            "backends": [{"id": one.name, "address": one.address} for one in backends],
            "backend_tls": {"ca": self.ca},
            "pool": {"mode": "off"},
            "health": {"active": {"type": "none"}, "passive": {"failures": 0}},
            **options,
        }
        self.plane.put_snapshot({"web": service})

    def ask(self, text: bytes = b"x") -> bytes:
        """Return the answer to a line, or nothing if the connection ends: what was sent is unread then, which is a reset."""
        with socket.create_connection(("127.0.0.1", self.port.port), DEADLINE_S) as client:
            client.sendall(text + b"\n")
            with client.makefile("rb") as lines, contextlib.suppress(ConnectionResetError):
                return lines.readline()
        return b""

    def closed(self) -> dict[str, int]:
        """Return how connections ended so far, those above zero."""
        counts = self.plane.status()["services"]["web"]["totals"]["closed"]
        return {reason: count for reason, count in counts.items() if count}


@pytest.fixture(params=[(), ("--workers", "2")], ids=["single", "workers"])
def site(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Site]:
    """Run one, in both forms."""
    with ExitStack() as stack:
        yield Site(stack, certificates, *request.param)


def test_clients_are_served_and_sessions_resumed(site: Site, certificates: Certificates) -> None:
    """A client of plain TCP gets what is inside, and metrics tell of the handshakes."""
    one = site.backend("one", certificates.server())
    site.configure(one)
    assert {site.ask() for _ in range(8)} == {b"one:x\n"}
    assert one.resumed >= 6  # of each worker the first is a whole one
    metrics = site.plane.metrics()
    assert sum(metrics.values("lb_backend_tls_handshakes_total", backend="one")) == 8


def test_a_wrong_name_is_retried_elsewhere(site: Site, certificates: Certificates) -> None:
    """As a failed connect; with nobody else, the reason is a word of its own."""
    bad, good = (
        site.backend("bad", certificates.server("other.example")),
        site.backend("good", certificates.server()),
    )
    site.configure(bad, good, retries=1)
    assert {site.ask() for _ in range(4)} == {b"good:x\n"}
    site.configure(bad, retries=0)
    assert site.ask() == b""
    wait_for(lambda: "backend_tls_failed" in site.closed(), "the reason")
    site.configure(bad, retries=0, backend_tls={"ca": site.ca, "server_name": "other.example"})
    assert site.ask() == b"bad:x\n"
    site.configure(bad, retries=0, backend_tls={"verify": False})
    assert site.ask() == b"bad:x\n"


def test_checks_are_over_tls(site: Site, certificates: Certificates) -> None:
    """They verify as clients' connections do, and say why."""
    bad, good = (
        site.backend("bad", certificates.server("other.example")),
        site.backend("good", certificates.server()),
    )
    for check in ("tcp", "tls"):
        active = {"type": check, "interval": "200ms", "fall": 1, "rise": 1}
        site.configure(bad, good, health={"active": active, "passive": {"failures": 0}})
        site.plane.wait_status(
            lambda status: (
                {one["id"]: one["health"]["state"] for one in status["services"]["web"]["backends"]}
                == {"bad": "down", "good": "up"}
            )
        )
        assert site.plane.backend("web", "bad")["health"]["cause"].startswith("tls: wrong_name: ")


def test_the_handshake_is_done_ahead(site: Site, certificates: Certificates) -> None:
    """And what was made with other settings serves nobody."""
    one = site.backend("one", certificates.server(), greeting=b"220 ready\n")
    pool = {"mode": "preconnect", "min_idle": 2, "greeting_age": "0s"}
    site.configure(one, pool=pool)
    wait_for(lambda: one.handshakes >= 2, "handshakes before anybody comes")
    site.plane.wait_status(lambda status: status["services"]["web"]["backends"][0]["pooled"] >= 2)
    assert site.ask() == b"220 ready\n"
    assert site.plane.backend("web", "one")["totals"]["pool"]["hits"] == 1
    site.configure(one, pool=pool, backend_tls={"ca": site.ca, "server_name": "wrong.example"})
    assert site.ask() == b""
    totals = site.plane.backend("web", "one")["totals"]["pool"]
    assert totals["discarded"]["changed"] >= 2


@pytest.mark.parametrize("ends_here", [True, False])
def test_name_and_protocol_of_the_client_are_passed_on(
    site: Site, certificates: Certificates, *, ends_here: bool
) -> None:
    """Where its TLS ends here, what was agreed on; where it only tells whose it is, what it offers."""
    asked: list[str | None] = []
    context = certificates.server()
    context.sni_callback = lambda _tls, name, _context: asked.append(name)
    context.set_alpn_protocols(["b", "a"])
    one = site.backend("one", context)
    pair = certificates.authority.issue("www.example")
    ended, routed = {"certificates": [pair.spec], "alpn": ["a"]}, {"sni": ["www.example"]}
    known: dict[str, Any] = {"tls": ended} if ends_here else {"match": routed}
    passed = {"ca": site.ca, "pass_sni": True, "pass_alpn": True}
    site.configure(one, backend_tls=passed, **known)
    trusting = certificates.client()
    trusting.set_alpn_protocols(["b", "a"])
    if not ends_here:
        hello = ssl.MemoryBIO()
        client_end = trusting.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="www.example")
        with pytest.raises(ssl.SSLWantReadError):
            client_end.do_handshake()
        with socket.create_connection(("127.0.0.1", site.port.port), DEADLINE_S) as client:
            client.sendall(hello.read() + b"\n")
            with client.makefile("rb") as answer:
                assert answer.read(4) == b"one:"
        assert (asked, one.alpn) == (["www.example"], ["b"])
        return
    with (
        socket.create_connection(("127.0.0.1", site.port.port), DEADLINE_S) as sock,
        trusting.wrap_socket(sock, server_hostname="www.example") as client,
    ):
        client.sendall(b"x\n")
        assert client.recv(100) == b"one:x\n"
        assert client.selected_alpn_protocol() == "a"
    assert (asked, one.alpn) == (["www.example"], ["a"])
