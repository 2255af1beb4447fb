"""What is kept of each connection: nothing, lines, spans or both, as the command line says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from itertools import repeat
from random import Random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.core.reasons import ENDED_WELL, CloseReason
from dataplane.telemetry.connection_log import AccessLog, Recording, RecordingOptions, Wanted, waited_s
from dataplane.telemetry.events import rfc3339
from tests.dataplane.net.through import QUIET
from tests.dataplane.telemetry.ended import ended
from tests.support.backends import BlackHole, EchoServer, LineServer
from tests.support.clients import ask, dial, reset
from tests.support.collector import Collector
from tests.support.dataplane import DataPlane, command
from tests.support.ports import HeldPort
from tests.support.wait import wait_for


class Told(list):
    """Takes events."""

    def __call__(self, kind, **fields):
        """Note one."""
        self.append((kind, fields))


def recording(told=None, **options):
    """Keep this much."""
    return Recording(RecordingOptions(**options), "test", print if told is None else told)


def lines(path):
    """Return what the access log's lines say."""
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_nothing_is_kept_unless_it_is_asked_for(no_leaks):
    """A service has nothing to call then, and there is no file, thread or exporter."""
    one = recording(told := Told())
    assert (one.record, one.sink, one.dropped_lines, one.spans()) == (None, None, 0, (0, 0))
    one.reopen()
    await one.close()
    assert told == []


async def test_lines_alone(tmp_path):
    """They are written when it is closed, and no later."""
    path = tmp_path / "access.log"
    one = recording(access_log=str(path))
    one.record(ended(), CloseReason.CLIENT_CLOSED, None)
    one.record(ended(), CloseReason.NO_BACKEND, None)
    await one.close()
    assert [line["reason"] for line in lines(path)] == ["client_closed", "no_backend"]
    assert one.spans() == (0, 0)


async def test_what_is_wanted_travels_along(tmp_path):
    """Of all connections, only those that did not end well."""
    path = tmp_path / "access.log"
    one = recording(access_log=str(path), wanted=Wanted(errors=True))
    one.record(ended(), CloseReason.CLIENT_CLOSED, None)
    one.record(ended(), CloseReason.NO_BACKEND, None)
    await one.close()
    assert [line["reason"] for line in lines(path)] == ["no_backend"]


async def test_spans_alone():
    """All of them arrive before it is closed."""
    with Collector() as collector:
        one = recording(trace_sample=1.0, trace_endpoint=f"{collector.base}/v1/traces")
        assert one.sink is None
        one.record(ended(), CloseReason.CLIENT_CLOSED, None)
        await one.close()
        assert [span.attributes["lb.close_reason"] for span in collector.spans] == ["client_closed"]
        assert one.spans() == (1, 0)


async def test_both_get_each_connection(tmp_path):
    """One call of the service's makes a line and a span."""
    path = tmp_path / "access.log"
    with Collector() as collector:
        endpoint = f"{collector.base}/v1/traces"
        one = recording(access_log=str(path), trace_sample=1.0, trace_endpoint=endpoint)
        for reason in (CloseReason.CLIENT_CLOSED, CloseReason.NO_BACKEND):
            one.record(ended(), reason, None)
        await one.close()
        expected = ["client_closed", "no_backend"]
        assert [line["reason"] for line in lines(path)] == expected
        assert [span.attributes["lb.close_reason"] for span in collector.spans] == expected


async def test_spans_that_nobody_takes_are_counted():
    """And told."""
    with Collector(status=400) as collector:
        told = Told()
        one = recording(told, trace_sample=1.0, trace_endpoint=f"{collector.base}/v1/traces")
        one.record(ended(), CloseReason.CLIENT_CLOSED, None)
        await one.close()
        assert one.spans() == (0, 1)


async def test_a_file_that_was_renamed_is_opened_anew(tmp_path):
    """It is told; what was written before stays with the old name."""
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    one = recording(told := Told(), access_log=str(path))
    one.record(ended(), CloseReason.CLIENT_CLOSED, None)
    path.rename(old)
    one.reopen()
    one.record(ended(), CloseReason.NO_BACKEND, None)
    await one.close()
    assert told == [("access_log_reopened", {"path": str(path)})]
    assert [[line["reason"] for line in lines(each)] for each in (old, path)] == [
        ["client_closed"],
        ["no_backend"],
    ]


async def test_a_file_that_cannot_be_opened_anew(tmp_path):
    """It is told why, and the old one is written on."""
    path = tmp_path / "logs" / "access.log"
    path.parent.mkdir()
    one = recording(told := Told(), access_log=str(path))
    moved = path.parent.rename(tmp_path / "old")
    one.reopen()
    one.record(ended(), CloseReason.CLIENT_CLOSED, None)
    await one.close()
    assert [kind for kind, _ in told] == ["access_log_not_reopened"]
    assert "No such file or directory" in told[0][1]["cause"]
    assert len(lines(moved / "access.log")) == 1


