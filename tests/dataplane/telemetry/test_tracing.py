"""Spans of sampled connections, as a collector gets them from a real data plane."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from dataplane.core.reasons import CloseReason
from dataplane.telemetry.tracing import Tracing
from tests.dataplane.net.through import QUIET
from tests.dataplane.telemetry.ended import ended
from tests.support.backends import BlackHole, EchoServer, LineServer
from tests.support.clients import ask, dial
from tests.support.collector import Collector
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "50"}
SERVER, ERROR, UNSET = 2, 2, 0


@pytest.fixture
def collector():
    """A collector that takes everything."""
    with Collector() as collector:
        yield collector


@pytest.fixture
def port():
    """A port to listen on."""
    with HeldPort() as port:
        yield port


def traced(collector, *arguments, **environment):
    """Return a data plane that makes a span of each connection, and sends it soon."""
    return DataPlane(
        ["--otel-endpoint", collector.base, "--otel-sample", "1", *arguments],
        environment={**SOON, **environment},
    )


# -- what is in a span --------------------------------------------------------------------------------


def test_a_connection(collector, port):
    """One that ended well: who, where to, how much, and when it was connected and answered, within its own time."""
    with LineServer("one") as server, traced(collector) as plane:
        plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address], **QUIET}})
        before = time.time_ns()
        with dial(port.address) as client:
            client_port = client.getsockname()[1]
            client.sendall(b"hello\n")
            assert client.recv(100) == b"one:hello\n"
        (span,) = collector.wait(1)
        after = time.time_ns()
        assert (span.name, span.kind, span.status, span.parent) == ("connection web", SERVER, UNSET, b"")
        durations = {
            name: span.attributes.pop(f"lb.{name}_ms") for name in ("queue", "connect", "first_byte")
        }
        assert span.attributes == {
            "client.address": "127.0.0.1",
            "client.port": client_port,
            "network.peer.address": "127.0.0.1",
            "network.peer.port": client_port,
            "network.transport": "tcp",
            "network.type": "ipv4",
            "server.address": port.host,
            "server.port": port.port,
            "lb.service": "web",
            "lb.backend": server.address,
            "lb.backend_address": server.address,
            "lb.close_reason": "client_closed",
            "lb.close_source": "client",
            "lb.pool_hit": False,
            "lb.retries": 0,
            "lb.bytes_in": 6,
            "lb.bytes_out": 10,
            "lb.sample": 1.0,
        }
        assert list(span.events) == ["connected", "first_byte"]
        times = [before, span.start_ns, *span.events.values(), span.end_ns, after]
        slack = 100_000_000  # the start is of the loop's last turn, and wall clocks are stepped
        assert all(first <= then + slack for first, then in pairwise(times))
        lasted = (span.events["first_byte"] - span.events["connected"]) / 1e6
        assert lasted == pytest.approx(durations["first_byte"], abs=0.01)
        assert durations["queue"] == 0


def test_who_tells(collector, port):
    """The resource names the program, its version and this very process; the environment may name the service."""
    for environment, name in (({}, "livelb"), ({"OTEL_SERVICE_NAME": "edge"}, "edge")):
        with LineServer("one") as server, traced(collector, **environment) as plane:
            plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address], **QUIET}})
            ask(port.address)
            span = wait_for(
                lambda name=name: next(
                    (s for s in collector.spans if s.resource["service.name"] == name), None
                ),
                "a span",
            )
            assert span.resource["process.pid"] == plane.pid
            assert "/test/" in span.resource["service.instance.id"]
            assert span.resource["process.pid"] == plane.pid
            assert span.resource["service.version"] == plane.get("/v1/info")["version"]


def test_an_error(collector, port):
    """One that nobody served: status ERROR, the reason, what the last attempt met, and no event of what did not happen."""
    with HeldPort() as nobody, traced(collector) as plane:
        plane.put_snapshot(
            {"web": {"listen": port.address, "backends": [nobody.address], "retries": 1, **QUIET}}
        )
        with dial(port.address) as client:
            assert client.recv(1) == b""
        (span,) = collector.wait(1)
        assert span.status == ERROR
        assert span.message == span.attributes["lb.detail"]
        assert "refused" in span.message
        assert span.attributes["error.type"] == span.attributes["lb.close_reason"] == "connect_failed"
        assert span.attributes["lb.backend"] == nobody.address
        assert span.attributes["lb.retries"] == 1
        assert not span.events


def test_a_queue(collector, port):
    """One that waited for a place: the event at the end of the wait is as far from the start as the wait was long."""
    limits = {"connections": 1, "queue": 10, "queue_timeout": "10s"}
    with EchoServer() as echo, traced(collector) as plane:
        plane.put_snapshot(
            {"web": {"listen": port.address, "backends": [echo.address], "limits": limits, **QUIET}}
        )
        with dial(port.address) as first, dial(port.address) as second:
            first.sendall(b"x")
            assert first.recv(1) == b"x"
            plane.wait_status(lambda now: now["services"]["web"]["queued"] == 1)
            first.close()
            second.sendall(b"y")
            assert second.recv(1) == b"y"
        collector.wait(2)
        (span,) = [one for one in collector.spans if "dequeued" in one.events]
        waited = (span.events["dequeued"] - span.start_ns) / 1e6
        assert span.attributes["lb.queue_ms"] == pytest.approx(waited, abs=0.01)
        assert (
            span.start_ns < span.events["dequeued"] <= span.events["connected"] <= span.events["first_byte"]
        )


def test_behind_a_proxy(collector, port):
    """The client is the one that the header names, and so is what it connected to; the proxy's own address is not known."""
    trusting = {"proxy_protocol": {"accept": "required", "trusted": ["127.0.0.0/8"]}}
    with EchoServer() as echo, traced(collector) as plane:
        plane.put_snapshot({"web": {"listen": port.address, "backends": [echo.address], **QUIET, **trusting}})
        with dial(port.address) as client:
            client.sendall(b"PROXY TCP6 2001:db8::1 2001:db8::2 1111 443\r\nx")
            assert client.recv(1) == b"x"
        (span,) = collector.wait(1)
        found = span.attributes
        assert (found["client.address"], found["client.port"]) == ("2001:db8::1", 1111)
        assert (found["server.address"], found["server.port"]) == ("2001:db8::2", 443)
        assert found["network.type"] == "ipv6"
        assert "network.peer.address" not in found


