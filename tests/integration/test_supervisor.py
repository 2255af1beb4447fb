"""A supervisor with two workers: one API, one truth, limits of the node."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.backends import LineServer, Resetter
from tests.support.clients import say
from tests.support.dataplane import DataPlane, command
from tests.support.ports import HeldPort
from tests.support.process import Program
from tests.support.server import Server
from tests.support.wait import DEADLINE_S, wait_for

WORKERS = 2
UNCHECKED = {"active": {"type": "none"}}


class Site:
    """A data plane, a port, and whatever a test adds."""

    def __init__(self, stack: ExitStack, plane: DataPlane) -> None:
        self._stack = stack
        self.port = stack.enter_context(HeldPort())
        self.plane = plane

    def backend(self, name: str, kind: Callable[[str], Server] = LineServer) -> dict[str, Any]:
        """Start a backend and return it as a snapshot names it."""
        server = self._stack.enter_context(kind(name))
        return {"id": name, "address": server.address}

    def put(self, *backends: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Run one service."""
        return self.plane.put_snapshot(
            {"web": {"listen": self.port.address, "backends": list(backends), "health": UNCHECKED, **options}}
        )

    def client(self) -> socket.socket:
        """Connect a client, which stays until the end of the test."""
        client = socket.create_connection((self.port.host, self.port.port), timeout=10)
        return self._stack.enter_context(client)

    def clients(self, count: int) -> list[tuple[socket.socket, str]]:
        """Connect clients and return each with the name of its backend; an empty one was turned away."""
        clients = []
        for _ in range(count):
            client = self.client()
            clients.append((client, say(client)))
        return clients

    def service(self) -> dict[str, Any]:
        """Return the service's status."""
        service: dict[str, Any] = self.plane.status()["services"]["web"]
        return service


@pytest.fixture(scope="module")
def running() -> Iterator[DataPlane]:
    """One supervisor for all tests: starting three processes is what costs time here."""
    with DataPlane(["--workers", str(WORKERS)]) as plane:
        yield plane


@pytest.fixture
def site(running: DataPlane) -> Iterator[Site]:
    """A supervisor that runs nothing; its former workers and clients, if any, are gone."""
    with ExitStack() as stack:
        yield Site(stack, running)
    running.put_snapshot({})
    running.wait_status(lambda status: not status["services"])


@pytest.fixture
def fresh() -> Iterator[Site]:
    """A supervisor of the test's own, which never had a snapshot."""
    with ExitStack() as stack:
        yield Site(stack, stack.enter_context(DataPlane(["--workers", str(WORKERS)])))


# -- one truth ----------------------------------------------------------------------------------------


def test_info_and_status_name_every_worker(site: Site) -> None:
    """The supervisor answers for all; each worker runs what it runs, and their clients are its clients."""
    site.put(site.backend("a"))
    clients = site.clients(20)
    info, status = site.plane.get("/v1/info"), site.plane.status()
    assert (info["workers"], info["pid"]) == (WORKERS, site.plane.pid)
    workers = status["workers"]
    assert [worker["index"] for worker in workers] == [0, 1]
    assert {(worker["generation"], worker["hash"]) for worker in workers} == {
        (info["generation"], info["hash"])
    }
    assert sum(worker["active"] for worker in workers) == len(clients)
    assert all(worker["active"] for worker in workers), "the kernel spreads clients over workers"
    service = status["services"]["web"]
    assert (service["active"], service["totals"]["connections"]) == (20, 20)
    assert service["listeners"] == [{"address": site.port.address, "state": "accepting", "accepted": 20}]
    assert service["backends"][0]["active"] == service["backends"][0]["totals"]["connections"] == 20


def test_a_supervisor_that_ends_has_closing_listeners(fresh: Site) -> None:
    """Nothing is wrong with them: they are not paused, and no gauge says so."""
    fresh.put(fresh.backend("a"))
    client = fresh.client()
    assert say(client) == "a"
    fresh.plane.send_signal(signal.SIGTERM)
    fresh.plane.wait_draining()
    status = fresh.plane.status()
    assert [one["state"] for one in status["services"]["web"]["listeners"]] == ["closing"]
    assert fresh.plane.metrics().values("lb_listener_accepting") == []


