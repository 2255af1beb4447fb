"""PROXY headers in both directions: what a backend is told, and who is believed."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path

import pytest

from dataplane.core.proxy_protocol.decode import decode
from dataplane.core.proxy_protocol.header import NEED_DATA
from dataplane.core.proxy_protocol.v1 import encode_v1
from dataplane.core.proxy_protocol.v2 import encode_v2
from tests.dataplane.net.through import QUIET, through
from tests.support.backends import LineServer, Recorder
from tests.support.clients import ask, dial, read_exactly
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

SOURCE, DESTINATION = ("192.0.2.1", 1111), ("198.51.100.2", 2222)
V1 = encode_v1(SOURCE, DESTINATION)
V2 = encode_v2(SOURCE, DESTINATION)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
UNKNOWN = b"PROXY UNKNOWN\r\n"
TRUSTING = {"accept": "required", "trusted": ["127.0.0.0/8"]}


@pytest.fixture(scope="module")
def plane():
    """One data plane for all of these tests."""
    with DataPlane() as plane:
        yield plane


@pytest.fixture
def backend():
    """A server that keeps what it gets."""
    with Recorder() as backend:
        yield backend


def received(backend, size, stream=0):
    """Wait for a header and `size` bytes behind it; return the endpoints that it carries, and those bytes."""

    def whole():
        if len(backend.streams) <= stream:
            return None
        result = decode(bytes(backend.streams[stream]))
        if result is NEED_DATA or len(backend.streams[stream]) < result[1] + size:
            return None
        return result

    backend.wait_until(whole, f"a header and {size} bytes")
    header, used = whole()
    ends = header.endpoints
    return (ends.source, ends.destination) if ends else None, bytes(backend.streams[stream][used:])


class TestSend:
    """The header is first, once, and tells the truth."""

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_real_addresses(self, plane, backend, version):
        """The client's own address and port, and those that it connected to."""
        with (
            through(plane, backend.address, proxy_protocol={"send": version}) as service,
            dial(service.address, source="127.0.0.9") as client,
        ):
            client.sendall(b"hello")
            ends, rest = received(backend, 5)
            assert ends == (client.getsockname(), client.getpeername())
            assert rest == b"hello"
            client.sendall(b" again")
            assert received(backend, 11) == (ends, b"hello again")

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_before_the_client_speaks(self, plane, backend, version):
        """The header goes out at once, so that a backend that greets first is not kept waiting."""
        with (
            through(plane, backend.address, proxy_protocol={"send": version}) as service,
            dial(service.address),
        ):
            received(backend, 0)

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_ipv6(self, plane, backend, version):
        """IPv6 clients keep their addresses, whatever the backend's family is."""
        with HeldPort("::1") as port, through(plane) as service:
            service.configure(backend.address, listen=port.address, proxy_protocol={"send": version})
            with dial(port.address) as client:
                client.sendall(b"x")
                assert received(backend, 1) == ((client.getsockname()[:2], ("::1", port.port)), b"x")

    @pytest.mark.parametrize("version", ["v1", "v2"])
    def test_unix_clients(self, plane, backend, version):
        """A client without an IP address is UNKNOWN, or LOCAL."""
        path = plane.directory / "front.sock"
        with through(plane) as service:
            service.configure(backend.address, listen=f"unix:{path}", proxy_protocol={"send": version})
            with dial(f"unix:{path}") as client:
                client.sendall(b"hello")
                assert received(backend, 5) == (None, b"hello")

    def test_on_a_pooled_connection(self, plane, backend):
        """A preconnected connection gets its header when its client comes, and not before."""
        pool = {"mode": "preconnect", "min_idle": 2}
        with through(plane, backend.address, proxy_protocol={"send": "v2"}, pool=pool) as service:
            service.wait(lambda now: now["backends"][0]["pooled"] == 2)
            assert not any(backend.streams)
            with dial(service.address) as client:
                client.sendall(b"hello")
                backend.wait_until(lambda: any(backend.streams))
                (used,) = [index for index, stream in enumerate(backend.streams) if stream]
                ends = (client.getsockname(), client.getpeername())
                assert received(backend, 5, stream=used) == (ends, b"hello")


