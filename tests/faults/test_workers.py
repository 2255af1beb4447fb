"""Clients come in an open loop while workers die, are replaced, and hand over; not one may notice."""

from __future__ import annotations

import os
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.backends import LineServer
from tests.support.clients import dial, read_exactly
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

RATE = 150.0
FLOWS = 4


class Site:
    """Two workers, one service, two backends."""

    def __init__(self, stack: ExitStack, ports: int = 1, workers: int = 2) -> None:
        self._stack = stack
        self.backends = [stack.enter_context(LineServer(name)) for name in ("a", "b")]
        self.ports = [stack.enter_context(HeldPort()) for _ in range(ports)]
        self.plane = stack.enter_context(DataPlane(["--workers", str(workers)]))
        self.put()

    def put(self, **options: object) -> None:
        """Listen on every port, unless `listen` says otherwise."""
        self.plane.put_snapshot(
            {
                "web": {
                    "listen": [port.address for port in self.ports],
                    "backends": [backend.address for backend in self.backends],
                    **options,
                }
            }
        )

    def load(self, flows: int = FLOWS, rate: float = RATE) -> Load:
        """Clients for the last port."""
        return Load(self.ports[-1].address, rate=rate, flows=flows, timeout_s=10.0)

    def pids(self) -> list[int]:
        """Return the workers' process ids, by index."""
        return [worker["pid"] for worker in self.plane.status()["workers"]]

    def kill_worker(self, pid: int) -> int:
        """Kill a worker; return how many clients it had accepted, who are all that it may cost."""
        os.kill(pid, signal.SIGSTOP)  # it accepts nobody while we count
        wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T", "it to stop")
        own = {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}  # noqa: PTH115 - no path, a socket
        ports = {port.port for port in self.ports}
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inside = [
            row
            for row in rows
            if f"socket:[{row[9]}]" in own and int(row[1].rpartition(":")[2], 16) in ports and row[3] != "0A"
        ]
        os.kill(pid, signal.SIGKILL)
        return len(inside)

    def wait_new(self, former: list[int]) -> None:
        """Wait until two workers are there that are not among `former`."""
        self.plane.wait_status(
            lambda status: len({worker["pid"] for worker in status["workers"]} - set(former)) == 2
        )

    def successor(self, *arguments: str) -> DataPlane:
        """Return another data plane of the same name and directories, which is not started yet."""
        plane = DataPlane(["--workers", "2", *arguments], runtime_dir=self.plane.runtime_dir)
        self._stack.callback(plane.close)
        return plane

    def take_over(self) -> DataPlane:
        """Start a successor, which becomes the plane; return the one before."""
        former, self.plane = self.plane, self.successor("--takeover")
        self.plane.start()
        return former


@pytest.fixture
def site() -> Iterator[Site]:
    """Two workers with a service."""
    with ExitStack() as stack:
        yield Site(stack)


def test_a_killed_worker_costs_only_the_connections_inside_it(site: Site) -> None:
    """Whoever is in a dead worker's queue is served by its sibling at once; only who was inside may lose."""
    with site.load(flows=0) as load:
        load.wait_progress()
        inside = 0
        for index in (0, 1):
            victim = site.pids()[index]
            inside += site.kill_worker(victim)
            load.wait_until(lambda now, least=load.report.succeeded + 30: now.succeeded >= least)
            site.plane.wait_status(
                lambda status, dead=victim: (
                    dead not in (pids := [w["pid"] for w in status["workers"]]) and len(pids) == 2
                )
            )
    assert load.report.failed <= inside, load.report
    assert set(load.report.failures) <= {"short", "reset"}, load.report


