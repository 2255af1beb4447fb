"""Every way in which a connection can end: the same word in status, metrics and access log."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import pytest

from dataplane.core.reasons import CloseReason, Harm
from tests.dataplane.net.through import QUIET, Through, through
from tests.support.backends import BlackHole, EchoServer, Resetter, Source
from tests.support.clients import dial, read_to_end, read_to_reset, reset, wait_cut
from tests.support.dataplane import DataPlane
from tests.support.hellos import real_hello
from tests.support.ports import HeldPort
from tests.support.tls import CertificateAuthority
from tests.support.wait import wait_for

TRUSTING = {"proxy_protocol": {"accept": "required", "trusted": ["127.0.0.0/8"]}}
HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1111 2222\r\n"


@pytest.fixture(scope="module")
def plane():
    """A data plane that writes an access log."""
    with DataPlane(["--access-log", "access.log"]) as plane:
        yield plane


def lines(plane):
    """Return the access log so far."""
    text = (plane.directory / "access.log").read_text()
    return [json.loads(line) for line in text.splitlines()]


class Case:
    """What a case has to work with: a backend that echoes, and a service to configure."""

    def __init__(self, stack: ExitStack, service: Through) -> None:
        self.stack = stack
        self.service = service
        self.echo = stack.enter_context(EchoServer("echo"))

    def client(self, **options):
        """Connect a client."""
        return self.stack.enter_context(dial(self.service.address, **options))

    def served(self, **options):
        """Connect a client, and wait until it has had an answer."""
        client = self.client(**options)
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        return client

    def refused(self, **options):
        """Connect a client that is closed without a byte."""
        assert self.client(**options).recv(1) == b""


def client_closed(case):
    """The client finishes first."""
    case.service.configure(case.echo.address)
    client = case.served()
    client.shutdown(socket.SHUT_WR)
    assert read_to_end(client) == b""


def backend_closed(case):
    """The backend finishes first."""
    case.service.configure(case.stack.enter_context(Source(data=b"bye")).address)
    client = case.client()
    assert read_to_end(client) == b"bye"
    client.close()


def client_reset(case):
    """The client resets."""
    case.service.configure(case.echo.address)
    reset(case.served())


def backend_reset(case):
    """The backend resets."""
    case.service.configure(case.stack.enter_context(Resetter(after=10)).address)
    client = case.client()
    client.sendall(b"x")
    assert len(read_to_reset(client)) == 10


def client_gone(case):
    """The client resets while its backend is dialled."""
    hole = case.stack.enter_context(BlackHole(full=True))
    case.service.configure(hole.address, timeouts={"connect": "30s"})
    client = case.client()
    case.service.wait(lambda now: now["active"] == 1)
    reset(client)


def abandoned(case):
    """The client finishes while its backend is dialled."""
    hole = case.stack.enter_context(BlackHole(full=True))
    case.service.configure(hole.address, timeouts={"connect": "30s"}, limits={"queue_abandoned": "drop"})
    client = case.client()
    case.service.wait(lambda now: now["active"] == 1)
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""


def idle_timeout(case):
    """Nobody says anything."""
    case.service.configure(case.echo.address, timeouts={"idle": "100ms"})
    case.refused()


def half_closed_timeout(case):
    """The backend finishes, and the client neither speaks nor ends."""
    source = case.stack.enter_context(Source(data=b""))
    case.service.configure(source.address, timeouts={"half_closed": "100ms"})
    client = case.client()
    assert client.recv(1) == b""
    wait_for(lambda: case.service.status()["active"] == 0, "the flow to end")


def lifetime(case):
    """The connection is old."""
    case.service.configure(case.echo.address, timeouts={"lifetime": "100ms"})
    case.refused()


def denied(case):
    """The client's address is denied."""
    case.service.configure(case.echo.address, access={"deny": ["127.0.0.0/8"]})
    case.refused()


def limit_connections(case):
    """The service is full."""
    case.service.configure(case.echo.address, limits={"connections": 1})
    case.served()
    case.refused()


def limit_per_backend(case):
    """Each backend is full."""
    case.service.configure(case.echo.address, limits={"per_backend": 1})
    case.served()
    case.refused()


def limit_per_client(case):
    """The client has too many; another one has not."""
    case.service.configure(case.echo.address, limits={"per_client": 1})
    case.served()
    case.refused()
    case.served(source="127.0.0.2")


