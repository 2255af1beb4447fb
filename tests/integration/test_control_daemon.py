"""The daemon, against real data planes: files, restarts, kills, overrides, one writer."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.dataplane import DataPlane, unix_request
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.process import answers
from tests.support.wait import wait_for


@pytest.fixture
def address() -> Iterator[str]:
    """An address to listen on."""
    with HeldPort() as port:
        yield port.address


@pytest.fixture
def control(tmp_path_factory) -> Control:
    """Commands in directories of their own."""
    return Control(tmp_path_factory.mktemp("d"))


@pytest.fixture
def plane(control) -> Iterator[DataPlane]:
    """One data plane."""
    with DataPlane(name="a", runtime_dir=control.runtime_dir) as plane:
        yield plane


def runs(plane, key):
    """Tell whether a data plane runs a backend of this id."""
    services = plane.get("/v1/snapshot")["services"]
    return any(each["id"] == key for service in services.values() for each in service["backends"])


def test_file_is_followed_and_a_bad_one_changes_nothing(control, address, plane):
    """A good file is applied without a command; a bad one is shown with its line until it changes."""
    control.write(document(address, "127.0.0.1:1"))
    with Daemon(control, control.file) as daemon:
        wait_for(lambda: runs(plane, "127.0.0.1:1"), "the file's content")
        control.write("version: 1\nservices:\n  web:\n    listen: nowhere\n    backends: []\n")
        status = control.wait_status(lambda status: status["config_error"] and status["converged"])
        assert status["config_error"]["details"][0]["line"] == 4
        assert status["sources"][0]["state"] == "error"
        assert runs(plane, "127.0.0.1:1")
        assert "CONFIG ERROR" in control("status").out
        control.file.unlink()
        control.wait_status(lambda status: "no such file" in status["config_error"]["message"])
        control.write(document(address, "127.0.0.1:2"))
        status = control.wait_status(
            lambda status: (
                status["config_error"] is None and status["generation"] == 2 and status["converged"]
            )
        )
        assert runs(plane, "127.0.0.1:2")
        assert daemon.stop() == 0
    assert not (control.runtime_dir / "control.sock").exists()
    assert plane.poll() is None


def test_applied_state_holds_until_the_file_changes(control, address, plane):
    """An apply of another file wins over the watched one, also over a restart, and status says so."""
    other = control.directory / "other.json"
    with Daemon(control, control.write(document(address, "127.0.0.1:1"))) as daemon:
        wait_for(lambda: runs(plane, "127.0.0.1:1"), "the file's content")
        control.write(document(address, "127.0.0.1:2"))
        wait_for(lambda: runs(plane, "127.0.0.1:2"), "the file's new content")
        control.file.rename(other)
        control.write(document(address, "127.0.0.1:3"))
        wait_for(lambda: runs(plane, "127.0.0.1:3"), "the file's third content")
        assert control("apply", other).code == 0
        assert runs(plane, "127.0.0.1:2")
        daemon.kill()
        daemon.start()
        status = control.wait_status(lambda status: status["sources"])
        assert status["sources"][0]["state"] == "stale"
        assert "holds until the file changes" in status["sources"][0]["note"]
        assert f"$ lb-control apply {control.file}" in control("status").out
        assert runs(plane, "127.0.0.1:2")
        assert control("apply", control.file).code == 0
        control.wait_status(lambda status: status["sources"][0]["state"] == "ok")
        assert control("apply", other).code == 0
        daemon.send_signal(signal.SIGHUP)
        wait_for(lambda: runs(plane, "127.0.0.1:3"), "the file's content, asked for by SIGHUP")


def test_file_whose_port_is_taken_is_to_be_planned_and_tried_again(control, plane):
    """The content is valid, so the hint is `plan`; when the port is free, the daemon takes it by itself."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with Daemon(control, control.write(document(address, "127.0.0.1:1"))):
            status = control.wait_status(lambda status: status["config_error"])
            message = status["config_error"]["message"]
            assert "cannot listen" in message
            assert message.endswith("; it is tried again by itself, at least every 30 s")
            shown = control("status").out
            assert f"$ lb-control plan {control.file}" in shown
            taken.close()
            control.wait_status(lambda status: status["config_error"] is None)
            assert runs(plane, "127.0.0.1:1")


