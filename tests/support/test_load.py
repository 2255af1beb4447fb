"""The load must see every kind of failure, or it proves nothing."""

import pytest

from tests.support.backends import BlackHole, EchoServer, LineServer, Resetter, Source
from tests.support.load import Load


def test_everything_succeeds():
    """With a server that works, every client and every flow succeeds, and is told by whom."""
    with LineServer("one") as server, Load(server.address, rate=200, flows=3, interval_s=0) as load:
        load.wait_flows()
        load.wait_progress(clients=20, pings=20)
    report = load.stop()
    assert not report.failures
    assert report.started == report.succeeded
    assert set(report.answered_by) == {"one"}


@pytest.mark.parametrize(
    ("kind", "server"),
    [
        ("reset", Resetter),
        ("timeout", BlackHole),
        ("short", lambda: Source(data=b"half a li")),
        ("wrong", lambda: Source(data=b"something else\n")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kind_of_failure(kind, server):
    """Each way to fail has its name."""
    with server() as backend, Load(backend.address, rate=100, timeout_s=0.2) as load:
        load.wait_progress()
        report = load.stop()
    assert set(report.failures) == {kind}


def test_death_of_a_server():
    """Flows are reset and clients refused when the server dies."""
    with EchoServer() as server, Load(server.address, rate=100, flows=2, interval_s=0) as load:
        load.wait_flows()
        server.kill()
        load.wait_until(lambda report: {"refused", "reset"} <= report.failures.keys())
