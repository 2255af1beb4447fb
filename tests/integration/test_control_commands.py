"""Commands without a daemon, against real data planes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from controlplane.store import Store
from schemas.system.locks import lock_of
from schemas.system.ownership import user_name
from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.backends import LineServer
from tests.support.clients import ask, dial, read_exactly
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort


@pytest.fixture
def address() -> Iterator[str]:
    """An address to listen on."""
    with HeldPort() as port:
        yield port.address


@pytest.fixture
def control(tmp_path_factory) -> Control:
    """Commands in directories of their own."""
    return Control(tmp_path_factory.mktemp("c"))


@contextlib.contextmanager
def two(control):
    """Run two data planes that share their listening addresses."""
    with (
        DataPlane(["--reuseport"], name="a", runtime_dir=control.runtime_dir) as one,
        DataPlane(["--reuseport"], name="b", runtime_dir=control.runtime_dir) as other,
    ):
        yield one, other


@pytest.fixture
def plane(control) -> Iterator[DataPlane]:
    """One data plane."""
    with DataPlane(name="a", runtime_dir=control.runtime_dir) as plane:
        yield plane


def test_a_command_says_who_it_is(control, address, plane):
    """Whoever wonders who pushed what a data plane runs can ask it."""
    assert control("apply", control.write(document(address, "127.0.0.1:1"))).code == 0
    by = plane.get("/v1/info")["pushed_by"]
    assert (by["program"], by["user"], by["source"]) == ("lb-control", user_name(os.geteuid()), None)


def test_apply_plan_and_apply_again(control, address):
    """Plan tells, apply does, and both data planes run the same; the same again changes nothing."""
    with LineServer("one") as one, LineServer("two") as other, two(control) as planes:
        control.write(document(address, one.address, mode="sticky"))
        planned = control("plan", control.file, "--json")
        assert planned.code == 0
        assert [(each["action"], each["kind"]) for each in planned.json()["changes"]] == [
            ("add", "service"),
            ("add", "listener"),
            ("add", "backend"),
        ]
        assert planned.json()["impact"]["listeners"] == [
            {"action": "bind", "service": "web", "address": address}
        ]
        assert control("plan", control.file, "--detailed-exitcode").code == 3

        applied = control("apply", control.file, "--json")
        assert applied.code == 0, applied.err
        report = applied.json()
        assert {plane.get("/v1/info")["hash"] for plane in planes} == {report["hash"]}
        assert (report["generation"], report["converged"]) == (1, True)
        assert ask(address) == b"one:hello\n"

        again = control("apply", control.file)
        assert (again.code, again.out) == (0, "no changes\ngeneration 1 runs on 2 data planes\n")
        assert control("plan", control.file, "--detailed-exitcode").code == 0

        control.write(document(address, one.address, {"address": other.address, "weight": 3}, mode="sticky"))
        refused = control("apply", control.file, "--max-remap", "10%", "--json")
        assert (refused.code, refused.json()["code"]) == (1, "held_back")
        assert "nothing was changed" in refused.err
        assert "web: 7" in refused.err  # the share, about 75 %
        assert planes[0].get("/v1/info")["generation"] == 1
        assert control("apply", control.file, "--max-remap", "90%").code == 0

        status = control("status", "--json").json()
        assert (status["generation"], status["converged"]) == (2, True)
        tables = {row["table_hash"]["web"] for row in status["dataplanes"]}
        assert len(tables) == 1
        assert max(len(line) for line in control("status").out.splitlines()) <= 80


def test_no_data_plane_is_an_error_that_says_where_was_looked(control, address):
    """Nothing to push to is no success; a plan is the difference to what was applied last."""
    control.write(document(address, "127.0.0.1:1"))
    done = control("apply", control.file)
    assert done.code == 1
    assert f"{control.runtime_dir}/dataplane-*.sock" in done.err
    assert control("status").code == 1
    planned = control("plan", control.file)
    assert planned.code == 0
    assert "+ service web" in planned.out


@pytest.mark.parametrize("command", ["validate", "plan", "apply"])
def test_directory_in_place_of_the_file_is_invalid_input(control, command):
    """It is named, in one line and without a traceback."""
    control.file.mkdir()
    done = control(command, control.file)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert done.err.startswith(f"{control.file}: is a directory, not a file")


def test_what_comes_through_a_pipe(control, address, plane):
    """An lb.yaml that another command makes needs no file; a daemon, which has to read it again, does."""
    text = json.dumps(document(address, "127.0.0.1:1"))
    assert control("validate", "-", piped=text).out == "-: valid, 1 service\n"
    assert "+ service web" in control("plan", "-", piped=text).out
    assert control("apply", "-", piped=text).code == 0
    assert list(plane.get("/v1/snapshot")["services"]) == ["web"]
    for command in ("validate", "plan", "apply"):
        done = control(command, "-", piped="version: 1\nservices:\n  web: {}\n")
        assert (done.code, done.err.startswith("-:3:")) == (2, True), done.err
    piped = ("bash", "-c", f'"$@" <(cat {control.write(text)})', "bash")
    assert control("apply", prefix=piped).code == 0
    for refused in (control("run", "-", piped=text), control("run", prefix=piped)):
        assert (refused.code, "lb-control apply" in refused.err) == (2, True), refused.err


def test_refusal_of_one_leaves_both_as_they_are(control, address):
    """An address that one cannot have: nobody changes, and it is named with the reason."""
    with LineServer("one") as one, two(control) as planes:
        control.write(document(address, one.address))
        assert control("apply", control.file).code == 0
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            control.write(document(f"127.0.0.1:{port}", one.address))
            done = control("apply", control.file)
        assert done.code == 1
        assert "nothing was changed" in done.err
        assert str(port) in done.err
        assert [plane.get("/v1/info")["generation"] for plane in planes] == [1, 1]
        assert ask(address) == b"one:hello\n"


@pytest.mark.usefixtures("plane")
def test_waiting_for_consul_is_said(control, address):
    """An agent that is silent is named while the command still hopes for it."""
    with socket.create_server(("127.0.0.1", 0)) as agent:
        place = f"http://127.0.0.1:{agent.getsockname()[1]}"
        web = {"listen": address, "discover": {"consul": {"service": "web"}}}
        wanted = {"version": 1, "consul": {"address": place}, "services": {"web": web}}
        patience = {"controlplane.operations.resolution._FIRST_ANSWER_S": 1.5}
        done = control("apply", control.write(wanted), constants=patience)
    waiting, *told = done.err.splitlines()
    assert (done.code, waiting) == (1, f"waiting for Consul at {place}")
    assert told == [
        "warning: service web is not served: Consul has not answered",
        "not served: web; apply again when that is mended",
    ]


def test_hanging_data_plane_is_named_and_a_second_apply_repairs_it(control, address):
    """The deadline holds; the other one runs the new; the late one is named, and caught up with later."""
    with LineServer("one") as one, LineServer("two") as other, two(control) as (alive, hanging):
        control.write(document(address, one.address))
        assert control("apply", control.file).code == 0
        control.write(document(address, other.address))
        hanging.send_signal(signal.SIGSTOP)
        try:
            done = control("apply", control.file, "--timeout", "1s")
        finally:
            hanging.send_signal(signal.SIGCONT)
        assert done.code == 1
        assert "b: no answer within" in done.err
        assert "again;" not in done.err  # it was not heard, and so was sent nothing
        assert "partly applied: 1 of 2 data planes run generation 2" in done.err
        assert alive.get("/v1/info")["generation"] == 2
        repaired = control("apply", control.file, "--json")
        assert (repaired.code, repaired.json()["generation"]) == (0, 2)
        assert hanging.get("/v1/info")["hash"] == alive.get("/v1/info")["hash"]


def test_drain_that_one_does_not_answer_may_still_happen(control, address):
    """It was sent, and happens when the data plane goes on: that is said, with what takes it back."""
    impatient = {"controlplane.operations.gateway.LOOK_S": 1.5}
    with two(control) as (_, hanging):
        control.write(document(address, "127.0.0.1:1"))
        assert control("apply", control.file).code == 0
        hanging.send_signal(signal.SIGSTOP)
        try:
            done = control("drain", "web", "127.0.0.1:1", constants=impatient)
        finally:
            hanging.send_signal(signal.SIGCONT)
        assert done.code == 1
        back = "to take it back: lb-control enable web 127.0.0.1:1"
        assert f"it may still happen when b answers again; {back}\n" in done.err
        hanging.wait_status(lambda _: hanging.backend("web", "127.0.0.1:1")["state"] == "drain")


def test_killed_data_plane_is_named_and_the_same_apply_converges(control, address):
    """A data plane that was killed is unreachable; after its restart the same apply reaches it."""
    with LineServer("one") as one, two(control) as (_, killed):
        killed.kill()
        control.write(document(address, one.address))
        first = control("apply", control.file, "--json")
        assert first.code == 1
        assert {row["name"]: row["result"] for row in first.json()["dataplanes"]} == {
            "a": "ok",
            "b": "unreachable",
        }
        killed.start()
        second = control("apply", control.file, "--json")
        assert second.code == 0
        assert second.json()["hash"] == first.json()["hash"]


def test_killed_command_and_the_same_apply_again(control, address, plane):
    """A command that is killed at any moment leaves nothing that the next one does not set right."""
    with LineServer("one") as one, LineServer("two") as other:
        for number, backend in enumerate([one, other] * 3):
            control.write(document(address, backend.address))
            # Killed by a timer that is shorter or longer than an apply takes.
            prefix = ("timeout", "-s", "KILL", f"{0.1 + number * 0.08:.2f}")
            control("apply", control.file, prefix=prefix)
            done = control("apply", control.file, "--json")
            assert done.code == 0, done.err
            assert plane.get("/v1/info")["hash"] == done.json()["hash"]
            name = backend.name.encode()
            assert ask(address) == name + b":hello\n"


def test_drain_wait_ends_with_the_last_connection(control, address, plane):
    """The command returns 0 when the last connection has gone by itself."""
    with LineServer("one") as one, LineServer("two") as other:
        control.write(document(address, one.address, other.address))
        assert control("apply", control.file).code == 0
        flows = [dial(address) for _ in range(2)]
        for flow in flows:
            flow.sendall(b"x\n")
        names = [read_exactly(flow, 6)[:3] for flow in flows]
        mine = flows[names.index(b"one")]
        done = []
        waiting = threading.Thread(target=lambda: done.append(control("drain", "web", one.address, "--wait")))
        waiting.start()
        plane.wait_status(lambda _: plane.backend("web", one.address)["state"] == "drain")
        assert {ask(address) for _ in range(4)} == {b"two:hello\n"}
        assert not done
        mine.close()
        waiting.join()
        for flow in flows:
            flow.close()
        assert done[0].code == 0, done[0].err
        assert "no connection is left" in done[0].out


def test_drain_wait_tells_how_many_the_timeout_cut(control, address, plane):
    """At the drain timeout the command returns 1 with the number of connections that were left."""
    with LineServer("one") as one:
        control.write(document(address, one.address, drain={"timeout": "300ms", "close": "100ms"}))
        assert control("apply", control.file).code == 0
        flows = [dial(address) for _ in range(3)]
        for flow in flows:
            flow.sendall(b"x\n")
            read_exactly(flow, 6)
        done = control("drain", "web", one.address, "--wait")
        for flow in flows:
            flow.close()
    assert done.code == 1
    assert "3 connections were cut" in done.err


def test_override_survives_an_apply_and_ends_with_the_file(control, address, plane):
    """Weight and state hold until lb.yaml says something else about them."""
    backend = {"id": "a", "address": "127.0.0.1:1"}
    control.write(document(address, backend))
    assert control("apply", control.file).code == 0
    assert control("weight", "web", "a", 7).code == 0
    assert control("drain", "web", "a").code == 0
    control.write(document(address, backend, "127.0.0.1:2"))
    assert control("apply", control.file).code == 0
    shown = control("status", "--json").json()["overrides"]
    assert {(each["field"], each["value"]) for each in shown} == {("weight", 7), ("state", "drain")}
    assert {each["by"] for each in shown} != {None}
    control.write(document(address, {**backend, "weight": 2}))
    assert control("apply", control.file).code == 0
    now = plane.backend("web", "a")
    assert (now["weight"], now["state"]) == (2, "drain")
    assert control("enable", "web", "a").code == 0
    assert control("status", "--json").json()["overrides"] == []
    assert control("disable", "web", "a").code == 0
    assert plane.backend("web", "a")["state"] == "disabled"


def test_status_and_top_of_chosen_services(control, plane, tmp_path):
    """A name or a pattern leaves the others out; one that nothing is like is an error, which names those that there are."""
    services = {
        name: {"listen": f"unix:{tmp_path}/{name}", "backends": ["127.0.0.1:1"]}
        for name in ("api-1", "api-2", "web")
    }
    assert control("apply", control.write({"version": 1, "services": services})).code == 0
    assert list(control("status", "--json", "api-*").json()["services"]) == ["api-1", "api-2"]
    for words in (("status", "web"), ("top", "web")):
        shown = control(*words).out
        assert ("web" in shown, "api-1" in shown) == (True, False), shown
        wrong = control(words[0], "wbe")
        assert (wrong.code, wrong.err.strip()) == (
            1, "no service matches 'wbe'; there are: api-1, api-2, web",
        )  # fmt: skip


@pytest.mark.parametrize("words", [("status",), ("status", "--json"), ("top",)], ids=" ".join)
def test_status_and_top_are_an_error_when_nobody_answers(control, plane, words):
    """Exit 1, and who does not answer is shown all the same: a socket that a kill left behind, or a wrong path."""
    assert control(*words).code == 0
    plane.kill()
    for option in ((), ("--dataplane", "/nowhere/dataplane-a.sock")):
        done = control(*option, *words)
        assert (done.code, done.err) == (1, "")
        assert ("unreachable" if option else "gone") in done.out.lower()


def test_override_of_what_was_started_by_other_means_survives_the_first_apply(control, address):
    """A data plane that runs its own file, and a drain before anything was ever applied."""
    control.write(document(address, "127.0.0.1:1"))
    arguments = ["--config", str(control.file)]
    with DataPlane(arguments, name="a", runtime_dir=control.runtime_dir) as plane:
        assert control("drain", "web", "127.0.0.1:1").code == 0
        control.write(document(address, "127.0.0.1:1", "127.0.0.1:2"))
        done = control("apply", control.file, "--json")
        assert [each["id"] for each in done.json()["changes"]] == ["127.0.0.1:2"]
        assert plane.backend("web", "127.0.0.1:1")["state"] == "drain"
        (override,) = control("status", "--json").json()["overrides"]
        assert override["by"] is not None


@pytest.mark.usefixtures("plane")
def test_what_does_not_exist_is_an_error_that_says_what_does(control, address):
    """Typing errors in names are found at once."""
    control.write(document(address, "127.0.0.1:1"))
    assert control("apply", control.file).code == 0
    done = control("drain", "web", "nobody")
    assert (done.code, "there are: 127.0.0.1:1" in done.err) == (1, True)
    done = control("weight", "wbe", "127.0.0.1:1", 3)
    assert (done.code, "there are: web" in done.err) == (1, True)
    assert control("explain", "wbe", "--client", "10.0.0.1").code == 1
    assert control("weight", "web", "127.0.0.1:1", 257).code == 2


def test_history_and_rollback(control, address, plane):
    """Every generation is listed; a rollback is a new one with the old content."""
    hashes = []
    for port in (1, 2, 3):
        control.write(document(address, f"127.0.0.1:{port}"))
        hashes.append(control("apply", control.file, "--json").json()["hash"])
    back = control("rollback", "--json")
    assert (back.code, back.json()["generation"], back.json()["hash"]) == (0, 4, hashes[1])
    assert control("rollback", 1).code == 0
    assert plane.get("/v1/info")["hash"] == hashes[0]
    listed = control("history", "--json").json()
    assert [(each["generation"], each["origin"]) for each in listed] == [
        (1, "apply"),
        (2, "apply"),
        (3, "apply"),
        (4, "rollback"),
        (5, "rollback"),
    ]
    assert listed[1]["changes"] == [
        {"action": "remove", "kind": "backend", "service": "web", "id": "127.0.0.1:1"},
        {"action": "add", "kind": "backend", "service": "web", "id": "127.0.0.1:2"},
    ]
    missing = control("rollback", 99)
    assert (missing.code, "99 is not in the history" in missing.err) == (1, True)
    assert control("history", "--limit", 1).out.startswith("5  ")


def test_explain_and_ready(control, address, plane):
    """Candidates in order, who was skipped and why; and whether this node may receive traffic."""
    backends = ["127.0.0.1:1", {"address": "127.0.0.1:2", "state": "drain"}]
    control.write(document(address, *backends, mode="sticky"))
    assert control("apply", control.file).code == 0
    explained = control("explain", "web", "--client", "10.0.0.1", "--json").json()
    assert explained["candidates"] == [{"id": "127.0.0.1:1", "address": "127.0.0.1:1"}]
    assert explained["skipped"] == [{"id": "127.0.0.1:2", "reason": "drain"}]
    assert "skipped: drain" in control("explain", "web", "--client", "10.0.0.1").out
    assert control("ready").code == 0
    plane.kill()
    done = control("ready")
    assert (done.code, "a: not ready" in done.err) == (1, True)


def test_full_disk_is_said_and_stops_no_apply(control, address, plane):
    """The apply goes on without its history; the old files stay."""
    control.write(document(address, "127.0.0.1:1"))
    assert control("apply", control.file).code == 0
    control.write(document(address, "127.0.0.1:2"))
    done = control("apply", control.file, prefix=("sh", "-c", 'ulimit -f 0; exec "$@"', "sh"))
    assert done.code == 0, done.err
    assert "warning: applied, but not written to the history" in done.err
    assert plane.get("/v1/info")["generation"] == 2
    assert [each["generation"] for each in control("history", "--json").json()] == [1]


def test_second_writer_waits_and_names_the_first(control, address, plane):
    """While somebody else writes, an apply waits until its deadline, then says who it is."""
    control.write(document(address, "127.0.0.1:1"))
    with Store(control.state_dir).writer():
        done = control("apply", control.file, "--timeout", "200ms")
    assert done.code == 1
    assert f"in use by pid {os.getpid()}" in done.err
    assert plane.get("/v1/info")["generation"] == 0
    assert control("apply", control.file).code == 0


def test_restart_of_a_single_process_is_refused(control, plane):
    """There is no second process that could take over."""
    done = control("restart")
    assert (done.code, "single process" in done.err) == (1, True)
    assert plane.poll() is None


def test_restart_of_a_hanging_data_plane_keeps_its_timeout(control, plane):
    """No question waits for longer than the command was told to."""
    plane.send_signal(signal.SIGSTOP)
    try:
        done = control("restart", "--timeout", "300ms")
    finally:
        plane.send_signal(signal.SIGCONT)
    assert (done.code, done.err) == (1, "a: no answer within 0.3 s\n")


def test_restart_replaces_every_worker(control, address):
    """Workers are replaced one at a time; no client and no long flow notices, and the supervisor stays."""
    with (
        LineServer("one") as one,
        DataPlane(["--workers", "2"], name="a", runtime_dir=control.runtime_dir) as plane,
    ):
        control.write(document(address, one.address))
        assert control("apply", control.file).code == 0
        before = {worker["pid"] for worker in plane.status()["workers"]}
        with Load(address, rate=50.0, flows=4) as load:
            load.wait_flows()
            done = control("restart")
            load.wait_progress(10)
            report = load.stop()
        assert done.code == 0, done.err
        assert "all workers were replaced" in done.out
        assert not before & {worker["pid"] for worker in plane.status()["workers"]}
        assert report.failed == 0, report.details
        assert control("status", "--json").json()["converged"]


def test_url_needs_its_token(control, tmp_path):
    """A data plane behind a URL is spoken to with the token, and refuses without it."""
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    with HeldPort() as api:
        arguments = ["--api", api.address, "--token-file", str(token)]
        with DataPlane(arguments, name="a", runtime_dir=control.runtime_dir) as plane:
            url = f"http://{api.address}"
            done = control("--dataplane", url, "--token-file", token, "status", "--json")
            assert done.json()["dataplanes"][0]["pid"] == plane.pid
            refused = control("--dataplane", url, "status", "--json").json()["dataplanes"][0]
            assert (refused["reachable"], "token" in refused["error"]) == (False, True)


def test_a_data_plane_that_crashed_and_came_back_under_another_name_is_gone():
    """Status and ready say so, since when, and what removes it; after a while it is left out."""
    with DataPlane(name="old") as old, DataPlane(name="new", runtime_dir=old.runtime_dir) as new:
        control = Control(old.directory)
        new.put_snapshot({})
        old.kill()
        said = control("ready")
        assert said.code == 1
        assert f"if it is not to come back under this name: rm {old.socket}" in said.err
        shown = control("status")
        assert "its process has ended" in " ".join(shown.out.split())
        assert f"$ rm {old.socket}" in shown.out
        report = control("status", "--json").json()
        assert {each["name"]: bool(each["gone_since"]) for each in report["dataplanes"]} == {
            "old": True,
            "new": False,
        }
        with Daemon(control):
            control.wait_status(
                lambda now: [each["gone_since"] for each in now["dataplanes"]].count(None) == 1
            )
            os.utime(lock_of(old.socket), (1.0, 1.0))
            control.wait_status(lambda now: [each["name"] for each in now["dataplanes"]] == ["new"])
        assert control("ready").code == 0
        assert control("status", "--json").json()["converged"]
        assert old.socket.exists()