def test_file_that_could_not_be_read_for_want_of_descriptors_is_taken(control, address, plane):
    """When there are descriptors again nothing about the file has changed: the daemon reads it all the same."""
    with Daemon(control, control.write(document(address, "127.0.0.1:1"))) as daemon:
        control.wait_status(lambda status: status["converged"] and status["services"])
        soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard))
        control.write(document(address, "127.0.0.1:2"))
        wait_for(lambda: f"{control.file}: too many open files" in daemon.output, "the failure in the log")
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
        wait_for(lambda: runs(plane, "127.0.0.1:2"), "the new content")
        control.wait_status(lambda status: status["config_error"] is None)


def test_second_daemon_is_refused_with_the_first_ones_pid(control, address):
    """One runtime directory has one daemon, and the first goes on."""
    with Daemon(control) as daemon:
        second = control("run")
        assert second.code == 1
        assert f"in use by pid {daemon.pid}" in second.err
        assert unix_request(daemon.socket, "GET", "/livez")[0] == 200
        # Another runtime directory, but the same history: there is one writer.
        third = control("--runtime-dir", control.directory / "elsewhere", "run")
        assert third.code == 1
        assert f"in use by pid {daemon.pid}" in third.err


def test_data_planes_come_and_go(control, address):
    """One that appears, restarts or lost everything gets what was accepted, and the overrides."""
    control.write(document(address, "127.0.0.1:1"))
    with Daemon(control, control.file) as daemon, contextlib.ExitStack() as stack:
        control.wait_status(lambda status: status["generation"] == 1)
        plane = stack.enter_context(DataPlane(["--reuseport"], name="a", runtime_dir=control.runtime_dir))
        wait_for(lambda: runs(plane, "127.0.0.1:1"), "the first data plane to be found")
        assert control("drain", "web", "127.0.0.1:1").code == 0
        late = stack.enter_context(DataPlane(["--reuseport"], name="b", runtime_dir=control.runtime_dir))
        wait_for(lambda: runs(late, "127.0.0.1:1"), "the second data plane to be found")
        wait_for(lambda: late.backend("web", "127.0.0.1:1")["state"] == "drain", "the override")
        plane.kill()
        (plane.state_dir / "snapshot.json").unlink(missing_ok=True)
        for file in plane.state_dir.rglob("*.json"):
            file.unlink()
        plane.start()
        wait_for(lambda: runs(plane, "127.0.0.1:1"), "the snapshot after a restart")
        wait_for(
            lambda: plane.backend("web", "127.0.0.1:1")["state"] == "drain", "the override after a restart"
        )
        control.wait_status(lambda status: status["converged"] and len(status["dataplanes"]) == 2)
        late.stop()
        control.wait_status(lambda status: len(status["dataplanes"]) == 1)
        assert daemon.poll() is None


def test_daemon_with_a_full_log_disk(control, address, plane):
    """It serves as always, and status says that its log is lost, and why."""
    running = Daemon(control, control.write(document(address, "127.0.0.1:1")))
    running.argv = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", *running.argv]
    with running as daemon:
        wait_for(lambda: runs(plane, "127.0.0.1:1"), "the file's content")
        status = control.wait_status(lambda status: any(each["name"] == "log" for each in status["sources"]))
        (row,) = (each for each in status["sources"] if each["name"] == "log")
        assert (row["state"], "No space left on device" in row["last_error"]) == ("error", True)
        control.write(document(address, "127.0.0.1:2"))
        wait_for(lambda: runs(plane, "127.0.0.1:2"), "the file's new content")
        assert daemon.poll() is None
        assert daemon.stop() == 0