class TestAccept:
    """A header from who is trusted, whole, and nothing else."""

    @pytest.mark.parametrize("header", [V1, V2])
    def test_what_it_carries(self, plane, header):
        """The carried address decides about access, limits and sticky, and is sent on."""
        with Recorder() as backend, through(plane) as service:
            service.configure(
                backend.address,
                proxy_protocol={**TRUSTING, "send": "v1"},
                access={"allow": ["192.0.2.0/24"]},
                limits={"per_client": 1},
            )
            with dial(service.address) as client:
                client.sendall(header + b"hello")
                backend.wait_received(V1 + b"hello")
                with dial(service.address) as second:
                    second.sendall(header)
                    assert closed(second)
            assert service.status()["totals"]["closed"]["limit_per_client"] == 1
            with dial(service.address) as foreign:
                foreign.sendall(encode_v1(("203.0.113.1", 1), DESTINATION))
                assert closed(foreign)
            assert service.status()["totals"]["closed"]["denied"] == 1

    @pytest.mark.parametrize("header", [V1, V2, LOCAL, UNKNOWN])
    @pytest.mark.parametrize("cut", ["whole", "bytes", "middle"])
    def test_however_it_is_cut(self, plane, header, cut):
        """A header in any pieces is taken out, and not a byte of what follows it is lost or doubled."""
        pieces = {
            "whole": [header + b"hello"],
            "bytes": [bytes([byte]) for byte in header] + [b"hello"],
            "middle": [header[: len(header) // 2], header[len(header) // 2 :] + b"he", b"llo"],
        }[cut]
        with Recorder() as backend, through(plane) as service:
            service.configure(backend.address, proxy_protocol=TRUSTING)
            with dial(service.address) as client:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    client.sendall(piece)
                backend.wait_received(b"hello")

    def test_a_large_payload_behind_it(self, plane):
        """What comes in the same segment as the header arrives complete, however much it is."""
        payload = bytes(range(256)) * 1000
        with Recorder() as backend, through(plane) as service:
            service.configure(backend.address, proxy_protocol=TRUSTING)
            with dial(service.address) as client:
                client.sendall(V2 + payload)
                backend.wait_received(payload)

    @pytest.mark.parametrize("header", [LOCAL, UNKNOWN])
    def test_nothing_carried(self, plane, header):
        """After LOCAL or UNKNOWN the real addresses count."""
        with Recorder() as backend, through(plane) as service:
            service.configure(
                backend.address,
                proxy_protocol={**TRUSTING, "send": "v2"},
                access={"allow": ["127.0.0.0/8"]},
            )
            with dial(service.address) as client:
                client.sendall(header + b"hello")
                assert received(backend, 5) == ((client.getsockname(), client.getpeername()), b"hello")

    @pytest.mark.parametrize(
        "sent",
        [
            b"GET / HTTP/1.1\r\n\r\n",
            b"PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\nhello",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\nhello",
            b"PROXY TCP5 192.0.2.1 198.51.100.2 1 2\r\nhello",
            b"proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\nhello",
            b"PROXY " + b"x" * 200,
            V2[:12] + b"\x31" + V2[13:],
            V2[:12] + b"\x22" + V2[13:],
            b"\r\n\r\n\0\r\nQUIX" + b"\0" * 40,
            b"\0",
        ],
    )
    def test_anything_else(self, plane, backend, sent):
        """Whatever is no header closes the connection, and the backend sees neither it nor a connection."""
        with through(plane, backend.address, proxy_protocol=TRUSTING) as service:
            with dial(service.address) as client:
                client.sendall(sent)
                assert closed(client)
            service.wait_closed(proxy_invalid=1)
            assert backend.accepted == 0

    def test_half_of_it_and_a_fin(self, plane, backend):
        """A peer that leaves before its header is complete is closed at once."""
        with through(plane, backend.address, proxy_protocol=TRUSTING) as service:
            with dial(service.address) as client:
                client.sendall(V1[:20])
                client.shutdown(socket.SHUT_WR)
                assert closed(client)
            service.wait_closed(proxy_invalid=1)
            assert backend.accepted == 0

    def test_too_slowly(self, plane, backend):
        """The deadline holds for the whole header: a byte now and then does not move it."""
        with through(plane) as service:
            service.configure(backend.address, proxy_protocol=TRUSTING, timeouts={"proxy_header": "300ms"})
            with dial(service.address) as client:
                client.settimeout(0.05)
                for byte in V1 * 10:
                    try:
                        client.sendall(bytes([byte]))
                        assert client.recv(1) == b""
                        break
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        break
            service.wait_closed(proxy_timeout=1)
            assert backend.accepted == 0

    def test_who_is_not_trusted(self, plane, backend):
        """A header from elsewhere closes the connection, however right it is."""
        with through(
            plane, backend.address, proxy_protocol={**TRUSTING, "trusted": ["127.0.0.2/32"]}
        ) as service:
            with dial(service.address) as client:
                with contextlib.suppress(ConnectionError):
                    client.sendall(V1 + b"hello")
                assert closed(client)
            service.wait_closed(proxy_untrusted=1)
            assert backend.accepted == 0
            with dial(service.address, source="127.0.0.2") as client:
                client.sendall(V1 + b"hello")
                backend.wait_received(b"hello")

    def test_it_costs_nothing_while_it_waits(self, plane, backend):
        """A hundred half headers wait without spinning, and everybody else is served meanwhile."""
        with (
            LineServer("one") as one,
            through(plane) as service,
            HeldPort() as port,
            contextlib.ExitStack() as stack,
        ):
            options = {"listen": port.address, "backends": [one.address], **QUIET}
            waiting = {**service.options, "backends": [backend.address], "proxy_protocol": TRUSTING}
            plane.put_snapshot({service.name: waiting, "other": options})
            for _ in range(100):
                stack.enter_context(dial(service.address)).sendall(V2[:15])
            service.wait(lambda now: now["totals"]["connections"] == 100)
            before, since = cpu_seconds(plane.pid), time.monotonic()
            for _ in range(50):
                assert ask(port.address) == b"one:hello\n"
            wait_for(lambda: time.monotonic() - since > 0.5, "half a second")
            assert cpu_seconds(plane.pid) - before < 0.3
            assert service.status()["totals"]["closed"] == {}


def cpu_seconds(pid):
    """Return what a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def closed(sock):
    """Return whether a connection ends without a byte, by a FIN or (there is unread input) a reset."""
    try:
        return read_exactly(sock, 1) == b""
    except ConnectionResetError:
        return True