def test_lines_that_nobody_will_see_are_counted(tmp_path):
    """As the sink has them."""
    one = recording(access_log=str(tmp_path / "access.log"))
    one.sink._refused = 3
    assert one.dropped_lines == 3
    one.sink.close()


def test_an_access_log_that_cannot_be_opened(tmp_path):
    """It is known at once, not at the first connection."""
    with pytest.raises(OSError, match="No such file"):
        recording(access_log=str(tmp_path / "missing" / "access.log"))


async def test_an_environment_that_says_nonsense(monkeypatch):
    """OpenTelemetry's variables are read at once, too."""
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "100000000")
    with pytest.raises(ValueError, match="max_export_batch_size"):
        recording(trace_sample=1.0)


NOW = 1000.0
WALL = 1_800_000_000.0


class Lines:
    """Stands where a sink does: keeps what is written."""

    def __init__(self):
        self.raw = []

    def write(self, line):
        """Keep a line."""
        self.raw.append(line)

    def parsed(self):
        """Return the lines' content."""
        return [json.loads(line) for line in self.raw]


def flow(**fields):
    """Return what the access log reads of a flow: one that ended well after 300 ms."""
    usual = {
        "started_at": NOW - 0.3,
        "queued_s": 0.0,
        "connected_at": NOW - 0.29,
        "first_at": NOW - 0.25,
        "address": ("192.0.2.1", 45123),
        "backend": SimpleNamespace(id="10.0.0.1:80"),
        "tried": (),
        "service": SimpleNamespace(name="web"),
        "detail": "",
        "pooled": False,
        "client": SimpleNamespace(received=6, tls=None),
        "hello": None,
        "reactor": SimpleNamespace(clock=lambda: NOW),
    }
    return SimpleNamespace(**(usual | fields))


def one_line(each, reason=CloseReason.CLIENT_CLOSED, server=None, wall=WALL):
    """Return the only line, parsed."""
    lines = Lines()
    AccessLog(lines, Wanted(), repeat(0.0).__next__, lambda: wall)(each, reason, server)
    (line,) = lines.raw
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert line.isascii()
    return json.loads(line)


# -- what is in a line --------------------------------------------------------------------------------

TEXTS = st.text(st.characters(), max_size=40) | st.sampled_from(['"', "\\", "\n\x00\x7f", "é", "\ud800", ""])
TIMES = st.floats(0, 1e6) | st.floats(0, 1e-3) | st.just(0.0)
ADDRESSES = st.none() | st.tuples(TEXTS | st.sampled_from(["::1", "10.0.0.1"]), st.integers(0, 65535))


@st.composite
def flows(draw):
    """Draw a flow whose times are in order, as far as it got, and whose names are whatever they are."""
    started = draw(TIMES)
    queued = draw(TIMES)
    connected = draw(st.just(0.0) | TIMES.map(lambda seconds: started + queued + seconds))
    first = draw(st.just(0.0) | TIMES.map(lambda seconds: connected + seconds)) if connected else 0.0
    now = max(started + queued, connected, first) + draw(TIMES)
    backends = st.builds(SimpleNamespace, id=TEXTS)
    return flow(
        started_at=started,
        queued_s=queued,
        connected_at=connected,
        first_at=first,
        address=draw(ADDRESSES),
        backend=draw(st.none() | backends),
        tried=tuple(draw(st.lists(backends, max_size=3))),
        service=SimpleNamespace(name=draw(TEXTS)),
        detail=draw(TEXTS),
        pooled=draw(st.booleans()),
        client=SimpleNamespace(received=draw(st.integers(0, 2**62)), tls=None),
        hello=None,
        reactor=SimpleNamespace(clock=lambda: now),
    )


def plainly(each, reason, server, wall):
    """Return what a line says, the plain way."""

    def ms(seconds):
        return round(max(0.0, seconds) * 1000, 3)

    now, backend = each.reactor.clock(), each.backend or (each.tried[-1] if each.tried else None)
    client = "unix"
    if each.address:
        host, port = each.address
        client = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return {
        "at": rfc3339(wall - (now - each.started_at)),
        "service": each.service.name,
        "client": client,
        "backend": backend.id if backend else None,
        "reason": reason.value,
        "source": reason.source.value,
        "detail": each.detail,
        "first_byte": bool(each.first_at),
        "pool_hit": each.pooled,
        "retries": len(each.tried),
        "bytes_in": each.client.received,
        "bytes_out": server.received if server else 0,
        "queue_ms": ms(each.queued_s),
        "connect_ms": ms(each.connected_at - each.started_at - each.queued_s) if each.connected_at else None,
        "first_byte_ms": ms(each.first_at - each.connected_at) if each.first_at else None,
        "total_ms": ms(now - each.started_at),
    }


