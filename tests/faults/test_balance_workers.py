"""Clients that workers hand over to each other: evenly spread, counted once, and lost by nothing that happens meanwhile."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.backends import EchoServer, LineServer
from tests.support.clients import ask, dial, read_exactly
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

HELLO = b"hello\n"


class Site:
    """Some workers and one balanced service in front of an echo."""

    def __init__(self, stack: ExitStack, workers: int = 2) -> None:
        self.stack = stack
        self.echo = stack.enter_context(EchoServer())
        self.lines = stack.enter_context(LineServer("a"))
        self.port = stack.enter_context(HeldPort())
        self.plane = stack.enter_context(DataPlane(["--workers", str(workers)]))
        self.put()

    def put(self, backend: str = "", **options: object) -> None:
        """Configure the service."""
        self.plane.put_snapshot(
            {
                "web": {
                    "listen": self.port.address,
                    "backends": [backend or self.echo.address],
                    "balance_workers": True,
                    "health": {"active": {"type": "none"}},
                    **options,
                }
            }
        )

    def dial(self) -> socket.socket:
        """Return a new client, which says hello."""
        client = self.stack.enter_context(dial(self.port.address))
        client.sendall(HELLO)
        return client

    def clients(self, count: int) -> list[socket.socket]:
        """Open connections, one after the other, each of which has its answer."""
        opened = []
        for _ in range(count):
            opened.append(self.dial())
            assert read_exactly(opened[-1], len(HELLO)) == HELLO
        return opened

    def lean(self) -> socket.socket:
        """Open one more connection to `lines`: where it is, every short client must be handed over."""
        client = self.dial()
        read_exactly(client, len(b"a:hello\n"))
        return client

    def loads(self) -> list[int]:
        """Return how many clients each worker has."""
        return [worker["active"] for worker in self.plane.status()["workers"]]

    def handed_over(self) -> float:
        """Return how many clients were handed over."""
        return self.plane.metrics().value("lb_connections_handed_over_total", service="web")


@pytest.fixture
def site() -> Iterator[Site]:
    """Two workers."""
    with ExitStack() as stack:
        yield Site(stack)


@pytest.mark.parametrize("workers", [2, 3])
def test_few_long_connections_are_spread_evenly(workers: int) -> None:
    """Wherever the kernel sends clients, no worker has more than one more than another; each is counted once."""
    with ExitStack() as stack:
        site = Site(stack, workers)
        for count in (4, 9, 33):
            site.clients(count - sum(site.loads()))
            loads = site.loads()
            assert sum(loads) == count
            assert max(loads) - min(loads) <= 1, loads
        status, loads = site.plane.status(), site.loads()
        assert status["skew"] == round(max(loads) * workers / 33, 2)
        web = status["services"]["web"]
        assert (web["active"], web["totals"]["connections"], web["listeners"][0]["accepted"]) == (33, 33, 33)
        assert site.handed_over() > 0


def test_who_leaves_makes_room_for_the_next(site: Site) -> None:
    """Counts follow connections that end, on both sides of a hand-over."""
    for client in site.clients(12)[::2]:
        client.close()
    site.plane.wait_status(lambda status: status["services"]["web"]["active"] == 6)
    site.clients(6)
    assert site.loads() == [6, 6]


def test_without_the_option_nothing_is_handed_over(site: Site) -> None:
    """The option is off by default, can be turned off in a running service, and on again."""
    site.put(balance_workers=False)
    first = site.clients(30)
    assert site.handed_over() == 0
    site.put()
    for client in first:
        client.close()
    site.plane.wait_status(lambda status: status["services"]["web"]["active"] == 0)
    site.clients(30)
    assert site.loads() == [15, 15]
    assert site.handed_over() > 0


def test_headers_and_early_data_come_along(site: Site) -> None:
    """A PROXY header is read where the client is served, and what it carries is what the backend and limits see."""
    site.put(
        proxy_protocol={"accept": "required", "trusted": ["127.0.0.0/8"], "send": "v1"},
        limits={"per_client": 1},
    )
    for number in range(30):
        client = site.stack.enter_context(dial(site.port.address))
        header = f"PROXY TCP4 192.0.2.{number} 198.51.100.1 4000 80\r\n".encode()
        client.sendall(header + HELLO)
        assert read_exactly(client, len(header + HELLO)) == header + HELLO
    assert site.loads() == [15, 15]
    with dial(site.port.address) as again:
        again.sendall(b"PROXY TCP4 192.0.2.7 198.51.100.1 4000 80\r\n")
        assert again.recv(1) == b""
    assert site.handed_over() > 0


def test_limits_are_met_exactly(site: Site) -> None:
    """A client is admitted once, by whoever serves it."""
    site.put(limits={"connections": 6})
    site.clients(6)
    for _ in range(4):
        with dial(site.port.address) as refused:
            assert refused.recv(1) == b""
    assert site.loads() == [3, 3]
    closed = site.plane.status()["services"]["web"]["totals"]["closed"]
    assert closed == {"limit_connections": 4}


def test_a_new_worker_gets_clients_until_it_has_as_many(site: Site) -> None:
    """After workers were added or replaced, new clients even it out again."""
    site.clients(8)
    assert site.plane.request("PUT", "/v1/workers", {"count": 3})[0] == 200
    site.clients(7)  # a few may come before the others know of the new one
    assert site.loads() == [5, 5, 5]
    assert site.plane.request("POST", "/v1/restart")[0] == 200
    site.clients(12)
    assert site.loads() == [4, 4, 4]


def test_who_is_in_the_inbox_of_a_worker_that_dies_is_served_by_others(site: Site) -> None:
    """A worker that hangs and is killed loses its own flows; those handed over to it go to a sibling at once."""
    handed = site.handed_over()
    victim = site.plane.status()["workers"][1]["pid"]
    os.kill(victim, signal.SIGSTOP)
    waiting = [site.dial() for _ in range(60)]
    for client in waiting:
        client.settimeout(0.0)
    # About thirty are in the victim's own queue; of the others, its sibling serves half, and it gets the rest.
    wait_for(lambda: sum(_has_answer(client) for client in waiting) >= 5, "the sibling to serve its part")
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: all(_has_answer(client) for client in waiting), "everybody to be served")
    for client in waiting:
        assert client.recv(100) == HELLO
    assert site.handed_over() > handed
    assert sum(site.loads()) == 60


def test_restarts_resizes_and_takeovers_are_unnoticed(site: Site) -> None:
    """Whatever happens to workers, nobody who is handed over is lost; long flows stay."""
    site.put(site.lines.address)
    with Load(site.port.address, rate=150.0, flows=5, timeout_s=10.0) as load:
        load.wait_flows()
        load.wait_progress(10)
        assert site.plane.request("POST", "/v1/restart")[0] == 200
        long = site.lean()
        for count in (3, 1, 2):
            assert site.plane.request("PUT", "/v1/workers", {"count": count})[0] == 200
            load.wait_progress(10)
        long.close()
        assert site.handed_over() > 0
        former = site.plane
        site.plane = DataPlane(["--workers", "2", "--takeover"], runtime_dir=former.runtime_dir)
        site.stack.callback(site.plane.close)
        site.plane.start()
        site.lean()
        load.wait_progress(30, pings=10)
        assert site.handed_over() > 0
    assert not load.report.failed, load.report
    assert former.wait(15) == 0


def test_services_that_come_and_go_are_unnoticed_by_their_last_and_first_clients(site: Site) -> None:
    """A client that is handed over while its service changes, moves or goes is served as any other."""
    with HeldPort() as other, ExitStack() as stack:
        service = {"backends": [site.lines.address], "health": {"active": {"type": "none"}}}
        load = stack.enter_context(Load(site.port.address, rate=150.0, flows=3, timeout_s=10.0))
        for number in range(12):
            balanced = {**service, "balance_workers": number % 3 != 0}
            site.plane.put_snapshot(
                {  # the address moves from one service to another that is new
                    f"web{number % 2}": {**balanced, "listen": site.port.address},
                    **({"other": {**balanced, "listen": other.address}} if number % 4 else {}),
                },
                generation=number + 2,
            )
            if number % 4:
                assert ask(other.address) == b"a:hello\n"
            load.wait_progress(8)
        load.stop()
    assert not load.report.failed, load.report


def test_a_killed_supervisor_loses_nobody_who_is_handed_over(site: Site) -> None:
    """Orphans stop handing over, serve who was handed over to them, and give their sockets to a new supervisor."""
    site.put(site.lines.address)
    with Load(site.port.address, rate=150.0, flows=5, timeout_s=10.0) as load:
        load.wait_flows()
        load.wait_progress()
        site.plane.kill()
        load.wait_progress()
        site.plane.start()
        load.wait_progress(30, pings=10)
    assert not load.report.failed, load.report


def test_a_worker_that_is_told_to_end_is_replaced_first(site: Site) -> None:
    """SIGTERM to a worker: its flows stay, and nobody waits for its successor."""
    site.put(site.lines.address, balance_workers=False)
    with Load(site.port.address, rate=150.0, flows=6, timeout_s=10.0) as load:
        load.wait_flows()
        former = [worker["pid"] for worker in site.plane.status()["workers"]]
        os.kill(former[0], signal.SIGTERM)
        site.plane.wait_status(
            lambda status: (
                [worker["pid"] for worker in status["workers"]][1:] == former[1:]
                and status["workers"][0]["pid"] != former[0]
            )
        )
        load.wait_progress(40, pings=20)
    assert not load.report.failed, load.report


def test_one_process_serves_all_itself() -> None:
    """Without workers the option changes nothing."""
    with ExitStack() as stack:
        echo, plane = stack.enter_context(EchoServer()), stack.enter_context(DataPlane())
        port = stack.enter_context(HeldPort())
        plane.put_snapshot(
            {"web": {"listen": port.address, "backends": [echo.address], "balance_workers": True}}
        )
        assert ask(port.address) == HELLO
        assert plane.status()["skew"] == 1.0
        assert plane.metrics().value("lb_connections_handed_over_total", service="web") == 0


def _has_answer(client: socket.socket) -> bool:
    try:
        return client.recv(100, socket.MSG_PEEK) == HELLO
    except BlockingIOError:
        return False