def test_metrics_are_one_scrape_of_sums_that_never_fall(site: Site) -> None:
    """Counters are sums over workers and keep what ended workers had counted; gauges mean the node."""
    site.put(site.backend("a"))
    for client, _ in site.clients(10):
        client.close()
    site.plane.wait_status(lambda status: status["services"]["web"]["active"] == 0)
    before = site.plane.metrics()
    assert before.value("lb_connections_total", service="web") == 10
    assert before.value("lb_session_seconds_count", service="web") == 10
    assert before.value("lb_workers") == WORKERS
    assert before.value("lb_backend_weight", backend="a") == 1
    ended = before.value("lb_worker_ends_total", cause="drained")
    assert site.plane.request("POST", "/v1/restart")[0] == 200
    wait_for(
        lambda: site.plane.metrics().value("lb_worker_ends_total", cause="drained") == ended + WORKERS,
        "former workers to end",
    )
    assert site.plane.metrics().value("lb_connections_total", service="web") == 10
    assert site.service()["totals"]["connections"] == 10
    assert site.service()["listeners"][0]["accepted"] == 10


def test_a_change_is_acknowledged_by_all_or_made_by_none(site: Site) -> None:
    """An address that cannot be had is a 503, and every worker still runs what it ran."""
    backend = site.backend("a")
    generation = site.put(backend)["generation"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        name = f"127.0.0.1:{taken.getsockname()[1]}"
        services = {"web": {"listen": [site.port.address, name], "backends": [backend]}}
        status, body = site.plane.request(
            "PUT", "/v1/snapshot", {"generation": generation + 1, "services": services}
        )
    assert (status, body["code"]) == (503, "bind_failed")
    assert {worker["generation"] for worker in site.plane.status()["workers"]} == {generation}
    assert site.clients(3)[0][1] == "a"
    status, body = site.plane.request("PUT", "/v1/snapshot", {"generation": generation, "services": services})
    assert status == 409


def test_a_plan_counts_connections_of_all_workers(site: Site) -> None:
    """The impact of a change names what drains in the whole node, and changes nothing."""
    first, second = site.backend("a"), site.backend("b")
    generation = site.put(first, second)["generation"]
    site.clients(10)
    body = {
        "generation": generation + 1,
        "services": {"web": {"listen": site.port.address, "backends": [second], "health": UNCHECKED}},
    }
    status, planned = site.plane.request("PUT", "/v1/snapshot?dry_run=true", body)
    assert status == 200
    counted = {backend["id"]: backend["active"] for backend in site.service()["backends"]}
    assert sum(counted.values()) == 10
    assert planned["impact"]["drain"] == [{"service": "web", "id": "a", "connections": counted["a"]}]
    assert site.plane.get("/v1/info")["generation"] == generation


def test_an_override_holds_in_every_worker_and_outlives_them(site: Site) -> None:
    """A drained backend gets no client from any worker, nor from those that replace them."""
    site.put(site.backend("a"), site.backend("b"))
    status, body = site.plane.request("PATCH", "/v1/services/web/backends/a", {"state": "drain"})
    assert (status, body["state"]) == (200, "drain")
    assert {name for _, name in site.clients(10)} == {"b"}
    site.plane.request("POST", "/v1/restart")
    assert {name for _, name in site.clients(10)} == {"b"}
    assert site.plane.backend("web", "a")["overridden"]["state"]["value"] == "drain"
    explained = site.plane.get("/v1/explain?service=web&client=192.0.2.1")
    assert [one["id"] for one in explained["candidates"]] == ["b"]
    assert explained["skipped"] == [{"id": "a", "reason": "drain"}]


def test_overrides_of_many_hold_in_every_worker_and_outlive_them(site: Site) -> None:
    """One call, one event; no generation is used up."""
    site.put(*(site.backend(name) for name in "abc"))
    generation = site.plane.get("/v1/info")["generation"]
    patches = {"backends": {"a": {"state": "drain"}, "b": {"weight": 0}}}
    status, body = site.plane.request("PATCH", "/v1/services/web/backends", patches)
    assert (status, body["service"]) == (200, "web")
    assert body["backends"] == [
        {"id": "a", "state": "drain", "weight": 1},
        {"id": "b", "state": "enabled", "weight": 0},
    ]
    assert {name for _, name in site.clients(10)} == {"c"}
    site.plane.request("POST", "/v1/restart")
    assert {name for _, name in site.clients(10)} == {"c"}
    assert site.plane.backend("web", "b")["overridden"]["weight"]["value"] == 0
    assert site.plane.get("/v1/info")["generation"] == generation
    assert site.plane.output.count('"event": "overrides"') == 1


def test_orphans_log_in_the_form_that_was_asked_for() -> None:
    """Text stays text when the supervisor is gone."""
    with DataPlane(["--workers", str(WORKERS), "--log-format", "text"]) as plane:
        plane.kill()
        wait_for(lambda: plane.output.count("orphaned") == WORKERS, "the workers to notice")
        plane.wait_output("[warning  ] orphaned")
        assert "{" not in plane.output


def test_sticky_is_the_same_in_every_worker(site: Site) -> None:
    """A client gets one backend whichever worker accepts it."""
    site.put(*(site.backend(name) for name in "abcde"), mode="sticky")
    assert len({name for _, name in site.clients(20)}) == 1


# -- health -------------------------------------------------------------------------------------------


def test_backends_are_checked_once_and_every_worker_knows(site: Site) -> None:
    """The supervisor alone checks; a backend that goes down gets no client from anybody, nor from a new worker."""
    with LineServer("b") as failing:
        good = site.backend("a")
        check = {"active": {"type": "tcp", "interval": "100ms", "timeout": "1s", "rise": 1, "fall": 2}}
        site.put(good, {"id": "b", "address": failing.address}, health=check)
        site.plane.wait_status(
            lambda status: (
                [one["health"]["state"] for one in status["services"]["web"]["backends"]] == ["up", "up"]
            )
        )
        failing.refuse()
        site.plane.wait_status(
            lambda status: status["services"]["web"]["backends"][1]["health"]["state"] == "down"
        )
        # the verdict and this client's connection travel separately, so nobody may be sent there from now on
        wait_for(lambda: say(site.client()) == "a" and say(site.client()) == "a", "the workers to know")
        assert {name for _, name in site.clients(10)} == {"a"}
        site.plane.request("POST", "/v1/restart")
        assert {name for _, name in site.clients(10)} == {"a"}
        assert site.plane.metrics().value("lb_backend_health", backend="b", state="down") == 1
        assert site.plane.metrics().value("lb_backend_health", backend="b", state="up") == 0


def test_a_backend_that_one_worker_ejects_is_shown_as_ejected(site: Site) -> None:
    """Passive health is each worker's own, and the node's status shows it."""
    site.put(
        site.backend("a"),
        site.backend("r", Resetter),
        health={**UNCHECKED, "passive": {"failures": 1, "ejection": "60s", "resets": "any"}},
    )
    for _ in range(6):
        say(site.client())
    status = site.plane.wait_status(
        lambda status: status["services"]["web"]["backends"][1]["health"]["state"] == "ejected"
    )
    assert "reset" in status["services"]["web"]["backends"][1]["health"]["cause"]
    site.plane.wait_output("backend_ejected")


# -- limits of the node -------------------------------------------------------------------------------


def test_connections_are_limited_per_node(site: Site) -> None:
    """`limits.connections` counts the clients of all workers, and a place that is left can be had again."""
    site.put(site.backend("a"), limits={"connections": 10})
    clients = site.clients(20)
    assert Counter(name for _, name in clients) == {"a": 10, "": 10}
    for client, _ in clients:
        client.close()
    site.plane.wait_status(lambda status: status["services"]["web"]["active"] == 0)
    assert Counter(name for _, name in site.clients(12)) == {"a": 10, "": 2}


def test_connections_of_a_killed_worker_are_not_counted_for_ever(site: Site) -> None:
    """What a killed worker had counted is gone with it."""
    site.put(site.backend("a"), limits={"connections": 10})
    site.clients(10)
    victims = [worker["pid"] for worker in site.plane.status()["workers"]]
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    site.plane.wait_status(
        lambda status: len({worker["pid"] for worker in status["workers"]} - set(victims)) == WORKERS
    )
    assert Counter(name for _, name in site.clients(12)) == {"a": 10, "": 2}


def test_backends_are_limited_per_node(site: Site) -> None:
    """`limits.per_backend` counts the clients of all workers."""
    site.put(site.backend("a"), site.backend("b"), limits={"per_backend": 5}, pool={"mode": "off"})
    assert Counter(name for _, name in site.clients(14)) == {"a": 5, "b": 5, "": 4}


def test_who_waits_gets_a_place_that_another_workers_client_has_left(site: Site) -> None:
    """A queue is served within a moment, wherever the place became free."""
    site.put(site.backend("a"), limits={"connections": 6, "queue": 100, "queue_timeout": "30s"})
    served = site.clients(6)
    waiting = [site.client() for _ in range(6)]
    for client in waiting:
        client.sendall(b"x\n")
    site.plane.wait_status(lambda status: status["services"]["web"]["queued"] == len(waiting))
    for client, _ in served:
        client.close()
    for client in waiting:
        assert client.recv(100).startswith(b"a:")


def test_clients_are_limited_per_node(site: Site) -> None:
    """`limits.per_client` counts a client's connections in all workers."""
    site.put(site.backend("a"), limits={"per_client": 7})
    clients = site.clients(14)
    assert Counter(name for _, name in clients) == {"a": 7, "": 7}


def test_rates_are_limited_per_node(site: Site) -> None:
    """`limits.client_rate` is what a client gets from all workers together: its burst, and then one at a time."""
    site.put(site.backend("a"), limits={"client_rate": 0.01})
    assert Counter(name for _, name in site.clients(10)) == {"a": 1, "": 9}


def test_leastconn_sees_the_connections_of_the_node(site: Site) -> None:
    """Workers do not each fill the same backend: what others have given it counts."""
    site.put(*(site.backend(name) for name in "abcd"), mode="leastconn")
    site.clients(1)
    taken = Counter(name for _, name in site.clients(39))
    assert sum(taken.values()) == 39
    active = [backend["active"] for backend in site.service()["backends"]]
    assert sum(active) == 40
    # what another worker did in the last 50 ms may be unknown: a few connections at this pace
    assert max(active) - min(active) <= 6, active


def test_pools_are_divided(site: Site) -> None:
    """`pool.min_idle` is the node's, however many workers there are."""
    site.put(site.backend("a"), pool={"mode": "preconnect", "min_idle": 5, "max_idle": 5})
    for count in (WORKERS + 1, WORKERS):
        site.plane.request("PUT", "/v1/workers", {"count": count})
        site.plane.wait_status(
            lambda status: (
                status["services"]["web"]["backends"][0]["pooled"] == 5
                and len(status["workers"]) == site.plane.get("/v1/info")["workers"]
            )
        )


@pytest.mark.parametrize(
    "body", [{}, {"count": 0}, {"count": True}, {"count": "2"}, {"count": 2, "x": 1}, []]
)
def test_a_number_of_workers_is_checked(site: Site, body: object) -> None:
    """Only a sensible count of workers is taken."""
    assert site.plane.request("PUT", "/v1/workers", body)[0] == 422


# -- sockets ------------------------------------------------------------------------------------------


def test_a_unix_listener_is_shared_by_all_workers(site: Site, tmp_path: Path) -> None:
    """A Unix socket has one queue, from which every worker accepts; its file goes with the listener."""
    path = site.plane.directory / "web.sock"
    services = {"web": {"listen": f"unix:{path}", "backends": [site.backend("a")], "health": UNCHECKED}}
    site.plane.put_snapshot(services)
    site.plane.request("POST", "/v1/restart")
    for _ in range(5):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(path))
            assert say(client) == "a"
    site.plane.put_snapshot({})
    assert not path.exists()


