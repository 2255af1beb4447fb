"""Backends that die, come back, refuse and mislead, while clients go on coming."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from tests.dataplane.net.through import QUIET, through
from tests.support.backends import BlackHole, EchoServer, LineServer, Resetter
from tests.support.clients import ask, dial
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.server import Connection, Server
from tests.support.wait import wait_for

CHECKED = {
    "active": {"type": "tcp", "interval": "50ms", "timeout": "2s", "rise": 1, "fall": 2, "jitter": "0%"},
    "passive": {"failures": 0},
    "panic": "0%",
}


@pytest.fixture(scope="module")
def plane():
    """One data plane for all of these tests."""
    with DataPlane() as plane:
        yield plane


@pytest.fixture
def lines():
    """Three servers that say who they are."""
    with LineServer("one") as one, LineServer("two") as two, LineServer("three") as three:
        yield one, two, three


def ended(client):
    """Tell whether the far side ends without a byte, by FIN or reset."""
    try:
        return client.recv(100) == b""
    except ConnectionResetError:
        return True


def refused(service):
    """Tell whether a client is closed without a byte."""
    with dial(service.address) as client:
        client.sendall(b"hello\n")
        return ended(client)


def answered_by(service, count=6):
    """Return who answers `count` clients."""
    return {ask(service.address).partition(b":")[0].decode() for _ in range(count)}


@pytest.mark.parametrize("pool", [{"mode": "off"}, {"mode": "preconnect", "min_idle": 2}, {"mode": "reuse"}])
def test_a_killed_backend_under_load(plane, lines, pool):
    """When a backend is killed, no new client notices: it is retried, then skipped, and taken in again later."""
    one, _two, _three = lines
    addresses = [server.address for server in lines]
    with through(plane, *addresses, pool=pool, health=CHECKED) as service:
        service.wait_health(**dict.fromkeys(addresses, "up"))
        with Load(service.address, rate=200) as load:
            load.wait_progress()
            for _ in range(3):
                one.kill()
                service.wait_health(**{one.address: "down"})
                load.wait_progress()
                one.start()
                service.wait_health(**{one.address: "up"})
                load.wait_progress()
            report = load.stop()
        # whoever was being served by it when it died has lost its connection, and nobody else
        assert set(report.failures) <= {"reset", "short"}
        assert report.failed <= one.connections_cut, report.details
        assert service.status()["totals"]["retries"] > 0 or pool["mode"] != "off"
        assert set(service.status()["totals"]["closed"]) <= {
            "client_closed",
            "backend_reset",
            "backend_closed",
        }


def test_all_down_and_back(plane, lines):
    """With everybody down, clients are closed at once with `no_backend`; one check of the first that returns is enough."""
    one, two, _ = lines
    with through(plane, one.address, two.address, health=CHECKED) as service:
        service.wait_health(**{one.address: "up", two.address: "up"})
        one.kill()
        two.kill()
        service.wait_health(**{one.address: "down", two.address: "down"})
        for _ in range(5):
            with dial(service.address) as client:
                assert client.recv(1) == b""
        assert service.status()["totals"]["closed"]["no_backend"] == 5
        plane.wait_output('"no_usable_backend"')
        two.start()
        service.wait_health(**{two.address: "up"})
        assert answered_by(service) == {"two"}
        plane.wait_output('"usable_again"')


def test_the_pool_of_a_dead_backend(plane, lines):
    """A mark-down closes idle connections at once, and a mark-up fills the pool again."""
    one, *_ = lines
    with LineServer("health") as health:
        check = {**CHECKED["active"], "port": health.port}
        pool = {"mode": "preconnect", "min_idle": 3}
        with through(plane, one.address, pool=pool, health={**CHECKED, "active": check}) as service:
            service.wait(lambda now: now["backends"][0]["pooled"] == 3)
            health.refuse()
            status = service.wait(lambda now: now["backends"][0]["health"]["state"] == "down")
            assert status["backends"][0]["pooled"] == 0
            assert status["backends"][0]["totals"]["pool"]["discarded"]["unusable"] == 3
            assert status["backends"][0]["health"]["cause"] == "connection refused"
            health.listen_again()
            service.wait(lambda now: now["backends"][0]["pooled"] == 3)


def test_connections_in_place_survive_a_mark_down(plane, lines):
    """Health decides about new connections only: what works is not cut because a check failed."""
    one, *_ = lines
    with LineServer("health") as health:
        check = {**CHECKED["active"], "port": health.port}
        with (
            through(plane, one.address, health={**CHECKED, "active": check}) as service,
            dial(service.address) as client,
        ):
            client.sendall(b"hello\n")
            assert client.recv(100) == b"one:hello\n"
            health.refuse()
            service.wait_health(**{one.address: "down"})
            client.sendall(b"again\n")
            assert client.recv(100) == b"one:again\n"


class Broker(Server):
    """Answers `hello` and hangs up on anything else, most of which it leaves unread: so its kernel resets."""

    async def serve(self, connection: Connection) -> None:
        """Read word by word."""
        while await connection.recv_exactly(5) == b"hello":
            await connection.send(b"welcome")


class TestPassive:
    """What clients' connections meet."""

    def passive(self, **options):
        """Return health settings with passive checks only."""
        passive = {"failures": 3, "ejection": "10s", "max_ejection": "10s", "max_ejected": "100%", **options}
        return {"active": {"type": "none"}, "passive": passive, "panic": "0%"}

    @pytest.mark.parametrize(
        ("resets", "count", "ejections"), [(None, 1, 0), (None, 2, 0), ("any", 1, 0), ("any", 2, 1)]
    )
    def test_a_scanner_has_nobody_ejected(self, plane, resets, count, ejections):
        """Resets that clients provoke are no evidence, unless it is asked for; nor do they ever take the last one away."""
        with ExitStack() as stack:
            brokers = [stack.enter_context(Broker()).address for _ in range(count)]
            options = {"ejection": "60s", "max_ejection": "60s"} | (
                {} if resets is None else {"resets": resets}
            )
            service = stack.enter_context(through(plane, *brokers, health=self.passive(**options)))
            for _ in range(12):
                with dial(service.address) as scanner:
                    scanner.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert ended(scanner)
            for _ in range(6):
                with dial(service.address) as client:
                    client.sendall(b"hello")
                    assert client.recv(100) == b"welcome"
            totals = [backend["totals"]["ejections"] for backend in service.status()["backends"]]
            assert sum(totals) == ejections

    @pytest.mark.parametrize("how", ["refused", "reset"])
    def test_ejection_and_return(self, plane, lines, how):
        """Failures in a row eject; when the time is over the backend is taken in again."""
        one, *_ = lines
        with ExitStack() as stack:
            bad = stack.enter_context({"refused": HeldPort, "reset": Resetter}[how]())
            health = self.passive(ejection="500ms", max_ejection="500ms", resets="any")
            service = stack.enter_context(through(plane, one.address, bad.address, health=health))

            def come():
                with dial(service.address) as client:
                    client.sendall(b"hello\n")
                    try:
                        client.recv(100)
                    except ConnectionResetError:
                        return
                    client.shutdown(socket.SHUT_WR)

            for _ in range(6):
                come()
            status = service.wait(lambda now: now["backends"][1]["health"]["state"] == "ejected")
            backend = status["backends"][1]
            assert backend["totals"]["ejections"] == 1
            assert backend["health"]["cause"]
            assert answered_by(service) == {"one"}
            explained = plane.get(f"/v1/explain?service={service.name}&client=127.0.0.1")
            assert explained["skipped"] == [{"id": bad.address, "reason": "ejected"}]
            service.wait(lambda now: now["backends"][1]["health"]["state"] == "unknown")

    def test_an_answer_ends_the_streak(self, plane, lines):
        """Failures that are not in a row eject nobody."""
        one, *_ = lines
        with through(plane, one.address, health=self.passive()) as service:
            for _ in range(4):
                for _ in range(2):
                    one.refuse()
                    with dial(service.address) as client:
                        assert client.recv(1) == b""
                one.listen_again()
                assert ask(service.address) == b"one:hello\n"
            assert service.backend(one.address)["totals"]["ejections"] == 0

    def test_one_may_always_be_ejected(self, plane, lines):
        """`max_ejected` bounds how many are out at once; one always may be."""
        one, *_ = lines
        with HeldPort() as bad, HeldPort() as worse:
            health = self.passive(max_ejected="1%")
            with through(plane, one.address, bad.address, worse.address, health=health) as service:
                for _ in range(20):
                    assert ask(service.address) == b"one:hello\n"
                states = sorted(backend["health"]["state"] for backend in service.status()["backends"])
                assert states == ["ejected", "unknown", "unknown"]
                plane.wait_output('"ejection_refused"')

    def test_a_passing_check_ends_it(self, plane, lines):
        """An active check that passes takes an ejected backend in before its time."""
        one, two, _ = lines
        health = {**self.passive(), "active": {**CHECKED["active"], "interval": "300ms"}}
        with through(plane, one.address, two.address, health=health) as service:
            service.wait_health(**{one.address: "up"})
            one.refuse()
            for _ in range(6):
                assert ask(service.address) == b"two:hello\n"
            one.listen_again()
            service.wait(lambda now: now["backends"][0]["totals"]["ejections"] >= 1)
            service.wait_health(**{one.address: "up"})
            plane.wait_output('"an active check passed"')


