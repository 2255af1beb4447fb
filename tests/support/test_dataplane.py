"""The data plane that other tests start is a real one, and its helpers tell the truth about it."""

import pytest

from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort


def test_balances_what_it_is_given():
    """A snapshot is taken, clients are served, and status and metrics count them."""
    with LineServer("one") as server, HeldPort() as port, DataPlane() as plane:
        plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address]}})
        assert ask(port.address) == b"one:hello\n"
        plane.wait_status(lambda status: status["services"]["web"]["totals"]["connections"] == 1)
        assert plane.backend("web", server.address)["totals"]["connections"] == 1
        assert plane.metrics().value("lb_connections_total", service="web") == 1
        assert plane.stop() == 0


def test_refusals_are_shown():
    """A snapshot that is refused fails the test with the answer."""
    with DataPlane() as plane, pytest.raises(AssertionError, match="422"):
        plane.put_snapshot({"web": {}})


def test_comes_back_with_its_state():
    """After a kill, the same data plane runs what it ran before."""
    with LineServer("one") as server, HeldPort() as port, DataPlane() as plane:
        plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address]}})
        plane.kill()
        plane.start()
        assert plane.get("/v1/info")["generation"] == 1
        assert ask(port.address) == b"one:hello\n"