@pytest.mark.parametrize(
    "arguments",
    [["--workers", "1"], ["--workers", "2"], ["--workers", "2", "--drain-detached"]],
    ids=["single", "supervisor", "detached"],
)
def test_a_service_manager_may_open_the_sockets_and_hears_of_it(arguments: list[str]) -> None:
    """Sockets of LISTEN_FDS are used for the addresses that they have; READY and STOPPING are said."""
    with ExitStack() as stack:
        backend = stack.enter_context(LineServer("a"))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        program = Program([])
        heard = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        heard.bind(str(program.directory / "notify"))
        heard.settimeout(DEADLINE_S)
        # as a service manager does it: descriptor 3, and LISTEN_PID of the process itself
        program.argv = [
            "/bin/sh",
            "-c",
            'LISTEN_PID=$$ exec "$0" "$@" 3<&0',
            command("lb-dataplane"),
            *(*arguments, "--name", "test"),
            *("--runtime-dir", f"{program.directory}/run", "--state-dir", f"{program.directory}/state"),
        ]
        program._environment |= {
            "LISTEN_FDS": "1",
            "NOTIFY_SOCKET": str(program.directory / "notify"),
            "LISTEN": address,
            "BACKENDS": backend.address,
        }
        stack.callback(program.close)
        for _ in range(2):  # the second time with what the first has left on the socket
            _spawn_with_stdin(program, listener)
            assert heard.recv(100) == b"READY=1\nMAINPID=%d" % program.pid
            with socket.create_connection(listener.getsockname(), timeout=10) as client:
                assert say(client) == "a"
            assert program.stop() == 0
            assert heard.recv(100) == b"STOPPING=1"