def test_a_client_in_the_queue_of_a_stopped_worker_is_served_after_its_death(site: Site) -> None:
    """The queue of a worker that has hung survives its death: nobody in it is refused, reset or cut short."""
    victim = site.pids()[0]
    os.kill(victim, signal.SIGSTOP)
    with site.load(flows=0, rate=40) as load:
        # its sibling's clients are served, its own wait in the queue
        load.wait_until(lambda now: now.started >= now.succeeded + 10 or now.failed, "clients in the queue")
        os.kill(victim, signal.SIGKILL)
        load.wait_until(lambda now: now.failed or now.succeeded >= now.started - 3, "the queue to be served")
    assert not load.report.failed, load.report


def test_rolling_restarts_are_unnoticed(site: Site) -> None:
    """Short clients and long flows live through restarts of every worker."""
    with site.load() as load:
        load.wait_flows()
        former = site.pids()
        status, body = site.plane.request("POST", "/v1/restart")
        assert (status, body["workers"]) == (200, 2)
        assert not set(body["pids"]) & set(former)
        site.plane.send_signal(signal.SIGHUP)
        site.wait_new([*former, *body["pids"]])
        load.wait_progress(30, pings=30)
    assert not load.report.failed, load.report


def test_lines_that_the_supervisors_own_log_has_lost_are_counted() -> None:
    """A log that cannot be written shows in the metrics of the process that wrote it."""
    with ExitStack() as stack:
        plane = DataPlane(["--workers", "1"])
        stack.callback(plane.close)
        plane.argv = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", *plane.argv]
        plane.start()
        wait_for(lambda: plane.metrics().value("lb_log_lines_dropped_total"), "a lost line")


def test_more_and_fewer_workers_are_unnoticed(site: Site) -> None:
    """Growing and shrinking loses nobody: sockets of workers that go are served by the others."""
    with site.load() as load:
        load.wait_flows()
        for count in (3, 1, 2):
            status, body = site.plane.request("PUT", "/v1/workers", {"count": count})
            assert (status, body) == (200, {"workers": count})
            assert site.plane.get("/v1/info")["workers"] == len(site.pids()) == count
            load.wait_progress(20)
    assert not load.report.failed, load.report


def test_takeovers_are_unnoticed(site: Site) -> None:
    """Short clients and long flows live through upgrades of everything; who hands over drains and exits with 0."""
    ended = []
    with site.load() as load:
        load.wait_flows()
        for _ in range(2):
            ended.append(site.take_over())
            load.wait_progress(30, pings=10)
            assert site.plane.get("/v1/info")["generation"] == 1
    assert not load.report.failed, load.report
    assert [former.wait(15) for former in ended] == [0, 0]


def test_a_takeover_that_fails_leaves_the_old_process_in_charge(site: Site) -> None:
    """A successor that is killed before it accepts changes nothing, and the next one gets everything."""
    with site.load(flows=0) as load:
        load.wait_progress()
        site.plane.send_signal(signal.SIGSTOP)
        failing = site.successor("--takeover")
        failing._spawn()
        wait_for(lambda: failing.poll() is None, "the successor to start")
        failing.kill()
        site.plane.send_signal(signal.SIGCONT)
        load.wait_progress()
        assert site.plane.get("/readyz") == {"status": "ok"}
        site.take_over()
        load.wait_progress()
    assert not load.report.failed, load.report


@pytest.mark.parametrize("workers", [1, 2])
def test_a_takeover_that_cannot_have_its_ports_changes_nothing(tmp_path: Path, workers: int) -> None:
    """A port of --api or --metrics that somebody else holds ends the successor, and nobody is refused meanwhile."""
    token = tmp_path / "token"
    token.write_text("secret")
    with ExitStack() as stack:
        site = Site(stack, workers=workers)
        held = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with site.load() as load:
            load.wait_flows()
            for arguments in (["--metrics", address], ["--api", address, "--token-file", str(token)]):
                failing = site.successor("--takeover", *arguments)
                failing._spawn()
                assert failing.wait(20) == 1
                failing.wait_output(f"{arguments[0]}: cannot listen on {address}")
                load.wait_progress(30, pings=10)
            assert "handed_over" not in site.plane.output
            assert site.plane.get("/readyz") == {"status": "ok"}
            site.take_over()
            load.wait_progress(30, pings=10)
        assert not load.report.failed, load.report