@given(
    flows(),
    st.sampled_from(CloseReason),
    st.none() | st.builds(SimpleNamespace, received=st.integers(0, 2**62), tls=st.none()),
    st.floats(1e8, 4e9),
)
def test_a_line_is_what_json_dumps_would_make(each, reason, server, wall):
    """Whatever the names, addresses and times are, a line put together by hand says what a dict would, in its order."""
    expected = plainly(each, reason, server, wall)
    got = one_line(each, reason, server, wall)
    assert list(got.items()) == list(json.loads(json.dumps(expected)).items())


def test_seconds_that_come_and_go():
    """The remembered second is that of the line: connections that began in other seconds come in any order."""
    lines = Lines()
    wall = iter([WALL + 1.9994, WALL + 0.25, WALL + 1.9999999, WALL + 60, WALL + 0.25])
    log = AccessLog(lines, Wanted(), repeat(0.0).__next__, lambda: next(wall) + 0.3)
    for _ in range(5):
        log(flow(), CloseReason.CLIENT_CLOSED, None)
    stamps = [line["at"].removeprefix("2027-01-15T08:0") for line in lines.parsed()]
    assert stamps == ["0:01.999Z", "0:00.250Z", "0:02.000Z", "1:00.000Z", "0:00.250Z"]


# -- which get one ------------------------------------------------------------------------------------


def kept(wanted, *cases, draw=0.5):
    """Return for each (flow, reason) whether it gets a line."""
    found = []
    for each, reason in cases:
        lines = Lines()
        AccessLog(lines, wanted, lambda: draw, lambda: WALL)(each, reason, None)
        found.append(bool(lines.raw))
    return found


FAST = flow()
SLOW = flow(first_at=NOW - 0.05)
GOOD, BAD = CloseReason.BACKEND_CLOSED, CloseReason.BACKEND_RESET
CASES = [(FAST, GOOD), (FAST, BAD), (SLOW, GOOD), (SLOW, BAD)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), [True, True, True, True]),
        (Wanted(errors=True), [False, True, False, True]),
        (Wanted(slower_than_s=0.2), [False, False, True, True]),
        (Wanted(errors=True, slower_than_s=0.2), [False, True, True, True]),
        (Wanted(sample=0.4), [False, True, False, True]),
        (Wanted(sample=0.6), [True, True, True, True]),
        (Wanted(sample=0.4, sample_errors=True), [False, False, False, False]),
        (Wanted(sample=0.4, slower_than_s=0.2), [False, False, False, True]),
        (Wanted(sample=0.6, slower_than_s=0.2), [False, False, True, True]),
        (Wanted(sample=0.4, errors=True), [False, True, False, True]),
        (Wanted(sample=0.4, errors=True, sample_errors=True), [False, False, False, False]),
    ],
)
def test_filters(wanted, expected):
    """Either filter lets in; chance decides of those that ended well, of the others only if that is asked for."""
    assert kept(wanted, *CASES) == expected


def test_every_reason_is_good_or_an_error():
    """Only an end that both sides made is good: every other reason, and every new one, is an error."""
    errors = {reason for reason in CloseReason if kept(Wanted(errors=True), (FAST, reason))[0]}
    assert errors == set(CloseReason) - {CloseReason.CLIENT_CLOSED, CloseReason.BACKEND_CLOSED}
    assert set(ENDED_WELL) == set(CloseReason) - errors


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 0.05),
        ({"queued_s": 0.04, "connected_at": NOW - 0.25, "first_at": NOW - 0.2}, 0.1),
        ({"first_at": 0.0}, 0.3),
        ({"first_at": 0.0, "client": SimpleNamespace(received=0, tls=None)}, 0.01),
        ({"first_at": 0.0, "connected_at": 0.0, "client": SimpleNamespace(received=0, tls=None)}, 0.3),
    ],
    ids=["answered", "queued", "never answered", "never asked", "never connected"],
)
def test_how_long_a_client_waited(fields, seconds):
    """To the first byte; to the end if none came to a question; a client who asks nothing waits for no answer."""
    assert waited_s(flow(**fields), NOW) == pytest.approx(seconds)


