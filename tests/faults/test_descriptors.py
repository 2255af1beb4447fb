"""No file descriptors left: nobody is lost, nothing spins, and the operator still gets answers."""

from __future__ import annotations

import os
import resource
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.backends import EchoServer
from tests.support.clients import ask, dial, read_exactly
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

LIMIT = 160
CLIENTS = 120
"""More than fit: each takes two descriptors."""


class Limited(DataPlane):
    """A data plane that may have few descriptors from the start."""

    def __init__(self):
        super().__init__()
        self.argv = ["prlimit", f"--nofile={LIMIT}", *self.argv]


class LimitedLater(DataPlane):
    """A data plane whose limit is lowered while it runs."""

    def start(self):
        """Start, then lower the limit."""
        super().start()
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        return self


def cpu_seconds(pid):
    """Return what a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def echoes(sock, message):
    """Tell whether a flow is alive."""
    sock.sendall(message)
    return read_exactly(sock, len(message)) == message


@pytest.mark.needs("prlimit")
@pytest.mark.parametrize("kind", [Limited, LimitedLater])
def test_out_of_descriptors(kind):
    """Clients beyond the limit wait in the kernel and are served as soon as others have gone; nobody is refused."""
    with ExitStack() as stack:
        backend, listener = stack.enter_context(EchoServer()), stack.enter_context(HeldPort())
        plane = stack.enter_context(kind())
        plane.put_snapshot(
            {
                "s": {
                    "listen": listener.address,
                    "backends": [backend.address],
                    "pool": {"mode": "off"},
                    "health": {"active": {"type": "none"}},
                }
            }
        )
        assert plane.metrics().value("lb_descriptors_limit") < LIMIT or kind is LimitedLater
        wait_for(lambda: plane.metrics().value("lb_descriptors_limit") < LIMIT, "the limit to be known")
        clients = [stack.enter_context(dial(listener.address)) for _ in range(CLIENTS)]
        plane.wait_status(lambda now: now["services"]["s"]["listeners"][0]["state"] == "paused")
        status = plane.status()["services"]["s"]
        served = status["active"]
        assert 0 < served < CLIENTS

        # those who are served notice nothing, and the API answers
        assert all(echoes(client, b"alive") for client in clients[:served])
        assert plane.request("GET", "/livez")[0] == 200
        code, why = plane.request("GET", "/readyz")
        assert (code, why["code"]) == (503, "not_ready")
        assert "descriptors" in why["message"]

        # nothing spins: while it waits for a second, it computes for a small part of it
        before, since = cpu_seconds(plane.pid), time.monotonic()
        wait_for(lambda: time.monotonic() - since > 1, "a second")
        assert cpu_seconds(plane.pid) - before < 0.3
        assert plane.output.count('"local_error"') <= 4 + (time.monotonic() - since) * 2, "once a second"

        # Nobody of those who wait is lost, or taken only to be turned away. Some may be served by now: what asked for
        # the status has given its own descriptor back.
        status = plane.status()["services"]["s"]
        assert served <= status["active"] < CLIENTS
        assert status["totals"]["closed"] == {}
        waiting = clients[served:]
        for client in waiting:
            client.sendall(b"later")
        for client in clients[:served]:
            client.close()
        for client in waiting:
            assert read_exactly(client, 5) == b"later"
            client.close()
        plane.wait_status(lambda now: now["services"]["s"]["active"] == 0)
        assert plane.request("GET", "/readyz")[0] == 200
        assert plane.status()["services"]["s"]["totals"]["closed"] == {"client_closed": CLIENTS}
        assert ask(listener.address) == b"hello\n"
        assert plane.backend("s", backend.address)["totals"]["connect_failures"] == 0


@pytest.mark.needs("prlimit")
def test_one_worker_out_of_descriptors_is_seen():
    """Status, metrics and readiness tell of the one worker whose clients wait, though another accepts."""
    with ExitStack() as stack:
        backend, listener = stack.enter_context(EchoServer()), stack.enter_context(HeldPort())
        plane = stack.enter_context(DataPlane(["--workers", "2"]))
        service = {"listen": listener.address, "backends": [backend.address], "pool": {"mode": "off"}}
        plane.put_snapshot({"s": {**service, "health": {"active": {"type": "none"}}}})
        poor = plane.status()["workers"][1]["pid"]
        limit = 2 * CLIENTS
        resource.prlimit(poor, resource.RLIMIT_NOFILE, (limit, limit))
        wait_for(lambda: 0 < plane.metrics().value("lb_descriptors_limit") < limit, "the limit to be known")
        clients = [stack.enter_context(dial(listener.address)) for _ in range(limit + 20)]
        plane.wait_status(lambda now: now["services"]["s"]["listeners"][0]["state"] == "paused")
        seen = plane.metrics()
        assert seen.values("lb_listener_accepting") == [0]
        assert seen.value("lb_descriptors_watched") / seen.value("lb_descriptors_limit") > 0.8
        assert plane.request("GET", "/readyz")[0] == 503
        for client in clients:
            client.close()
        plane.wait_status(lambda now: now["services"]["s"]["listeners"][0]["state"] == "accepting")
        assert plane.metrics().values("lb_listener_accepting") == [1]
