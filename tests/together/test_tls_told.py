"""What operators are told of TLS by real processes: lines, spans, status and metrics of all workers together."""

from __future__ import annotations

import contextlib
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.dataplane.net.through import QUIET
from tests.support.backends import LineServer
from tests.support.clients import dial
from tests.support.collector import Collector
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.tls import CertificateAuthority
from tests.support.tls_server import TlsLineServer
from tests.support.wait import wait_for

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
SESSION = {"version", "cipher", "alpn", "resumed", "handshake_ms", "sni"}


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    """Whom all here trust."""
    return CertificateAuthority(tmp_path / "authority")


def ending(authority: CertificateAuthority, port: HeldPort, *backends: str, **options: Any) -> dict[str, Any]:
    """Return a service that ends TLS of `server.test`, and wants to know who its clients are."""
    tls = {"certificates": [authority.issue("server.test").spec], "client_ca": str(authority.ca)}
    return {
        "listen": port.address,
        "backends": [*backends],
        "tls": {**tls, "alpn": ["echo"]},
        **QUIET,
        **options,
    }


def ask(
    address: str, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> ssl.SSLSession | None:
    """Have one question answered; return what a later one may resume."""
    context.set_alpn_protocols(["echo"])
    with context.wrap_socket(dial(address), server_hostname="server.test", session=session) as client:
        client.sendall(b"hello\n")
        assert client.recv(100) == b"one:hello\n"
        return client.session


def lines(path: Path) -> list[dict[str, Any]]:
    """Return what an access log says."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_line_and_a_span(authority: CertificateAuthority, tmp_path: Path) -> None:
    """Who the client is, and how it came, stands in both, and what failed has its cause."""
    path = tmp_path / "access.log"
    own = authority.issue("client.test", common_name="alice")
    with (
        LineServer("one") as server,
        HeldPort() as port,
        Collector() as collector,
        DataPlane(
            ["--access-log", str(path), "--otel-endpoint", collector.base, "--otel-sample", "1"],
            environment=SOON,
        ) as plane,
    ):
        plane.put_snapshot({"web": ending(authority, port, server.address)})
        context = authority.client_context(own)
        ask(port.address, context, ask(port.address, context))
        with (
            contextlib.suppress(ssl.SSLError, OSError),  # TLS 1.3 tells of it with the first read
            authority.client_context().wrap_socket(
                dial(port.address), server_hostname="server.test"
            ) as stranger,
        ):
            stranger.recv(1)
        told = wait_for(lambda: lines(path) if len(lines(path)) == 3 else None, "three lines")
        first, second, refused = told
        for line, resumed in ((first, False), (second, True)):
            assert line["tls"].keys() == SESSION | {"client_cn"}
            assert line["tls"]["handshake_ms"] > 0
            said = {name: line["tls"][name] for name in ("version", "alpn", "sni", "client_cn", "resumed")}
            assert said == {
                "version": "TLSv1.3",
                "alpn": "echo",
                "sni": "server.test",
                "client_cn": "alice",
                "resumed": resumed,
            }
            assert "backend_tls" not in line
        assert (refused["reason"], refused["detail"]) == ("tls_failed", "no_certificate")
        spans = {span.attributes["client.port"]: span.attributes for span in collector.wait(3)}
        span = spans[int(first["client"].rpartition(":")[2])]
        assert span["tls.protocol.version"] == "1.3"
        assert span["tls.client.subject"] == "CN=alice"
        assert span["tls.client.server_name"] == "server.test"
        assert span["tls.cipher"] == first["tls"]["cipher"]


def test_all_workers_as_one(authority: CertificateAuthority) -> None:
    """Each handshake is counted once, by whichever worker, and each failure by its cause; nothing is told of plain services."""
    own = authority.issue("client.test", common_name="alice")
    with (
        LineServer("one") as server,
        HeldPort() as port,
        HeldPort() as other,
        DataPlane(["--workers", "2"]) as plane,
    ):
        plain = {"listen": other.address, "backends": [server.address], **QUIET}
        plane.put_snapshot({"web": ending(authority, port, server.address), "plain": plain})
        for version in (*[ssl.TLSVersion.TLSv1_3] * 6, *[ssl.TLSVersion.TLSv1_2] * 3):
            context = authority.client_context(own)
            context.maximum_version = version
            ask(port.address, context)
        for _ in range(2):
            with dial(port.address) as client:
                client.sendall(b"GET / HTTP/1.0\r\n\r\n")
                while client.recv(4096):
                    pass
        status = plane.wait_status(
            lambda now: now["services"]["web"]["totals"].get("tls", {}).get("failed") == {"http_request": 2}
        )
        tls = status["services"]["web"]["totals"]["tls"]
        assert tls["handshakes"] == {"TLSv1.2": 3, "TLSv1.3": 6}
        assert (tls["resumed"], tls["time"]["count"]) == (0, 9)
        assert "tls" not in status["services"]["plain"]["totals"]
        metrics = plane.metrics()
        assert metrics.value("lb_tls_handshakes_total", service="web", version="TLSv1.3") == 6
        assert metrics.value("lb_tls_handshakes_total", service="web", version="TLSv1.2") == 3
        assert metrics.value("lb_tls_handshake_failures_total", service="web", cause="http_request") == 2
        assert metrics.value("lb_tls_handshake_seconds_count", service="web") == 9
        assert not metrics.values("lb_tls_handshakes_total", service="plain")


def test_tls_to_backends(authority: CertificateAuthority, tmp_path: Path) -> None:
    """The session of the backend's leg is in the line, and handshakes with each backend are counted, failures by their cause."""
    path = tmp_path / "access.log"
    good, strange = (
        authority.issue("server.test"),
        CertificateAuthority(tmp_path / "other").issue("server.test"),
    )
    begins = {"ca": str(authority.ca), "server_name": "server.test"}
    with (
        TlsLineServer("one", authority.server_context(good)) as one,
        TlsLineServer("two", authority.server_context(strange)) as two,
        HeldPort() as port,
        DataPlane(["--access-log", str(path), "--workers", "2"]) as plane,
    ):
        service = {
            "listen": port.address,
            "backends": [one.address, two.address],
            "backend_tls": begins,
            **QUIET,
        }
        plane.put_snapshot({"web": service})
        for _ in range(4):
            with dial(port.address) as client:
                client.sendall(b"hello\n")
                assert client.recv(100) == b"one:hello\n"
        for line in wait_for(lambda: lines(path) if len(lines(path)) == 4 else None, "four lines"):
            assert line["backend_tls"].keys() == SESSION
            assert (line["backend_tls"]["version"], line["backend_tls"]["sni"]) == ("TLSv1.3", "server.test")
            assert "tls" not in line
        metrics = plane.metrics()
        labels = {"service": "web", "backend": two.address}
        assert metrics.value("lb_backend_tls_handshake_failures_total", **labels, cause="unknown_ca") >= 1
        labels = {"service": "web", "backend": one.address}
        assert metrics.value("lb_backend_tls_handshakes_total", **labels, version="TLSv1.3") == 4
        assert metrics.value("lb_backend_tls_handshake_seconds_count", **labels) == 4