def client_rate(case):
    """The client comes too often; another one does not."""
    case.service.configure(case.echo.address, limits={"client_rate": 0.01})
    case.served()
    case.refused()
    case.served(source="127.0.0.2")


def queue_full(case):
    """The service is full, and its queue is, too."""
    case.service.configure(case.echo.address, limits={"connections": 1, "queue": 1, "queue_timeout": "30s"})
    case.served()
    case.client()
    case.service.wait(lambda now: now["queued"] == 1)
    case.refused()


def queue_timeout(case):
    """No place came free in time."""
    case.service.configure(case.echo.address, limits={"connections": 1, "queue": 1, "queue_timeout": "100ms"})
    case.served()
    case.refused()


def no_backend(case):
    """There is nobody."""
    case.service.configure({"address": case.echo.address, "state": "disabled"})
    case.refused()


def connect_failed(case):
    """Everybody refuses."""
    held = [case.stack.enter_context(HeldPort()) for _ in range(2)]
    case.service.configure(*(port.address for port in held))
    case.refused()


def connect_timeout(case):
    """Nobody answers the handshake."""
    hole = case.stack.enter_context(BlackHole(full=True))
    case.service.configure(hole.address, timeouts={"connect": "100ms"})
    case.refused()


def proxy_untrusted(case):
    """A header from who is not trusted."""
    case.service.configure(
        case.echo.address, proxy_protocol={"accept": "required", "trusted": ["192.0.2.0/24"]}
    )
    assert case.client().recv(1) == b""


def proxy_invalid(case):
    """Something else than a header."""
    case.service.configure(case.echo.address, **TRUSTING)
    client = case.client()
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):  # there is unread input
        assert client.recv(1) == b""


def proxy_timeout(case):
    """Half of a header."""
    case.service.configure(case.echo.address, **TRUSTING, timeouts={"proxy_header": "100ms"})
    client = case.client()
    client.sendall(HEADER[:20])
    assert client.recv(1) == b""


def drain_timeout(case):
    """The backend is drained."""
    address = case.echo.address
    drain = {"timeout": "100ms", "close": "0s"}
    case.service.configure(address, drain=drain)
    client = case.served()
    case.service.configure({"address": address, "state": "drain"}, drain=drain)
    wait_cut(client)


BY_NAME = {"match": {"sni": ["a.example"]}}


def no_route(case):
    """The client asks for a name that no service has."""
    case.service.configure(case.echo.address, **BY_NAME)
    client = case.client()
    client.sendall(real_hello("b.example"))
    wait_cut(client)


def not_tls(case):
    """The client does not speak TLS, where it takes a name to be somebody's."""
    case.service.configure(case.echo.address, **BY_NAME)
    client = case.client()
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    wait_cut(client)


def client_hello_timeout(case):
    """The client says nothing, or not enough."""
    case.service.configure(case.echo.address, timeouts={"client_hello": "100ms"}, **BY_NAME)
    client = case.client()
    client.sendall(b"\x16\x03")
    wait_cut(client)


def ending_tls(case):
    """Return options with which the service ends TLS."""
    pair = CertificateAuthority(case.service.plane.directory / "ca").issue("a.example")
    return {"tls": {"certificates": [pair.spec]}}


def tls_failed(case):
    """The client sends something else, where TLS ends."""
    case.service.configure(case.echo.address, **ending_tls(case))
    client = case.client()
    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
    wait_cut(client)


def tls_timeout(case):
    """The client says nothing, where TLS ends."""
    case.service.configure(case.echo.address, timeouts={"tls_handshake": "100ms"}, **ending_tls(case))
    wait_cut(case.client())


def backend_tls_failed(case):
    """The backend answers with something else, where TLS begins: what it was sent."""
    case.service.configure(case.echo.address, backend_tls={"verify": False})
    wait_cut(case.client())


CASES: list[Callable[[Case], None]] = [
    *(client_closed, backend_closed, client_reset, backend_reset, client_gone, abandoned),
    *(idle_timeout, half_closed_timeout, lifetime, denied, limit_connections, limit_per_backend),
    *(limit_per_client, client_rate, queue_full, queue_timeout, no_backend, connect_failed, connect_timeout),
    *(proxy_untrusted, proxy_invalid, proxy_timeout, no_route, not_tls, client_hello_timeout, drain_timeout),
    *(tls_failed, tls_timeout, backend_tls_failed),
]
ELSEWHERE = {"shutdown", "local_error"}
"""Below, and in tests/dataplane/net/test_flow.py."""


