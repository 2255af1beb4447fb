"""A change of anything, live: nobody is lost for it, and what it does not concern is not touched."""

from __future__ import annotations

import contextlib
import socket
from contextlib import ExitStack
from functools import partial

import pytest

from tests.dataplane.net.through import QUIET, through
from tests.support.backends import BannerServer, EchoServer, LineServer
from tests.support.clients import ask, dial, read_exactly, read_to_end, wait_cut
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.process import answers
from tests.support.server import Connection
from tests.support.wait import wait_for


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


def say(sock, line=b"hello\n"):
    """Send a line, and return who answered it."""
    sock.sendall(line)
    answer = b""
    while not answer.endswith(b"\n"):
        answer += sock.recv(4096)
    assert answer.endswith(b":" + line)
    return answer.partition(b":")[0].decode()


def test_a_hundred_snapshots_under_load(plane, lines):
    """100 changes of all kinds while clients come and flows talk: not one of them fails."""
    addresses = [server.address for server in lines]
    kinds = [
        {"mode": "leastconn"},
        {"mode": "sticky"},
        {"mode": "p2c"},
        {"mode": "random"},
        {"pool": {"mode": "reuse"}},
        {"pool": {"mode": "preconnect", "min_idle": 3}},
        {"timeouts": {"idle": "5m", "lifetime": "1h"}},
        {"limits": {"connections": 500, "per_backend": 300, "per_client": 400, "queue": 100}},
        {"limits": {"client_rate": 100_000.0}},
        {"access": {"allow": ["127.0.0.0/8"]}},
        {"retries": 1},
        {"slow_start": "1s"},
        {"balance_workers": True},
        {"health": {"active": {"type": "tcp", "interval": "200ms"}}},
        {"seed": "another"},
    ]
    with (
        HeldPort() as second,
        through(plane, *addresses) as service,
        Load(service.address, rate=300, flows=20) as load,
    ):
        load.wait_flows()
        for number in range(100):
            options = kinds[number % len(kinds)]
            backends = [{"address": addresses[0], "weight": 1 + number % 3}, addresses[1]]
            if number % 2:
                backends.append({"address": addresses[2], "tier": number % 4 // 2})
            listen = [service.address, second.address] if number % 3 else service.address
            service.configure(*backends, **options, listen=listen)
        load.wait_progress(clients=20, pings=20)
        report = load.stop()
        assert not report.failures, report.details
        assert report.started == report.succeeded
        assert not set(service.status()["totals"]["closed"]) - {"client_closed"}


def test_an_update_leaves_pooled_connections_alone(plane):
    """A backend that an update does not touch keeps its pooled connections: it sees the same source ports."""
    ports = []

    class Noting(BannerServer):
        async def serve(self, connection: Connection) -> None:
            ports.append(connection.sock.getpeername()[1])
            await super().serve(connection)

    ages = {"idle_timeout": "1h", "max_age": "1h", "greeting_age": "1h"}
    pool = {"mode": "preconnect", "min_idle": 4, **ages}
    with Noting("one") as one, LineServer("two") as two, through(plane, one.address, pool=pool) as service:
        one.wait_until(lambda: len(ports) == 4, "all four to be served")
        service.wait(lambda now: now["backends"][0]["pooled"] == 4)
        pooled = list(ports)
        for number in range(20):
            service.configure(
                one.address,
                {"address": two.address, "weight": 1 + number},
                pool={**pool, "max_idle": 100 + number},
                timeouts={"idle": f"{number + 1}m"},
                mode=("rr", "leastconn")[number % 2],
            )
        service.configure(one.address, pool=pool)
        assert service.status()["backends"][0]["pooled"] == 4
        assert service.status()["backends"][0]["totals"]["pool"]["discarded"] == {}
        assert ports == pooled
        with dial(service.address) as client:
            assert read_exactly(client, 10) == b"220 ready\n"
        assert service.backend(one.address)["totals"]["pool"]["hits"] == 1


def test_the_rotation_goes_on(plane, lines):
    """Rule 8: round robin goes on with the next one after an update, instead of with the first."""
    with through(plane, *(server.address for server in lines)) as service:
        seen = []
        for number in range(9):
            seen.append(ask(service.address).partition(b":")[0])
            service.configure(*(server.address for server in lines), timeouts={"idle": f"{number + 1}m"})
        assert seen == [b"one", b"two", b"three"] * 3


def test_counters_survive(plane, lines):
    """Rule 8: an update keeps the counters of a service and of the backends that stay."""
    one, two, _ = lines
    with through(plane, one.address, two.address) as service:
        for _ in range(4):
            ask(service.address)
        service.configure(one.address, mode="leastconn")
        status = service.wait(lambda now: now["active"] == 0)
        assert status["totals"]["connections"] == 4
        assert service.backend(one.address)["totals"]["connections"] == 2


class TestRemoving:
    """What is removed gets nothing new; what it has stays until the drain timeout."""

    def test_a_backend(self, plane, lines):
        """A removed backend keeps its connections, and stays in the status until the last has gone."""
        one, two, _ = lines
        with through(plane, one.address, two.address) as service:
            with dial(service.address) as client:
                assert say(client) == "one"
                service.configure(two.address)
                left = service.backend(one.address)
                assert (left["removed"], left["state"], left["active"]) == (True, "drain", 1)
                assert left["draining_since"]
                assert {ask(service.address) for _ in range(4)} == {b"two:hello\n"}
                assert say(client) == "one"
            service.wait(lambda now: [backend["id"] for backend in now["backends"]] == [two.address])

    def test_a_backend_that_comes_back(self, plane, lines):
        """A backend that is added again while it drains keeps its connections for good, and takes new ones."""
        one, two, _ = lines
        drain = {"timeout": "400ms", "close": "0s"}
        with through(plane, one.address, drain=drain) as service, dial(service.address) as client:
            assert say(client) == "one"
            service.configure(two.address, drain=drain)
            service.configure(one.address, drain=drain)
            back = service.backend(one.address)
            assert (back["state"], back["active"], back["draining_since"]) == ("enabled", 1, None)
            assert "removed" not in back
            # as long as the deadline was: another connection that is drained now outlives it
            service.configure(one.address, {"address": two.address, "weight": 0}, drain=drain)
            with dial(service.address) as other:
                assert say(other) == "one"
            wait_after(plane, service, drain)
            assert say(client) == "one"

    def test_a_service(self, plane, lines):
        """A removed service closes its listener at once, and its connections stay until they end."""
        one, *_ = lines
        with through(plane, one.address) as service, dial(service.address) as client:
            assert say(client) == "one"
            plane.put_snapshot({})
            wait_for(lambda: not answers(service.address), "the listener to close")
            assert say(client) == "one"
            status = service.status()
            assert (status["listeners"], status["active"]) == ([], 1)
            client.shutdown(socket.SHUT_WR)
            assert read_to_end(client) == b""
            plane.wait_status(lambda now: service.name not in now["services"])

    def test_a_service_that_comes_back(self, plane, lines):
        """A service that is added again while it drains takes its connections and its counters back."""
        one, two, _ = lines
        with through(plane, one.address) as service, dial(service.address) as client:
            assert say(client) == "one"
            plane.put_snapshot({})
            service.configure(one.address, two.address)
            assert say(client) == "one"
            status = service.status()
            assert status["active"] == 1
            assert status["totals"]["connections"] == 1
            assert {ask(service.address) for _ in range(4)} == {b"one:hello\n", b"two:hello\n"}
            plane.put_snapshot({})
            plane.put_snapshot({})
            assert say(client) == "one"

    def test_a_listener(self, plane, lines):
        """A removed listener's connections stay: the service is still there."""
        one, *_ = lines
        with HeldPort() as second, through(plane, one.address) as service:
            service.configure(one.address, listen=[service.address, second.address])
            with dial(second.address) as client:
                assert say(client) == "one"
                service.configure(one.address)
                assert not answers(second.address)
                assert say(client) == "one"

    def test_clients_in_the_queue_of_a_listener(self, plane, lines):
        """Whoever is in a listener's queue when it is removed is served: no connection is reset."""
        one, *_ = lines
        with HeldPort() as second, through(plane, one.address) as service:
            for _ in range(20):
                service.configure(one.address, listen=[service.address, second.address])
                clients = [dial(second.address) for _ in range(5)]
                service.configure(one.address)
                for client in clients:
                    with client:
                        assert say(client) == "one"


def wait_after(plane, service, drain):
    """Wait until a connection that begins to drain now has been cut."""
    with LineServer("marker") as marker, HeldPort() as port:
        options = {"listen": port.address, "drain": drain, **QUIET}
        both = {
            service.name: service.options,
            f"{service.name}-marker": {**options, "backends": [marker.address]},
        }
        plane.put_snapshot(both)
        with dial(port.address) as client:
            assert say(client) == "marker"
            plane.put_snapshot({service.name: service.options})
            wait_cut(client)


class TestDraining:
    """`drain` and `disabled`, by snapshot and by hand."""

    @pytest.mark.parametrize("state", ["drain", "disabled"])
    def test_by_hand_and_back(self, plane, lines, state):
        """PATCH takes a backend out and back in; its connections stay meanwhile, its pool does not."""
        one, two, _ = lines
        pool = {"mode": "preconnect", "min_idle": 2}
        with through(plane, one.address, two.address, pool=pool) as service, dial(service.address) as client:
            assert say(client) == "one"
            service.wait(lambda now: now["backends"][0]["pooled"] >= 2)
            path = f"/v1/services/{service.name}/backends/{one.address}"
            assert plane.request("PATCH", path, {"state": state})[0] == 200
            status = service.backend(one.address)
            assert (status["state"], status["pooled"], status["active"]) == (state, 0, 1)
            assert status["overridden"]["state"]["value"] == state
            assert status["totals"]["pool"]["discarded"]["unusable"] >= 2
            assert {ask(service.address) for _ in range(4)} == {b"two:hello\n"}
            assert say(client) == "one"
            assert plane.request("PATCH", path, {"state": "enabled"})[0] == 200
            assert service.backend(one.address)["overridden"] == {}
            assert {ask(service.address) for _ in range(4)} == {b"one:hello\n", b"two:hello\n"}
            assert say(client) == "one"

    def test_what_is_left_is_spread(self, plane):
        """What is left at the drain timeout is closed over `drain.close`, not all at once."""
        drain = {"timeout": "100ms", "close": "500ms"}
        with EchoServer() as one, through(plane, one.address, drain=drain) as service, ExitStack() as stack:
            clients = [stack.enter_context(dial(service.address)) for _ in range(6)]
            service.wait(lambda now: now["active"] == 6)
            service.configure({"address": one.address, "state": "drain"}, drain=drain)
            left = set()
            service.wait(lambda now: left.add(now["active"]) or now["active"] == 0)
            assert len(left) >= 4, f"all at once: {left}"
            for client in clients:
                assert client.recv(1) == b""
            service.wait_closed(drain_timeout=6)

    def test_overrides_end_when_their_field_changes(self, plane, lines):
        """A snapshot that repeats a field leaves the override, one that changes the field ends it."""
        one, two, _ = lines
        with through(plane, one.address, two.address) as service:
            path = f"/v1/services/{service.name}/backends/{one.address}"
            assert plane.request("PATCH", path, {"state": "drain", "weight": 7})[0] == 200
            service.configure(one.address, two.address, mode="leastconn")
            status = service.backend(one.address)
            assert (status["state"], status["weight"]) == ("drain", 7)
            assert plane.get("/v1/snapshot")["services"][service.name]["backends"][0]["state"] == "enabled"
            service.configure({"address": one.address, "weight": 3}, two.address)
            status = service.backend(one.address)
            assert (status["state"], status["weight"]) == ("drain", 3)
            assert status["overridden"].keys() == {"state"}
            service.configure({"address": one.address, "weight": 3, "state": "disabled"}, two.address)
            service.configure({"address": one.address, "weight": 3}, two.address)
            status = service.backend(one.address)
            assert (status["state"], status["overridden"]) == ("enabled", {})

    def test_overrides_of_what_is_removed(self, plane, lines):
        """A backend that is removed and added again has no override any more."""
        one, two, _ = lines
        with through(plane, one.address, two.address) as service:
            plane.request("PATCH", f"/v1/services/{service.name}/backends/{one.address}", {"weight": 0})
            service.configure(two.address)
            service.configure(one.address, two.address)
            assert service.backend(one.address)["weight"] == 1

    def test_weight_zero(self, plane, lines):
        """Weight 0 takes no new connection, and leaves those in place alone, without any deadline."""
        one, two, _ = lines
        drain = {"timeout": "0s", "close": "0s"}
        with (
            through(plane, one.address, two.address, drain=drain) as service,
            dial(service.address) as client,
        ):
            assert say(client) == "one"
            plane.request("PATCH", f"/v1/services/{service.name}/backends/{one.address}", {"weight": 0})
            assert {ask(service.address) for _ in range(4)} == {b"two:hello\n"}
            assert say(client) == "one"


class TestAddresses:
    """Where clients and backends may be."""

    def test_another_address(self, plane, lines):
        """A backend whose address changes keeps its id and counters; new clients go to the new address."""
        one, two, _ = lines
        with through(plane, {"id": "db", "address": one.address}) as service, dial(service.address) as client:
            assert say(client) == "one"
            service.configure({"id": "db", "address": two.address})
            assert ask(service.address) == b"two:hello\n"
            assert say(client) == "one", "what is in place is drained, not cut"
            assert service.backend("db")["totals"]["connections"] == 2

    def test_a_listener_moves_to_another_service(self, plane, lines):
        """An address that changes its service is never closed: no client is refused meanwhile."""
        one, two, _ = lines
        with HeldPort() as port, Load(port.address, rate=300) as load:
            options = {"listen": port.address, **QUIET}
            plane.put_snapshot({"a": {**options, "backends": [one.address]}})
            before = load.report.failures.copy()
            load.wait_progress()
            for number in range(20):
                name, backend = (("b", two), ("a", one))[number % 2]
                plane.put_snapshot({name: {**options, "backends": [backend.address]}})
            load.wait_progress()
            report = load.stop()
            report.failures -= before
            assert not report.failures, report.details
            assert set(report.answered_by) == {"one", "two"}
            plane.put_snapshot({})

    def test_unix_sockets(self, plane, tmp_path):
        """Clients and backends on Unix sockets; the file goes with the listener."""
        front = f"unix:{plane.directory}/front.sock"
        with (
            LineServer("one", unix=plane.directory / "back.sock") as one,
            through(plane, one.address) as service,
        ):
            service.configure(one.address, listen=[front, service.address])
            assert ask(front) == ask(service.address) == b"one:hello\n"
            service.configure(one.address)
            assert not (plane.directory / "front.sock").exists()

    def test_a_stale_unix_socket(self, plane, lines):
        """A socket file that nobody listens on is replaced; one that is alive is not."""
        one, *_ = lines
        path = plane.directory / "stale.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        with through(plane, one.address) as service:
            service.configure(one.address, listen=[service.address, f"unix:{path}"])
            assert ask(f"unix:{path}") == b"one:hello\n"

    def test_a_unix_socket_in_use(self, plane, lines):
        """A socket that is alive, another kind of file, a missing folder: 503, in a dry run too, and nothing changes."""
        one, *_ = lines
        path = plane.directory / "used.sock"
        file = plane.directory / "file"
        file.write_text("mine")
        with LineServer("other", unix=path) as other, through(plane, one.address) as service:
            for address in (other.address, f"unix:{file}", f"unix:{plane.directory}/missing/x.sock"):
                wanted = {"listen": address, "backends": []}
                body = {"version": 1, "generation": 10**9, "services": {"s": wanted}}
                for query in ("?dry_run=true", ""):
                    status, answer = plane.request("PUT", f"/v1/snapshot{query}", body)
                    assert (status, answer["code"]) == (503, "bind_failed")
                    assert address in answer["message"]
            assert ask(other.address) == b"other:hello\n"
            assert ask(service.address) == b"one:hello\n"
            assert file.read_text() == "mine"

    def test_a_dry_run_removes_nothing(self, plane, lines):
        """A stale socket file survives a dry run."""
        path = plane.directory / "old.sock"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        body = {
            "version": 1,
            "generation": 10**9,
            "services": {"s": {"listen": f"unix:{path}", "backends": []}},
        }
        assert plane.request("PUT", "/v1/snapshot?dry_run=true", body)[0] == 200
        assert path.exists()

    def test_ipv6(self, plane):
        """IPv6 on both sides."""
        with LineServer("six", host="::1") as six, HeldPort("::1") as port, through(plane) as service:
            service.configure(six.address, listen=port.address)
            assert ask(port.address) == b"six:hello\n"

    def test_host_names(self, plane, lines):
        """A backend's host name is resolved; one that does not resolve is skipped, and says why."""
        one, *_ = lines
        with through(plane, f"localhost:{one.port}", "no-such-host.invalid:80") as service:
            service.wait(lambda now: now["backends"][0]["health"]["cause"] == "" or ask_ok(service))
            service.wait(lambda now: "name not resolved" in now["backends"][1]["health"]["cause"])
            assert {ask(service.address) for _ in range(4)} == {b"one:hello\n"}
            explained = plane.get(f"/v1/explain?service={service.name}&client=127.0.0.1")
            assert explained["skipped"] == [{"id": "no-such-host.invalid:80", "reason": "unresolved"}]


def ask_ok(service):
    """Tell whether the service answers."""
    with dial(service.address) as client, contextlib.suppress(ConnectionResetError):
        client.sendall(b"hello\n")
        return bool(client.recv(100))
    return False  # nobody has read the question: there is no backend yet


def test_many_at_once(plane, lines):
    """Fifty services with two listeners each come and go in one snapshot."""
    one, *_ = lines
    with ExitStack() as stack:
        ports = [stack.enter_context(HeldPort()) for _ in range(100)]
        services = {
            f"many-{number}": {
                "listen": [ports[2 * number].address, ports[2 * number + 1].address],
                "backends": [one.address],
                **QUIET,
            }
            for number in range(50)
        }
        plane.put_snapshot(services)
        assert {ask(port.address) for port in ports} == {b"one:hello\n"}
        plane.put_snapshot({})
        assert not any(map(partial(answers), (port.address for port in ports)))