def test_a_unix_socket(collector):
    """A client without an address has none; the server's is its path."""
    with EchoServer() as echo, traced(collector) as plane:
        listen = f"unix:{plane.directory}/front.sock"
        plane.put_snapshot({"web": {"listen": listen, "backends": [echo.address], **QUIET}})
        with dial(listen) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        (span,) = collector.wait(1)
        assert span.attributes["network.transport"] == "unix"
        assert span.attributes["server.address"] == listen.removeprefix("unix:")
        assert not {"client.address", "network.type", "server.port"} & span.attributes.keys()


# -- who gets one, and what becomes of it -------------------------------------------------------------


def test_workers(collector, port):
    """Each worker exports its own connections; the metrics are the sum."""
    with LineServer("one") as server, traced(collector, "--workers", "2") as plane:
        plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address], **QUIET}})
        for _ in range(20):
            ask(port.address)
        collector.wait(20)
        pids = {worker["pid"] for worker in plane.status()["workers"]}
        assert {span.resource["process.pid"] for span in collector.spans} <= pids
        wait_for(lambda: plane.metrics().value("lb_spans_exported_total") == 20, "the count")
        assert plane.metrics().value("lb_spans_dropped_total") == 0


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_the_end_exports_what_waits(collector, port, workers):
    """Spans that wait for a batch when the process is told to stop arrive; the standard variables name the collector."""
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.base, "OTEL_BSP_SCHEDULE_DELAY": "3600000"}
    plane = DataPlane(["--otel-sample", "1", *workers], environment=environment)
    with LineServer("one") as server, plane:
        plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address], **QUIET}})
        for _ in range(5):
            ask(port.address)
        assert not collector.spans
        assert plane.stop() == 0
        assert len(collector.spans) == 5


def test_a_sample(collector, port):
    """At one in a hundred a few connections get a span and most do not."""
    with LineServer("one") as server:
        plane = DataPlane(["--otel-endpoint", f"{collector.base}/v1/traces"], environment=SOON)
        with plane:
            plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address], **QUIET}})
            for _ in range(300):
                ask(port.address)
            assert plane.stop() == 0
        # with p = 0.01 more than 30 of 300 come once in 10^19 runs
        assert len(collector.spans) <= 30
        assert all(span.attributes["lb.sample"] == 0.01 for span in collector.spans)