def test_all_of_them():
    """There is a case for every reason."""
    assert {case.__name__ for case in CASES} | ELSEWHERE == {reason.value for reason in CloseReason}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_reason(plane, case):
    """The word is in status, in the metrics and in the access log, and nothing of the connection is left."""
    name = case.__name__
    with through(plane) as service, ExitStack() as stack:
        case(Case(stack, service))
        status = service.wait(lambda now: now["totals"]["closed"].get(name))
        assert status["totals"]["closed"][name] == 1
        harm = CloseReason(name).harm
        for how in Harm:
            assert status["recent"][how.value].get(name, 0) == (harm is how)
        assert status["recent"]["connections"] == status["totals"]["connections"]
        value = plane.metrics().value("lb_connections_closed_total", service=service.name, reason=name)
        assert value == 1
        ours = wait_for(partial(logged, plane, service, name), "a line in the access log")
        assert len(ours) == 1
        check_line(ours[0], name)
        stack.close()
        service.wait(lambda now: now["active"] == 0)
        service.wait(lambda now: sum(now["totals"]["closed"].values()) == now["totals"]["connections"])
        assert all(backend["active"] == 0 for backend in service.status()["backends"])


def logged(plane, service, reason):
    """Return a service's lines with this reason."""
    return [line for line in lines(plane) if (line["service"], line["reason"]) == (service.name, reason)]


def check_line(line, reason):
    """Assert what holds for every line."""
    assert line["source"] == CloseReason(reason).source.value
    assert line["client"].startswith("127.0.0.1:")
    assert line["total_ms"] >= line["queue_ms"] >= 0
    answered = reason in {"client_closed", "backend_closed", "client_reset", "backend_reset", "drain_timeout"}
    assert line["first_byte"] is answered
    assert (line["bytes_out"] > 0) is answered
    assert (line["first_byte_ms"] is not None) is answered
    if answered:
        assert line["connect_ms"] >= 0
        assert line["backend"]
    if reason in {"denied", "proxy_untrusted", "proxy_invalid", "no_backend"}:
        assert line["backend"] is None
        assert line["connect_ms"] is None
    if reason == "connect_failed":
        assert line["retries"] >= 1


def test_clients_in_the_access_log(plane):
    """IPv6 clients have brackets, clients of Unix sockets are called so, and those behind a proxy by what it says."""
    with EchoServer() as echo, HeldPort("::1") as six, through(plane) as service, ExitStack() as stack:
        unix = f"unix:{plane.directory}/front.sock"
        service.configure(echo.address, listen=[service.address, six.address, unix])
        names = []
        for address in (service.address, six.address, unix):
            client = stack.enter_context(dial(address))
            client.shutdown(socket.SHUT_WR)
            assert read_to_end(client) == b""
            name = client.getsockname()
            names.append("unix" if address == unix else address.rpartition(":")[0] + f":{name[1]}")
        service.configure(echo.address, **TRUSTING)
        client = stack.enter_context(dial(service.address))
        client.sendall(HEADER)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""
        names.append("192.0.2.1:1111")
        logged = wait_for(
            lambda: [ours for ours in [lines_of(plane, service)] if len(ours) == len(names)], "the lines"
        )
        assert [line["client"] for line in logged[0]] == names


def lines_of(plane, service):
    """Return a service's lines."""
    return [line for line in lines(plane) if line["service"] == service.name]


def test_shutdown():
    """The reason of those who are cut when the process ends is in the access log, which is written to the end."""
    with EchoServer() as echo, HeldPort() as port, DataPlane(["--access-log", "access.log"]) as plane:
        drain = {"timeout": "100ms", "close": "0s"}
        plane.put_snapshot(
            {"s": {"listen": port.address, "backends": [echo.address], "drain": drain, **QUIET}}
        )
        with dial(port.address) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            plane.send_signal(signal.SIGTERM)
            wait_cut(client)
        assert plane.wait() == 0
        (line,) = lines(plane)
        assert (line["reason"], line["source"]) == ("shutdown", "local")
        assert (line["bytes_in"], line["bytes_out"], line["backend"]) == (1, 1, echo.address)