_ONE_WORKER_ONLY = """
import os, time

forks = 0

def begin():
    global forks
    forks += 1
    if forks == 1:  # what workers are forked from
        return
    folder = os.path.dirname(__file__)
    try:
        open(folder + "/first", "x")
    except FileExistsError:
        while not os.path.exists(folder + "/go"):
            time.sleep(0.01)
        os._exit(1)

os.register_at_fork(after_in_child=begin)
"""


def test_clients_of_a_takeover_that_fails_later_are_served_to_their_end(tmp_path: Path) -> None:
    """When one new worker serves already and the other cannot start, who is with the first is not cut."""
    (tmp_path / "sitecustomize.py").write_text(_ONE_WORKER_ONLY)
    with ExitStack() as stack:
        site = Site(stack, workers=1)
        environment = {"PYTHONPATH": str(tmp_path)}
        failing = DataPlane(
            ["--workers", "2", "--takeover"], environment=environment, runtime_dir=site.plane.runtime_dir
        )
        stack.callback(failing.close)
        failing._spawn()
        wait_for(lambda: "worker_ready" in failing.output, "the first of the new workers")
        site.plane.send_signal(signal.SIGSTOP)  # so that only the new one can accept
        client = stack.enter_context(dial(site.ports[0].address))
        client.sendall(b"x\n")
        assert read_exactly(client, 4)[1:] == b":x\n"
        site.plane.send_signal(signal.SIGCONT)
        (tmp_path / "go").touch()
        wait_for(lambda: "takeover_failed" in site.plane.output, "the old one to know")
        wait_for(lambda: "takeover_failed" in failing.output, "the new one to give up")
        client.sendall(b"y\n")
        assert read_exactly(client, 4)[1:] == b":y\n"
        assert failing.poll() is None
        client.close()
        assert failing.wait(20) == 1
        failing.wait_output("a worker could not start")
        assert site.plane.get("/readyz") == {"status": "ok"}


def test_a_takeover_with_a_wrong_config_changes_nothing(site: Site, tmp_path: Path) -> None:
    """--config is read before anything is taken."""
    wrong = tmp_path / "lb.yaml"
    wrong.write_text("version: 1\nservices: {web: {listen: nowhere}}\n")
    failing = site.successor("--takeover", "--config", str(wrong))
    failing._spawn()
    assert failing.wait(20) == 2
    failing.wait_output(f"{wrong}: line 2")
    assert "takeover_begins" not in site.plane.output
    assert site.plane.get("/readyz") == {"status": "ok"}


def test_a_successor_without_the_apis_socket_serves_clients_until_it_has_it(site: Site) -> None:
    """After the handover nothing ends the process: what is in the way of the API is told, and waited for."""
    with site.load() as load:
        load.wait_flows()
        former, path = site.plane, site.plane.socket
        path.unlink()
        path.mkdir()
        site.plane = site.successor("--takeover")
        site.plane._spawn()
        wait_for(lambda: "api_not_served" in site.plane.output, "the successor to tell")
        load.wait_progress(30, pings=10)
        path.rmdir()
        wait_for(site.plane.ready, "the API")
        load.wait_progress()
    assert not load.report.failed, load.report
    assert former.wait(15) == 0


def test_a_start_that_cannot_have_its_ports_takes_nothing_from_orphans(site: Site) -> None:
    """A supervisor that is started again after a kill sees to its ports before it asks for the sockets."""
    site.plane.kill()
    with socket.create_server(("127.0.0.1", 0)) as held:
        failing = site.successor("--metrics", f"127.0.0.1:{held.getsockname()[1]}")
        failing._spawn()
        assert failing.wait(20) == 1
    failing.wait_output("--metrics: cannot listen on")
    assert "worker_ready" not in failing.output