def test_two_daemons_for_one_data_plane(control, address, plane, tmp_path_factory):
    """Both say who the other is, push ever more rarely, and write none of it to their histories."""
    other = Control(tmp_path_factory.mktemp("e"))
    with Daemon(control, control.write(document(address, "127.0.0.1:1"))) as first:
        wait_for(lambda: runs(plane, "127.0.0.1:1"), "the first one's content")
        second = Daemon(other, other.write(document(address, "127.0.0.1:2")))
        second.argv[1:1] = ["--dataplane", str(plane.socket)]
        with second:
            told = control.wait_status(lambda status: (status["contested"] or {"times": 0})["times"] >= 3)
            assert f"(pid {second.pid} on " in told["contested"]["said_by"]
            assert told["contested"]["said_by"].endswith(f"from {other.file}")
            told = other.wait_status(lambda status: status["contested"])
            assert (told["contested"]["by"]["pid"], told["contested"]["here"]) == (first.pid, True)
            assert "CONTESTED" in control("status").out
            assert [len(each("history", "--json").json()) for each in (control, other)] == [1, 1]
        # What an operator says waits for no pause; the other's last push may be newer than the first one's last look.
        file = control.write(document(address, "127.0.0.1:3"))
        wait_for(lambda: control("apply", file).code == 0, "an apply that nobody has overtaken")
        assert runs(plane, "127.0.0.1:3")