def test_nobody_collects(port):
    """Clients are served, spans are counted as lost, the log says so once and why, and the end is not held up."""
    with HeldPort() as nobody, LineServer("one") as server:
        plane = DataPlane(
            ["--otel-endpoint", f"http://{nobody.address}", "--otel-sample", "1"],
            environment={**SOON, "OTEL_EXPORTER_OTLP_TIMEOUT": "1.5"},
        )
        with plane:
            plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address], **QUIET}})
            assert ask(port.address) == b"one:hello\n"
            wait_for(lambda: plane.metrics().value("lb_spans_dropped_total") == 1, "the loss to be counted")
            assert ask(port.address) == b"one:hello\n"
            wait_for(lambda: plane.metrics().value("lb_spans_dropped_total") == 2, "the second loss")
            assert ask(port.address) == b"one:hello\n"
            assert plane.stop() == 0
            said = [line for line in plane.output.splitlines() if "spans_lost" in line]
            assert len(said) == 1
            assert "onnection refused" in said[0]
            others = [line for line in plane.output.splitlines() if not line.startswith("{")]
            assert not others, "the SDK writes nothing by itself"


def test_a_collector_that_refuses(port):
    """A refusal is no success: the spans are lost, and the status is in the log."""
    with Collector(status=400) as collector, LineServer("one") as server, traced(collector) as plane:
        plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address], **QUIET}})
        ask(port.address)
        wait_for(lambda: plane.metrics().value("lb_spans_dropped_total") == 1, "the loss to be counted")
        wait_for(lambda: "spans_lost" in plane.output, "the warning")
        plane.wait_output("400")
        assert collector.requests == 1


async def test_more_than_fit(monkeypatch):
    """While nobody collects, so many spans wait and no more; the others are counted, and cost no memory."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    with Collector(status=503) as collector:
        tracing = Tracing(
            1.0, f"{collector.base}/v1/traces", name="test", draw=lambda: 0.0, tell=print, capacity=50
        )
        for _ in range(200):
            tracing(ended(), CloseReason.CLIENT_CLOSED, None)
        assert tracing.dropped == 150
        collector.status = 200
        await tracing.close(20.0)
        assert tracing.exported == len(collector.spans) > 0
        assert tracing.exported + tracing.dropped <= 200


async def test_the_end_has_a_bound():
    """A collector that takes the connection and never answers holds the end up for as long as it may, and no longer."""
    with BlackHole() as silent:
        url = f"http://{silent.address}/v1/traces"
        tracing = Tracing(1.0, url, name="test", draw=lambda: 0.0, tell=print)
        tracing(ended(), CloseReason.CLIENT_CLOSED, None)
        async with asyncio.timeout(8):  # its own patience is ten seconds
            await tracing.close(0.1)
        assert tracing.exported == 0


async def test_disabled(monkeypatch):
    """OpenTelemetry's own switch turns spans off, and none counts as lost."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with HeldPort() as port:
        tracing = Tracing(
            1.0, f"http://{port.address}/", name="test", draw=lambda: 0.0, tell=print, capacity=512
        )
        for _ in range(600):
            tracing(ended(), CloseReason.CLIENT_CLOSED, None)
        await tracing.close(5.0)
        assert (tracing.exported, tracing.dropped) == (0, 0)


async def test_the_draw():
    """One number decides, and it is the only thing that is asked for a connection without a span."""
    with HeldPort() as port:
        draws = iter([0.3, 0.2999, 0.9])
        tracing = Tracing(0.3, f"http://{port.address}/", name="t", draw=draws.__next__, tell=print)
        tracing(None, CloseReason.CLIENT_CLOSED, None)
        with pytest.raises(AttributeError):
            tracing(None, CloseReason.CLIENT_CLOSED, None)
        tracing(None, CloseReason.CLIENT_CLOSED, None)
        await tracing.close(5.0)


# -- the extra ----------------------------------------------------------------------------------------

WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from dataplane.cli import main
main(sys.argv[1:])
"""


def run(tmp_path, *argv):
    """Run a program to its end."""
    environment = {"PATH": os.environ["PATH"], "LB_RUNTIME_DIR": str(tmp_path), "LB_STATE_DIR": str(tmp_path)}
    return subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=15, check=False, cwd=Path.cwd()
    )


@pytest.mark.parametrize("option", [["--otel-sample", "0.5"], ["--otel-endpoint", "http://127.0.0.1:1"]])
def test_without_the_extra(tmp_path, option):
    """The error names what to install."""
    done = run(tmp_path, sys.executable, "-c", WITHOUT, *option)
    assert done.returncode == 2
    assert "pip install 'livelb[otel]'" in done.stderr


def test_it_is_not_imported_unless_asked_for():
    """A data plane without the options, and its workers, do without these modules."""
    code = "import sys, dataplane.main, dataplane.worker.process; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_an_environment_that_cannot_be(workers):
    """A variable of OpenTelemetry's that says nonsense keeps the process from starting, in words."""
    plane = DataPlane(
        ["--otel-sample", "1", *workers], environment={"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100000000"}
    )
    with pytest.raises(AssertionError, match="max_export_batch_size must be less"), plane:
        pass