def test_takeover_of_nothing_fails(site: Site) -> None:
    """Without a running process, --takeover says so and exits with 1."""
    site.plane.stop()
    late = site.successor("--takeover")
    late._spawn()
    assert late.wait(20) == 1
    late.wait_output("nothing to take over")


def test_workers_of_a_killed_supervisor_serve_until_a_new_one_has_the_sockets(site: Site) -> None:
    """A supervisor that is killed and started again loses nobody: its orphans hand their sockets over."""
    with site.load() as load:
        load.wait_flows()
        orphans = site.pids()
        site.plane.kill()
        load.wait_progress()
        site.plane.start()
        load.wait_progress(30, pings=10)
        assert not set(site.pids()) & set(orphans)
    assert not load.report.failed, load.report
    wait_for(lambda: not any(_runs(pid) for pid in orphans), "the orphans to end")


def test_workers_of_a_killed_supervisor_end_by_themselves(site: Site) -> None:
    """Without a new supervisor, orphans stop accepting after five seconds, drain and end: no port stays open."""
    orphans = site.pids()
    site.plane.kill()
    wait_for(lambda: not any(_runs(pid) for pid in orphans), "the orphans to end")


def test_listeners_come_and_go_unnoticed_by_others(site: Site) -> None:
    """Adding and removing listeners of a service touches no client of another one."""
    more = [HeldPort() for _ in range(3)]
    with site.load() as load:
        load.wait_flows()
        for count in (1, 3, 0, 2, 0):
            site.put(listen=[site.ports[0].address, *(port.address for port in more[:count])])
            listeners = site.plane.status()["services"]["web"]["listeners"]
            assert [one["state"] for one in listeners] == ["accepting"] * (1 + count)
            load.wait_progress(5)
    assert not load.report.failed, load.report
    for port in more:
        port.release()


def test_a_worker_that_cannot_take_a_socket_is_replaced(site: Site) -> None:
    """A worker out of descriptors drains; a successor that has some takes its place, and the change is made."""
    victim = site.pids()[0]
    held = len(list(Path(f"/proc/{victim}/fd").iterdir()))
    with ExitStack() as stack, site.load() as load:
        load.wait_flows()
        resource.prlimit(victim, resource.RLIMIT_NOFILE, (held + 10, held + 10))
        # Until it knows, it accepts clients for whom it has no second descriptor.
        wait_for(
            lambda: site.plane.metrics().value("lb_descriptors_limit") < held + 10, "the limit to be known"
        )
        site.ports[:0] = [stack.enter_context(HeldPort()) for _ in range(50)]
        site.put()
        site.plane.wait_status(
            lambda status: (
                victim not in [worker["pid"] for worker in status["workers"]] and len(status["workers"]) == 2
            )
        )
        listeners = site.plane.status()["services"]["web"]["listeners"]
        assert [one["state"] for one in listeners] == ["accepting"] * 51
        load.wait_progress(10, pings=10)
    assert not load.report.failed, load.report


def test_hundreds_of_listeners_are_handed_over() -> None:
    """More descriptors than one message can bring reach workers and successors, and all of them are accepted from."""
    with ExitStack() as stack:
        site = Site(stack, ports=300)
        with site.load(flows=0, rate=50) as load:
            load.wait_progress()
            inside = site.kill_worker(site.pids()[1])
            former = site.take_over()
            load.wait_progress()
        assert load.report.failed <= inside, load.report
        assert set(load.report.failures) <= {"short", "reset"}, load.report
        listeners = site.plane.status()["services"]["web"]["listeners"]
        assert [one["state"] for one in listeners] == ["accepting"] * 300
        assert former.wait(15) == 0


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - an orphan may wait for its reaper: that is no process
        return file.read().rpartition(")")[2].split()[0] != "Z"