class Moody(LineServer):
    """Answers checks as well: `fine`, or `sick` while it is."""

    sick = False

    async def serve(self, connection: Connection) -> None:
        """Answer line by line."""
        async for line in connection.lines():
            mood = b"sick" if self.sick else b"fine"
            await connection.send(mood if line == b"check" else f"{self.name}:".encode() + line + b"\n")


MOOD = {**CHECKED["active"], "type": "expect", "expect": {"send": "check\n", "expect": "fine"}}


@pytest.fixture
def moody():
    """Three servers that answer, however they are."""
    with Moody("one") as one, Moody("two") as two, Moody("three") as three:
        yield one, two, three


def test_panic(plane, moody):
    """Below the panic threshold health is ignored, loudly; above it, it counts again."""
    _one, two, three = moody
    addresses = [server.address for server in moody]
    health = {**CHECKED, "active": MOOD, "panic": "50%"}
    with through(plane, *addresses, health=health) as service:
        service.wait_health(**dict.fromkeys(addresses, "up"))
        two.sick = True
        service.wait_health(**{two.address: "down"})
        assert not service.status()["panic"]
        assert answered_by(service) == {"one", "three"}
        three.sick = True
        service.wait_health(**{three.address: "down"})
        assert service.status()["panic"]
        assert plane.metrics().value("lb_panic", service=service.name) == 1
        assert plane.metrics().value("lb_backends_usable", service=service.name) == 1
        assert plane.metrics().value("lb_backends_serving", service=service.name) == 3
        assert answered_by(service) == {"one", "two", "three"}
        two.sick = False
        service.wait_health(**{two.address: "up"})
        assert not service.status()["panic"]
        plane.wait_output('"panic_over"')


