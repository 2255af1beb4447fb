"""What a data plane runs when it starts: which of three sources, what is wrong with them, and a file that is read again."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from contextlib import asynccontextmanager
from random import Random

import pytest

from dataplane.errors import StartError
from dataplane.net.reactor import Reactor
from dataplane.node.apply import Applier
from dataplane.node.initial import (
    MAX_BYTES,
    check_config,
    inherit,
    load_initial,
    reread,
    state_of,
    verdicts_of,
)
from dataplane.node.listeners import OwnListeners
from dataplane.node.node import Node
from dataplane.node.snapshot_file import SnapshotStore
from dataplane.telemetry.events import Events
from schemas.api import BackendPatch, Verdict
from tests.dataplane.net.through import QUIET
from tests.dataplane.node.bench import benched
from tests.support.ports import HeldPort

DISCOVERS = "version: 1\nservices:\n  c: {listen: '127.0.0.1:1', discover: {consul: {service: x}}}\n"


@pytest.fixture
def port():
    """A port to listen on."""
    with HeldPort() as port:
        yield port


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """An environment without our variables."""
    for variable in ("LISTEN", "BACKENDS"):
        monkeypatch.delenv(variable, raising=False)
    return monkeypatch


@pytest.fixture
def file(tmp_path):
    """Where `--config` leads."""
    return tmp_path / "lb.yaml"


class Loaded:
    """What `load_initial` made of a configuration."""

    def __init__(self, node, applier):
        self.node = node
        self.applier = applier
        self.told = []

    def events(self, kind):
        """Return the fields of the events of a kind."""
        return [fields for seen, fields in self.told if seen == kind]

    @property
    def ran(self):
        """Return the generation and the modes of what runs."""
        snapshot = self.applier.snapshot
        return snapshot.generation, {name: each.mode for name, each in snapshot.services.items()}


@asynccontextmanager
async def loaded(state, config=None):
    """Load what there is to run at the start."""
    told = []
    reactor = Reactor(asyncio.get_running_loop(), 1024)
    reactor.start()
    events = Events(lambda kind, **fields: told.append((kind, fields)), time.time)
    node = Node(reactor, events, Random(1))
    applier = Applier(node, SnapshotStore(state, "test", events), OwnListeners(node, reuse_port=False))
    it = Loaded(node, applier)
    it.told = told
    try:
        await load_initial(applier, config)
        yield it
    finally:
        for listener in node.listeners.values():
            listener.close()
        reactor.close()


def write(file, port, mode="rr"):
    """Write an lb.yaml with one service."""
    service = {"listen": port.address, "mode": mode, "backends": ["127.0.0.1:1"], **QUIET}
    file.write_text(json.dumps({"version": 1, "services": {"web": service}}))


def body(port, generation=5):
    """Return a snapshot with another service."""
    services = {"s": {"listen": port.address, "backends": ["127.0.0.1:1"], **QUIET}}
    return {"version": 1, "generation": generation, "services": services}


# --- which of them ----------------------------------------------------------------------------------


async def test_there_may_be_nothing(tmp_path):
    """A control plane says later what to run."""
    async with loaded(tmp_path) as it:
        assert (it.ran, it.told) == ((0, {}), [])


async def test_a_file_comes_before_the_environment_and_what_was_saved(tmp_path, environment, file, port):
    """As a newer generation than what ran before; the same content again keeps its own."""
    async with loaded(tmp_path) as first:
        await first.applier.apply(body(port, generation=41))
    environment.setenv("LISTEN", port.address)
    environment.setenv("BACKENDS", "127.0.0.1:1")
    write(file, port)
    async with loaded(tmp_path, file) as it:
        assert it.ran == (42, {"web": "rr"})
        await it.applier.apply({**it.applier.snapshot.body(), "generation": 43})
    async with loaded(tmp_path, file) as it:
        assert it.ran == (43, {"web": "rr"})
    async with loaded(tmp_path) as it:
        assert it.ran == (44, {"default": "rr"})


async def test_what_was_saved_runs_where_nothing_is_said(tmp_path, port):
    """Generation and all."""
    async with loaded(tmp_path) as first:
        await first.applier.apply(body(port))
        before = first.applier.snapshot
    async with loaded(tmp_path) as it:
        assert it.applier.snapshot == before
        assert list(it.node.listeners) == [port.address]


async def test_a_file_for_all_nodes(tmp_path, environment, file, port):
    """The environment says what differs; what it does not say is an error, at its line."""
    file.write_text('version: 1\nservices:\n  web: {listen: "${NODE_IP}:${NODE_PORT}", backends: []}\n')
    for name in ("NODE_IP", "NODE_PORT"):
        environment.delenv(name, raising=False)
    environment.setenv("NODE_IP", "127.0.0.1")
    with pytest.raises(StartError) as refused:
        check_config(file)
    assert str(refused.value) == (
        f"{file}: line 3, column 17: services.web.listen: has ${{NODE_PORT}}, which is not known: "
        "it is not set in the environment, or empty there"
    )
    environment.setenv("NODE_PORT", port.address.rpartition(":")[2])
    async with loaded(tmp_path, file) as it:
        assert list(it.node.listeners) == [port.address]


# --- what is wrong ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("LISTEN", "4000"),
        ("BACKENDS", "nowhere"),
        ("LB_MODE", "fastest"),
        ("POOL_MODE", "full"),
        ("POOL_SIZE", "-1"),
        ("PROXY_V1", "perhaps"),
        ("DIAL_TIMEOUT", "2"),
        ("IDLE_TIMEOUT", "soon"),
        ("IO_TIMEOUT", "5 s"),
        ("HEALTH_EVERY", "-1s"),
    ],
)
async def test_a_wrong_value(tmp_path, environment, variable, value):
    """A wrong value is an error that names its variable."""
    for name, text in {"LISTEN": "127.0.0.1:1", "BACKENDS": "127.0.0.1:1", variable: value}.items():
        environment.setenv(name, text)
    with pytest.raises(StartError, match=f"environment: {variable}: ") as refused:
        async with loaded(tmp_path):
            pass
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("version: 1\nservices:\n  web:\n    listen: nowhere\n    backends: []\n", "line 4"),
        ("version: 1\nservices:\n  web: {listen: ':1', colour: red}\n", "line 3"),
        ("version: 1\nversion: 1\n", "line 2"),
        ("services: {}\n", "version"),
        (DISCOVERS, "services.c.discover: discovery needs the control plane"),
        (
            "version: 1\ncluster: {name: a}\nservices: {c: {listen: ':1', backends: [], limits: {scope: cluster}}}\n",
            "services.c.limits.scope: a limit of all nodes together needs the control plane",
        ),
        ("{", "line"),
        (f"version: 1\n# {'x' * MAX_BYTES}", "1 MiB"),
    ],
)
async def test_a_wrong_file(tmp_path, file, text, told):
    """Every problem is told with the file's name and the line, at the start as where it is only checked."""
    file.write_text(text)
    with pytest.raises(StartError, match=told) as refused:
        async with loaded(tmp_path, file):
            pass
    assert refused.value.exit_code == 2
    assert all(line.startswith(f"{file}: ") for line in str(refused.value).splitlines())
    with pytest.raises(StartError) as checked:
        check_config(file)
    assert str(checked.value) == str(refused.value)


