"""`plan --to` and `apply --to`: what is printed and with which exit code, of nodes that take what a fake Consul has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from types import SimpleNamespace

import pytest

from controlplane.cli.files import apply, plan
from controlplane.dataplanes.tls import Tls
from controlplane.errors import HeldBackError
from tests.controlplane.cli.given import run
from tests.controlplane.cluster.nodes import FakeNode, live
from tests.support.fakeconsul import FakeConsul

SERVICES = 'services: {web: {listen: ":80", backends: ["127.0.0.1:1"]}}\n'
OLD = f"version: 1\ncluster: {{name: edge}}\n{SERVICES}"
NEW = f"# new\n{OLD}"
SETTINGS = SimpleNamespace(token=lambda: None, files=Tls())


class Bed:
    """A fake Consul in a thread of its own, for commands have loops of theirs, and nodes that follow the key `lb`."""

    def __init__(self):
        self.consul = FakeConsul()
        self.nodes = [FakeNode(self.consul, name) for name in ("n1", "n2", "n3")]
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))

    async def _run(self):
        self._end = asyncio.Event()
        self.consul.keys["lb"] = (OLD.encode(), 3)
        async with self.consul:
            task = asyncio.create_task(live(*self.nodes))
            while len(self.consul.locks) < len(self.nodes):  # noqa: ASYNC110 - nodes tell nobody
                await asyncio.sleep(0.001)
            self._up.set()
            await self._end.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def __enter__(self):
        self._thread.start()
        self._up.wait()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def bed(monkeypatch):
    """All of it."""
    monkeypatch.setattr("controlplane.cluster.looking.POLL_S", 0.01)
    with Bed() as made:
        monkeypatch.setenv("CONSUL_HTTP_ADDR", made.consul.address)
        yield made


@pytest.fixture
def file(tmp_path):
    """The new content."""
    path = tmp_path / "lb.yaml"
    path.write_text(NEW)
    return path


def command(file, *arguments, what=apply):
    """Run a command about the key."""
    return run(what, SETTINGS, *([str(file)] if file else []), "--to", "consul-kv:lb", *arguments)


def test_only_written(bed, file):
    """Nobody is waited for; the same again is no change."""
    assert command(file).stdout == "consul-kv:lb: written\n"
    assert json.loads(command(file, "--json").stdout) == {"key": "consul-kv:lb", "changed": False}


def test_waited_for(bed, file):
    """0: all run it."""
    result = command(file, "--wait")
    assert (result.exit_code, result.stdout) == (0, "3 of 3 nodes of edge run it\n")
    assert [each.running for each in bed.nodes] == [NEW.encode()] * 3


def test_who_has_not_taken_it_is_named(bed, file):
    """1: with the reason."""
    bed.nodes[1].refuses.add(NEW.encode())
    bed.nodes[2].deaf = True
    result = command(file, "--wait", "--timeout", "1s", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["changed"]) == (1, True)
    assert [each["standing"] for each in report["nodes"]] == ["runs", "refused", "behind"]
    assert "n2: refused: lb:1: n2 does not want it\n" in result.stderr
    assert "n3: behind: it has lb.yaml " in result.stderr


def test_no_node_there(bed, file):
    """1: nobody runs it."""
    for node in bed.nodes:
        node.dead = True
    file.write_text(NEW.replace("edge", "other"))
    result = command(file, "--wait", "--timeout", "1s")
    assert (result.exit_code, "no node of other is there" in result.stderr) == (1, True)


def test_a_canary_that_is_good(bed, file):
    """0: with its evidence, as a table or as JSON."""
    result = command(file, "--canary", "1", "--observe", "100ms")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0].split() == [
        "service",
        "compared",
        "canary",
        "others",
        "before",
        "result",
    ]
    assert result.stdout.endswith("3 of 3 nodes of edge run it\n")
    for step in ("begins on n1", "n1: runs it", "observing for 0.1 s", "promoted: every node takes it"):
        assert step in result.stderr
    assert command(file, "--canary", "1").stdout == "consul-kv:lb: has this content already\n"


def test_a_canary_that_is_bad(bed, file):
    """1: with why, and nobody else has run it."""
    bed.nodes[0].fails[NEW.encode()] = 0.9
    result = command(file, "--canary", "n1", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["how"], report["canary"]["nodes"]) == (1, "taken_back", ["n1"])
    assert report["why"].startswith("web: failed ")
    failed = report["evidence"][0]
    assert (failed["service"], failed["metric"], failed["worse"]) == ("web", "failed", True)
    assert "taken_back: web: failed " in result.stderr
    assert [each.taken for each in bed.nodes[1:]] == [[OLD.encode()]] * 2


def test_nothing_to_take_back(bed):
    """1: it is said."""
    with pytest.raises(HeldBackError, match="no canary of consul-kv:lb runs"):
        command(None, "--take-back")


def test_taken_back(bed, file, monkeypatch):
    """0: by another command, when the first one has died."""

    class Dies(BaseException):
        pass

    def die(*_):
        raise Dies

    monkeypatch.setattr("controlplane.cluster.rollout.Rollout._observing", die)
    with contextlib.suppress(BaseException):
        command(file, "--canary", "1")
    monkeypatch.undo()
    monkeypatch.setenv("CONSUL_HTTP_ADDR", bed.consul.address)
    result = command(None, "--take-back")
    assert (result.exit_code, result.stdout.endswith(" is taken back on n1\n")) == (0, True), result.output
    assert json.loads(bed.consul.keys["lb.canary"][0])["ended"]["how"] == "taken_back"


def test_nodes_that_cannot_be_asked(bed, file):
    """1: each is named, and a promise about their clients cannot be kept."""
    result = command(file, what=plan)
    assert (result.exit_code, result.stdout.count("no_address")) == (1, 3)
    with pytest.raises(HeldBackError, match="--max-remap cannot be kept"):
        command(file, "--max-remap", "5%")
    assert bed.consul.keys["lb"][0] == OLD.encode()


@pytest.mark.parametrize(("most", "code"), [("4%", 1), ("6%", 0)])
def test_impact_over_nodes(bed, file, monkeypatch, most, code):
    """It is shown, and --max-remap is kept by the node that would move most."""
    report = {
        "changes": [{"action": "add", "kind": "service", "service": "web"}],
        "impact": {"drain": [], "pool": [], "remap": {"web": "5%"}, "listeners": []},
        "nodes": [
            {
                "node": "n1",
                "address": "http://127.0.0.1:1",
                "result": "ok",
                "error": None,
                "changes": 1,
                "impact": {"drain": [{"service": "web", "id": "a", "connections": 7}]},
                "unserved": [],
            }
        ],
    }
    monkeypatch.setattr("controlplane.cli.everywhere.plan_everywhere", lambda *_, **__: report)
    shown = command(file, what=plan)
    assert (shown.exit_code, "+ service web" in shown.stdout, "7" in shown.stdout) == (0, True, True)
    assert command(file, "--detailed-exitcode", what=plan).exit_code == 3
    assert json.loads(command(file, "--json", what=plan).stdout) == report
    if code:
        with pytest.raises(HeldBackError, match=r"web: 5% of the sticky clients of a node .* --max-remap 4%"):
            command(file, "--max-remap", most)
    else:
        assert command(file, "--max-remap", most).exit_code == 0