class FirstProcess(DataPlane):
    """A data plane that is process 1 each time, as in a container."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.argv = ["unshare", "--pid", "--fork", "--kill-child", *self.argv]

    def ready(self):
        """Tell whether the API answers."""
        return answers(self.socket) and self.get("/v1/info")["pid"] == 1

    def kill(self):
        """Kill it, and wait until it has gone: `unshare` ends first."""
        super().kill()
        wait_for(lambda: not answers(self.socket), "its end")

    def stop(self):
        """Kill it: `unshare` passes no signal on."""
        self.kill()
        return 0


@pytest.mark.needs("unshare")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a PID namespace")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_killed_container_gets_its_overrides_again(control, address, workers):
    """The process that comes back has the pid of the one that was killed, and is not taken for it."""
    control.write(document(address, "127.0.0.1:1", "127.0.0.1:2"))
    with (
        FirstProcess(["--workers", workers], name="a", runtime_dir=control.runtime_dir) as plane,
        Daemon(control, control.file),
    ):
        wait_for(lambda: runs(plane, "127.0.0.1:2"), "the file's content")
        assert control("drain", "web", "127.0.0.1:2").code == 0
        before = plane.get("/v1/info")
        assert plane.backend("web", "127.0.0.1:2")["state"] == "drain"
        plane.kill()
        plane.start()
        after = plane.get("/v1/info")
        assert (after["pid"], after["instance"] != before["instance"]) == (before["pid"], True)
        wait_for(
            lambda: plane.backend("web", "127.0.0.1:2")["state"] == "drain", "the override after a restart"
        )
        status = control.wait_status(lambda status: status["converged"])
        assert status["dataplanes"][0]["instance"] == after["instance"] == plane.status()["instance"]


def test_killed_daemon_loses_nothing(control, address, plane):
    """SIGKILL in the middle of applies: on return it resumes, and the same apply converges with the same hash."""
    control.write(document(address, "127.0.0.1:1"))
    with Daemon(control) as daemon:
        assert control("apply", control.file).code == 0
        assert control("weight", "web", "127.0.0.1:1", 9).code == 0
        for port in (2, 3):
            control.write(document(address, "127.0.0.1:1", f"127.0.0.1:{port}"))
            daemon.kill()
            assert plane.backend("web", "127.0.0.1:1")["weight"] == 9
            daemon.start()
            first = control("apply", control.file, "--json", prefix=("timeout", "-s", "KILL", "0.3"))
            daemon.kill()
            daemon.start()
            again = control("apply", control.file, "--json")
            assert again.code == 0, again.err
            assert first.code != 0 or first.json()["hash"] == again.json()["hash"]
            assert plane.get("/v1/info")["hash"] == again.json()["hash"]
            assert plane.backend("web", "127.0.0.1:1")["weight"] == 9
        generations = [each["generation"] for each in control("history", "--json").json()]
        assert generations == sorted(set(generations))


def test_commands_go_through_the_daemon(control, address, plane):
    """Plan, apply, drain, history, rollback: the daemon does them and keeps them."""
    control.write(document(address, "127.0.0.1:1", mode="sticky"))
    with Daemon(control):
        assert control("plan", control.file, "--detailed-exitcode").code == 3
        applied = control("apply", control.file, "--json")
        assert (applied.code, applied.json()["generation"]) == (0, 1)
        control.write(document(address, "127.0.0.1:2", mode="sticky"))
        refused = control("apply", control.file, "--max-remap", "10%")
        assert (refused.code, "web: 100%" in refused.err) == (1, True)
        assert control("apply", control.file).code == 0
        assert control("drain", "web", "127.0.0.1:2", "--wait").code == 0
        unknown = control("drain", "web", "nobody")
        assert (unknown.code, "there are: 127.0.0.1:2" in unknown.err) == (1, True)
        assert control("rollback").code == 0
        assert control("rollback", 99).code == 1
        assert runs(plane, "127.0.0.1:1")
        assert len(control("history", "--json").json()) == 3
        control.write("version: 1\n")
        assert control("apply", control.file).code == 2


def test_hanging_data_plane_is_shown_as_old(control, address, plane):
    """Status does not wait for one that hangs; what is applied meanwhile is kept, which is said, and done when it returns."""
    control.write(document(address, "127.0.0.1:1"))
    impatient = {"controlplane.daemon.status._ASK_S": 1.0, "controlplane.daemon.api._PATCH_S": 1.0}
    with Daemon(control, control.file, constants=impatient):
        control.wait_status(lambda status: status["converged"] and status["generation"] == 1)
        plane.send_signal(signal.SIGSTOP)
        try:
            status = control.wait_status(
                lambda status: (
                    not status["dataplanes"][0]["reachable"] and status["dataplanes"][0]["age_s"] > 0
                )
            )
            row = status["dataplanes"][0]
            assert (row["generation"], status["converged"]) == (1, False)
            assert "no answer" in row["error"] or "does not answer" in row["error"]
            control.write(document(address, "127.0.0.1:2"))
            done = control("apply", control.file, "--timeout", "1s")
            assert (done.code, "a: no answer" in done.err) == (1, True)
            kept = "the daemon keeps it, and pushes it when a answers again; to take it back: lb-control"
            assert f"{kept} rollback\n" in done.err
            done = control("drain", "web", "127.0.0.1:2")
            assert (done.code, f"{kept} enable web 127.0.0.1:2\n" in done.err) == (1, True)
        finally:
            plane.send_signal(signal.SIGCONT)
        control.wait_status(lambda status: status["converged"] and status["generation"] == 2)
        wait_for(lambda: plane.backend("web", "127.0.0.1:2")["state"] == "drain", "what was kept")


def test_log_tells_what_breaks_and_when_it_is_in_order_again(control, address, plane):
    """A data plane that is killed, a file that is not valid, a token that cannot be read: once, and once their end."""
    token = control.directory / "token"
    token.write_text("open sesame")

    def asked(line: str) -> bool:
        with socket.create_connection(("127.0.0.1", port.port)) as client:
            client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            client.recv(1)
        return line in daemon.output

    arguments = (control.write(document(address, "127.0.0.1:1")), "--http-token-file", token)
    with HeldPort() as port, Daemon(control, *arguments, "--http", port.address) as daemon:
        control.wait_status(lambda status: status["converged"])
        plane.kill()
        wait_for(lambda: '"data plane a: unreachable: ' in daemon.output, "the line of the data plane")
        plane.start()
        # Found again, if the daemon looked while it had no socket.
        returns = ('"data plane a: in order again"', '"data plane a: gone"')
        wait_for(lambda: any(line in daemon.output for line in returns), "the line of its return")
        control.write("nonsense")
        wait_for(lambda: f"{control.file} is not taken" in daemon.output, "the line of the file")
        control.write(document(address, "127.0.0.1:1"))
        wait_for(lambda: f'"{control.file} is taken again"' in daemon.output, "the line of its end")
        token.write_text("")
        wait_for(lambda: asked('"http token: --http-token-file'), "the line of the token")
        token.write_text("open sesame")
        wait_for(lambda: asked('"http token: in order again"'), "the line of its end")
        assert daemon.output.count("data plane a: unreachable") == 1, daemon.output


def test_read_only_api_over_tcp(control):
    """--http serves the status on a loopback address, and refuses others without a token."""
    refused = control("run", "--http", "0.0.0.0:1")
    assert (refused.code, "loopback" in refused.err) == (1, True)
    assert not (control.runtime_dir / "control.sock").exists()


def test_page_behind_a_proxy(control):
    """--http-host is a name that leads to the page, and whose page may call; another does not and may not."""
    with HeldPort() as port, Daemon(control, "--http", port.address, "--http-host", "Page.Example"):
        for name, status in (("page.example", 200), ("other.example", 403)):
            client = http.client.HTTPConnection("127.0.0.1", port.port, timeout=10)
            client.request("GET", "/v1/status", headers={"Host": f"{name}:8443", "Origin": f"https://{name}"})
            assert client.getresponse().status == status
            client.close()
    assert control("run", "--http-host", "page.example").code == 2
    refused = control("run", "--http", port.address, "--http-host", "https://page.example")
    assert (refused.code, "no host name" in refused.err) == (2, True)


def test_who_says_nothing_is_sent_away(control):
    """A connection over TCP whose first request does not come within some seconds is closed."""
    constants = {"schemas.http.server.HEADERS_S": 0.5}
    with HeldPort() as port, Daemon(control, "--http", port.address, constants=constants):
        control.wait_status(lambda status: status)
        with socket.create_connection(("127.0.0.1", port.port), timeout=15) as silent:
            silent.sendall(b"GET /v1/status HTTP/1.1\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert silent.recv(1) == b""


def test_applies_under_load_lose_nobody(control, address):
    """Weights, modes, backends and listeners change again and again; no client and no long flow notices."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(LineServer(f"s{number}")) for number in range(3)]
        extra = stack.enter_context(HeldPort())
        for name in ("a", "b"):
            stack.enter_context(DataPlane(["--reuseport"], name=name, runtime_dir=control.runtime_dir))
        stack.enter_context(Daemon(control))
        control.write(document(address, *(server.address for server in servers)))
        assert control("apply", control.file).code == 0
        with Load(address, rate=100.0, flows=20) as load:
            load.wait_flows()
            for number in range(6):
                used = servers[: 2 + number % 2]
                backends = [
                    {"address": server.address, "weight": 1 + (number + index) % 3}
                    for index, server in enumerate(used)
                ]
                listen = [address, extra.address] if number % 2 else [address]
                mode = ["rr", "leastconn", "p2c", "sticky"][number % 4]
                wanted = document("", *backends, mode=mode)
                wanted["services"]["web"]["listen"] = listen
                control.write(wanted)
                done = control("apply", control.file)
                assert done.code == 0, done.err
                load.wait_progress(10)
            report = load.stop()
        assert report.failed == 0, report.details
        assert ask(address).endswith(b":hello\n")