async def test_no_file(tmp_path, file):
    """A file that is not there, or is no file, is an error that names it, once."""
    words = {
        file: ("No such file or directory", 1),
        tmp_path: ("is a directory, not a file; Docker makes one where a bind mount's source is missing", 2),
    }
    for path, (why, exit_code) in words.items():
        with pytest.raises(StartError) as refused:
            async with loaded(tmp_path, path):
                pass
        assert (str(refused.value), refused.value.exit_code) == (f"{path}: {why}", exit_code)


def test_a_pipe_does_not_hang(file, no_leaks):
    """Something that is no regular file is refused at once, and nothing of it stays open."""
    os.mkfifo(file)
    with pytest.raises(StartError, match="is not a regular file") as refused:
        check_config(file)
    assert refused.value.exit_code == 2


async def test_an_address_that_cannot_be_had(tmp_path, file, port):
    """What is asked for and cannot be had ends the start, with the file's name."""
    write(file, port)
    with socket.create_server((port.host, port.port)), pytest.raises(StartError) as refused:
        async with loaded(tmp_path, file):
            pass
    assert str(refused.value).startswith(f"{file}: cannot listen on {port.address}: ")
    assert refused.value.exit_code == 1


def test_what_could_be_run_is_no_error(file, port):
    """Nothing is run, so an address that somebody else has is none."""
    write(file, port)
    with socket.create_server((port.host, port.port)):
        check_config(file)


# --- what was saved ---------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["{", "[]", '{"version": 2}', "", "\0" * 100, None])
async def test_a_damaged_one(tmp_path, port, damage):
    """A file that cannot be used is said so, and is no reason not to start."""
    async with loaded(tmp_path) as first:
        await first.applier.apply(body(port))
    path = tmp_path / "dataplane-test.json"
    if damage is None:  # the content does not fit the hash any more
        saved = json.loads(path.read_text())
        saved["services"]["s"]["mode"] = "random"
        damage = json.dumps(saved)
    path.write_text(damage)
    async with loaded(tmp_path) as second:
        assert [one["path"] for one in second.events("saved_snapshot_unusable")] == [str(path)]
        assert second.applier.snapshot.generation == 0
        assert not second.node.listeners
        await second.applier.apply(body(port, generation=1))
    async with loaded(tmp_path) as third:
        assert third.applier.snapshot.generation == 1