def _spawn_with_stdin(program: Program, stdin: socket.socket) -> None:
    with program._log.open("ab") as log:
        program._process = subprocess.Popen(
            program.argv,
            stdin=stdin,
            stdout=log,
            stderr=log,
            env=program._environment,
            cwd=program.directory,
            start_new_session=True,
        )
    program._groups.append(program._process.pid)


def test_one_worker_for_each_core_and_one_access_log(tmp_path: Path) -> None:
    """`auto` starts as many workers as there are cores to use, tied to one each; all write to one file."""
    cores = sorted(os.sched_getaffinity(0))
    log = tmp_path / "access.log"
    with (
        LineServer("a") as backend,
        HeldPort() as port,
        DataPlane(["--workers", "auto", "--cpu-affinity", "--access-log", str(log)]) as plane,
    ):
        assert plane.get("/v1/info")["workers"] == len(cores)
        plane.put_snapshot({"web": {"listen": port.address, "backends": [backend.address]}})
        for _ in range(8):
            with socket.create_connection((port.host, port.port), timeout=10) as client:
                assert say(client) == "a"
        wait_for(lambda: log.exists() and len(log.read_text().splitlines()) == 8, "a line for each client")
        if len(cores) > 1:
            workers = plane.status()["workers"]
            assert [os.sched_getaffinity(worker["pid"]) for worker in workers] == [{core} for core in cores]