@given(st.floats(0.001, 1.0), st.integers())
def test_what_was_sampled_says_how(sample, seed):
    """Each line carries the chance that it had, so that lines weighted by 1/chance count connections."""
    lines = Lines()
    log = AccessLog(lines, Wanted(sample=sample), Random(seed).random, lambda: WALL)
    for _ in range(20):
        log(FAST, GOOD, None)
    log(FAST, BAD, None)
    *good, bad = lines.parsed()
    draws = Random(seed)
    assert len(good) == sum(draws.random() < sample for _ in range(20))
    assert all(line["sample"] == sample for line in good)
    assert bad["sample"] == 1
    assert "sample" not in one_line(FAST)


# -- the whole way ------------------------------------------------------------------------------------


def written(plane):
    """Return the access log so far."""
    return [json.loads(line) for line in (plane.directory / "access.log").read_text().splitlines()]


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_errors_only(workers):
    """A connection that ends well leaves no line, one that is reset does; in a process alone, and in workers."""
    arguments = [*workers, "--access-log", "access.log", "--access-log-errors"]
    with LineServer("one") as server, HeldPort() as port, DataPlane(arguments) as plane:
        plane.put_snapshot({"s": {"listen": port.address, "backends": [server.address], **QUIET}})
        for _ in range(5):
            ask(port.address)
        client = dial(port.address)
        client.sendall(b"x\n")
        assert client.recv(100)
        reset(client)
        wait_for(lambda: written(plane), "a line")
        assert plane.stop() == 0
        assert [line["reason"] for line in written(plane)] == ["client_reset"]


def test_slower_than_and_sampled():
    """A backend that does not answer makes slow clients; with a share of 1 every line says so."""
    arguments = ["--access-log", "access.log", "--access-log-slower-than", "80ms", "--access-log-sample", "1"]
    with (
        EchoServer() as echo,
        BlackHole() as hole,
        HeldPort() as fast,
        HeldPort() as slow,
        DataPlane(arguments) as plane,
    ):
        plane.put_snapshot(
            {
                "fast": {"listen": fast.address, "backends": [echo.address], **QUIET},
                "slow": {
                    "listen": slow.address,
                    "backends": [hole.address],
                    "timeouts": {"idle": "100ms"},
                    **QUIET,
                },
            }
        )
        with dial(fast.address) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
        with dial(slow.address) as client:
            client.sendall(b"x")
            assert client.recv(1) == b""
        wait_for(lambda: written(plane), "a line")
        assert plane.stop() == 0
        lines = [line for line in written(plane) if line["service"] == "slow"]
        assert [(line["reason"], line["sample"]) for line in lines] == [("idle_timeout", 1)]
        assert lines[0]["first_byte_ms"] is None
        assert lines[0]["total_ms"] > 80


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_the_file_is_reopened(workers):
    """After SIGUSR1 lines go to a new file of that name, and none is lost; nothing else happens to anybody."""
    arguments = [*workers, "--access-log", "access.log"]
    with LineServer("one") as server, HeldPort() as port, DataPlane(arguments) as plane:
        plane.put_snapshot({"s": {"listen": port.address, "backends": [server.address], **QUIET}})
        path, old = plane.directory / "access.log", plane.directory / "access.log.1"
        with dial(port.address) as client:
            client.sendall(b"a\n")
            assert client.recv(100)
            for _ in range(20):
                ask(port.address)
            plane.wait_status(lambda now: now["services"]["s"]["totals"]["closed"] == {"client_closed": 20})
            path.rename(old)
            plane.send_signal(signal.SIGUSR1)
            count = 2 if workers else 1
            wait_for(lambda: plane.output.count("access_log_reopened") == count, "everybody to reopen it")
            for _ in range(20):
                ask(port.address)
            client.sendall(b"b\n")
            assert client.recv(100)
        assert plane.stop() == 0
        assert len(path.read_text().splitlines()) == 21
        assert len(old.read_text().splitlines()) == 20


def test_the_signal_without_a_file():
    """SIGUSR1 ends nobody, whether there is a file or not."""
    for arguments in ([], ["--access-log", "-"]):
        with DataPlane(arguments) as plane:
            plane.send_signal(signal.SIGUSR1)
            assert plane.request("GET", "/livez")[0] == 200
            assert plane.stop() == 0
            assert "reopened" not in plane.output


def test_what_cannot_be(tmp_path):
    """Exit 2, and the words name the option and what it takes (all of them: `tests/dataplane/test_options.py`)."""
    done = subprocess.run(
        [command("lb-dataplane"), "--runtime-dir", tmp_path, "--state-dir", tmp_path, "--access-log-errors"],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 2
    assert "--access-log-errors needs --access-log" in re.sub(r"[│\s]+", " ", done.stderr)