async def test_one_that_cannot_be_read(tmp_path):
    """It is said what the system says of it."""
    (tmp_path / "dataplane-test.json").mkdir()
    async with loaded(tmp_path) as it:
        (told,) = it.events("saved_snapshot_unusable")
        assert "Is a directory" in told["cause"]


async def test_its_address_is_taken(tmp_path, port):
    """A saved snapshot whose address somebody else has now is no reason not to start."""
    async with loaded(tmp_path) as first:
        await first.applier.apply(body(port))
    with socket.create_server((port.host, port.port)):
        async with loaded(tmp_path) as second:
            assert second.events("saved_snapshot_unusable")
            assert second.applier.snapshot.generation == 0


# --- read again -------------------------------------------------------------------------------------


async def test_a_file_that_says_something_else_is_run(tmp_path, file, port):
    """As the next generation, and it is known who pushed it."""
    write(file, port)
    async with loaded(tmp_path, file) as it:
        write(file, port, mode="random")
        await reread(it.applier, file)
        assert it.ran == (2, {"web": "random"})
        by = it.applier.pushed_by
        assert (by["program"], by["pid"], by["source"]) == ("lb-dataplane --config", os.getpid(), str(file))
        assert it.events("apply_refused") == it.events("reread") == []


async def test_a_file_that_says_the_same_is_told_of(tmp_path, file, port):
    """Whoever has sent the signal sees that it came."""
    write(file, port)
    async with loaded(tmp_path, file) as it:
        await reread(it.applier, file)
        assert it.ran == (1, {"web": "rr"})
        assert [each["path"] for each in it.events("reread")] == [str(file)]


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda file, port: write(file, port, mode="fastest"), "services.web.mode: "),
        (lambda file, port: file.unlink(), "No such file or directory"),
        (lambda file, port: (file.unlink(), file.mkdir()), "is a directory, not a file"),
        (lambda file, port: file.write_text(DISCOVERS), "discovery needs the control plane"),
        (lambda file, port: write(file, port.taken), "cannot listen on "),
    ],
    ids=["wrong", "missing", "a directory", "discovers", "an address that is taken"],
)
async def test_a_file_that_cannot_be_run_changes_nothing(tmp_path, file, port, spoil, cause):
    """What runs goes on, and it is told why."""
    write(file, port)
    with HeldPort() as port.taken, socket.create_server((port.taken.host, port.taken.port)):
        async with loaded(tmp_path, file) as it:
            spoil(file, port)
            await reread(it.applier, file)
            (told,) = it.events("apply_refused")
            assert told["path"] == str(file)
            assert cause in told["cause"]
            assert it.ran == (1, {"web": "rr"})
            assert list(it.node.listeners) == [port.address]


async def test_successors_of_any_version_can_read_what_checks_found():
    """The rows keep the five fields that they always had; who is unreachable stands beside them."""
    async with benched() as bench:
        await bench.put(*({"id": id_, "address": "127.0.0.1:1"} for id_ in "abc"))
        a = Verdict(state="down", cause="status 503")
        b = Verdict(state="down", cause="refused", reachable=False)
        assert bench.applier.decide_all({"s": {"a": a, "b": b, "x": b}}) == ["s/x"]
        state = state_of(bench.applier)
        assert state["verdicts"] == [
            ("s", "a", "down", "status 503", False),
            ("s", "b", "down", "refused", False),
        ]
        assert state["unreachable"] == [("s", "b")]
        assert [row[4] for row in verdicts_of(bench.node)] == [True, False]


async def test_a_successor_knows_what_its_predecessor_knew():
    """Overrides and health are inherited; of a backend that is not there nothing is."""
    async with benched() as before, benched() as after:
        for bench in (before, after):
            await bench.put(*({"id": id_, "address": "127.0.0.1:1"} for id_ in "ab"))
        await before.applier.patch("s", "a", BackendPatch(state="drain"))
        before.applier.decide_all({"s": {"b": Verdict(state="down", cause="refused", reachable=False)}})
        state = state_of(before.applier)
        state["verdicts"].append(("s", "gone", "down", "x", False))
        await inherit(after.applier, state)
        backends = after.service.backends
        assert backends["a"].spec.state.value == "drain"
        health = backends["b"].health
        assert (health.state.value, health.cause, health.reachable) == ("down", "refused", False)