@pytest.mark.parametrize("workers", [1, 2])
def test_a_wrong_check_takes_nobody_away(moody, workers):
    """With nobody healthy, those that can be reached serve; who cannot gets nobody, and with none left clients are closed."""
    one, two, three = moody
    addresses = [server.address for server in moody]
    health = {**CHECKED, "active": {**MOOD, "expect": {"send": "check\n", "expect": "wrong"}}, "panic": "50%"}
    with (
        DataPlane(["--workers", str(workers)]) as plane,
        through(plane, *addresses, health=health, retries=0) as service,
    ):
        service.wait_health(**dict.fromkeys(addresses, "down"))
        status = service.wait(lambda now: now["panic"])
        assert [backend["health"]["reachable"] for backend in status["backends"]] == [True] * 3
        wait_for(lambda: answered_by(service) == {"one", "two", "three"}, "each worker to know")
        one.kill()
        status = service.wait(lambda now: not now["backends"][0]["health"]["reachable"])
        assert status["backends"][0]["health"]["cause"] == "connection refused"
        explain = f"/v1/explain?service={service.name}&client=127.0.0.1"
        skipped = [{"id": one.address, "reason": "unreachable"}]
        wait_for(lambda: plane.get(explain)["skipped"] == skipped, "the worker that explains to know")
        explained = plane.get(explain)
        assert explained["panic"]
        assert {each["id"] for each in explained["candidates"]} == {two.address, three.address}
        assert plane.metrics().value("lb_backend_reachable", backend=one.address) == 0
        wait_for(lambda: answered_by(service, 12) == {"two", "three"}, "each worker to know")
        two.kill()
        three.kill()
        service.wait(lambda now: not now["panic"])
        plane.wait_output('"no_usable_backend"')
        wait_for(lambda: all(refused(service) for _ in range(8)), "each worker to know")
        assert service.status()["totals"]["closed"]["no_backend"] >= 8
        one.start()
        service.wait(lambda now: now["panic"])
        wait_for(lambda: answered_by(service) == {"one"}, "each worker to know")
        plane.wait_output('"usable_again"')


def test_without_panic_health_always_counts(plane, moody):
    """`panic: 0%` ignores nothing: some checks ask who may serve, and not only who can."""
    addresses = [server.address for server in moody]
    health = {**CHECKED, "active": {**MOOD, "expect": {"send": "check\n", "expect": "wrong"}}}
    with through(plane, *addresses, health=health) as service:
        service.wait_health(**dict.fromkeys(addresses, "down"))
        assert refused(service)
        assert not service.status()["panic"]