# -- the end, and what is refused ---------------------------------------------------------------------


def test_it_is_ready_with_a_snapshot_and_ends_in_good_order(fresh: Site) -> None:
    """SIGTERM lets connections finish, leaves no process, no socket and no lock that counts, and exits with 0."""
    assert fresh.plane.request("GET", "/readyz")[0] == 503
    assert fresh.plane.request("GET", "/livez")[0] == 200
    fresh.put(fresh.backend("a"))
    assert fresh.plane.request("GET", "/readyz")[0] == 200
    client, _ = fresh.clients(1)[0]
    fresh.plane.send_signal(signal.SIGTERM)
    wait_for(lambda: "stopping" in fresh.plane.output, "the signal to arrive")
    assert say(client) == "a"
    client.close()
    assert fresh.plane.wait() == 0
    assert not list(fresh.plane.runtime_dir.glob("*.sock"))


def test_a_restart_loads_the_code_again(site: Site) -> None:
    """All workers are forked from one process, and those of a restart from a new one."""

    def parents(pids: list[int]) -> set[str]:
        return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] for pid in pids}

    (before,) = parents([each["pid"] for each in site.plane.status()["workers"]])
    status, body = site.plane.request("POST", "/v1/restart")
    assert status == 200
    (after,) = parents(body["pids"])
    assert before != after
    assert str(site.plane.pid) not in {before, after}


def test_a_single_process_has_nothing_to_restart() -> None:
    """POST /v1/restart without workers is a conflict that names the way out."""
    with DataPlane() as plane:
        status, body = plane.request("POST", "/v1/restart")
        assert (status, body["code"]) == (409, "single_process")


def test_contradictions_are_usage_errors() -> None:
    """What cannot be meant is refused with exit code 2 before anything starts (all: `tests/dataplane/test_options.py`)."""
    plane = DataPlane(["--workers", "0"])
    try:
        plane._spawn()
        assert plane.wait() == 2
    finally:
        plane.close()


def test_a_supervisor_knows_names():
    """A backend with a host name is as usable in the supervisor's status and explanations as in its workers."""
    with LineServer("one") as server, HeldPort() as port, DataPlane(["--workers", "2"]) as plane:
        name = f"localhost:{server.address.rpartition(':')[2]}"
        plane.put_snapshot({"s": {"listen": port.address, "backends": [name]}})
        plane.wait_status(lambda now: now["services"]["s"]["tier"] == 0)
        wait_for(lambda: plane.get("/v1/explain?service=s&client=192.0.2.1")["candidates"], "a candidate")
        with socket.create_connection(("127.0.0.1", port.port), timeout=10) as client:
            assert say(client) == "one"