def test_tiers(plane, lines):
    """Tier 1 serves while tier 0 has nobody, and not a moment longer."""
    one, two, _ = lines
    with through(plane, one.address, {"address": two.address, "tier": 1}, health=CHECKED) as service:
        service.wait_health(**{one.address: "up", two.address: "up"})
        assert answered_by(service) == {"one"}
        assert service.status()["tier"] == 0
        one.refuse()
        assert answered_by(service) == {"two"}, "a retry crosses tiers before any check has failed"
        service.wait_health(**{one.address: "down"})
        assert answered_by(service) == {"two"}
        assert service.status()["tier"] == 1
        one.listen_again()
        service.wait_health(**{one.address: "up"})
        assert answered_by(service) == {"one"}
        assert service.status()["tier"] == 0


def test_slow_start(plane, lines):
    """A backend that comes back begins with a sixteenth of its weight."""
    one, two, _ = lines
    with through(plane, one.address, two.address, slow_start="100ms") as service:
        since = time.monotonic()
        wait_for(lambda: time.monotonic() - since > 1, "both to have warmed up long since")
        service.configure(one.address, two.address, slow_start="1h")
        seen = [ask(service.address) for _ in range(8)]
        assert seen.count(b"one:hello\n") == 4
        path = f"/v1/services/{service.name}/backends/{one.address}"
        plane.request("PATCH", path, {"state": "drain"})
        plane.request("PATCH", path, {"state": "enabled"})
        seen = [ask(service.address) for _ in range(34)]
        assert 1 <= seen.count(b"one:hello\n") <= 3


def test_an_unknown_backend_is_used(plane):
    """Until the first verdict a backend counts as usable, and the first verdict counts at once."""
    with BlackHole(full=True) as hole, LineServer("one") as one:
        slow = {**CHECKED["active"], "timeout": "2s", "interval": "1h", "rise": 10, "fall": 10}
        with through(
            plane, one.address, health={**CHECKED, "active": {**slow, "port": hole.port}}
        ) as service:
            assert service.backend(one.address)["health"]["state"] == "unknown"
            assert ask(service.address) == b"one:hello\n"
            service.wait_health(**{one.address: "down"})


def test_limits_hold_under_load(plane):
    """`connections` with a queue: never more than the limit at the backend, and everybody is served."""
    with (
        EchoServer() as echo,
        through(plane, echo.address, limits={"connections": 5, "queue": 1000}) as service,
    ):
        most = 0

        def watch():
            nonlocal most
            most = max(most, echo.active)
            return True

        with Load(service.address, rate=400) as load:
            for _ in range(10):
                load.wait_progress(clients=20)
                watch()
            report = load.stop()
        assert not report.failures, report.details
        assert most <= 5
        wait_for(lambda: service.status()["active"] == 0, "the last client to go")
        assert service.status()["queued"] == 0


def test_sticky_survives_a_restart(lines):
    """The same clients get the same backends after a restart: the table depends on the snapshot alone."""
    clients = [f"127.0.0.{number}" for number in range(1, 30)]
    with HeldPort() as port, DataPlane() as plane:
        plane.put_snapshot(
            {
                "s": {
                    "listen": port.address,
                    "backends": [server.address for server in lines],
                    "mode": "sticky",
                    "seed": "x",
                    **QUIET,
                }
            }
        )
        before = [ask(port.address, source=client) for client in clients]
        table = plane.status()["services"]["s"]["table_hash"]
        assert len(set(before)) == 3
        assert before == [ask(port.address, source=client) for client in clients]
        plane.stop()
        plane.start()
        assert plane.status()["services"]["s"]["table_hash"] == table
        assert before == [ask(port.address, source=client) for client in clients]


def test_sticky_clients_of_a_dead_backend(plane, lines):
    """Only the clients of a dead backend move, and they come back when it does."""
    clients = [f"127.0.0.{number}" for number in range(1, 40)]
    addresses = [server.address for server in lines]
    with through(plane, *addresses, mode="sticky", health=CHECKED) as service:
        service.wait_health(**dict.fromkeys(addresses, "up"))
        before = {client: ask(service.address, source=client) for client in clients}
        lines[0].refuse()
        service.wait_health(**{addresses[0]: "down"})
        meanwhile = {client: ask(service.address, source=client) for client in clients}
        for client, answer in before.items():
            if answer != b"one:hello\n":
                assert meanwhile[client] == answer
        moved = [meanwhile[client] for client, answer in before.items() if answer == b"one:hello\n"]
        assert set(moved) == {b"two:hello\n", b"three:hello\n"}, "they spread over all others"
        lines[0].listen_again()
        service.wait_health(**{addresses[0]: "up"})
        assert before == {client: ask(service.address, source=client) for client in clients}
