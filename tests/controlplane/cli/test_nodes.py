"""Who is in the cluster: by the daemon, or by Consul itself, and what is said where neither knows."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace

from click.testing import CliRunner

from controlplane.cli.nodes import nodes
from controlplane.core.node_record import NodeRecord
from controlplane.errors import PlaceError, RefusedError, UnknownError
from tests.support.fakeconsul import FakeConsul

AT = "2999-01-02T03:04:05.000Z"
REPORT = {
    "cluster": "edge",
    "node": "n1",
    "known": True,
    "age_s": 0.0,
    "error": None,
    "error_since": None,
    "live": 0,
    "converged": False,
    "nodes": [],
}


class Daemon:
    """Answers, or refuses."""

    def __init__(self, answer):
        self._answer = answer

    def ask(self, call, *, timeout_s):
        """Answer one call."""
        assert (call.method, call.target) == ("GET", "/v1/nodes")
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def run(answer, *arguments):
    """Run the command beside a daemon that answers so; None: there is none."""
    settings = SimpleNamespace(daemon=lambda: None if answer is None else Daemon(answer))
    return CliRunner().invoke(nodes, arguments, obj=settings)


def test_the_daemon_is_asked():
    """What it says is printed, as a table or as JSON; the exit code says that something is known, not that all is well."""
    done = run(REPORT)
    assert done.exit_code == 0
    assert done.stdout.startswith("cluster edge: no node has ever joined it")
    done = run(REPORT, "--json")
    assert (done.exit_code, json.loads(done.stdout)) == (0, REPORT)
    assert run({**REPORT, "known": False}).exit_code == 1


def test_without_a_daemon_it_says_how_to_ask():
    """The way to Consul needs a key."""
    done = run(None)
    assert isinstance(done.exception, PlaceError)
    assert "--of consul-kv:PATH" in str(done.exception)


def test_without_a_cluster_it_says_so():
    """For a script in JSON as well."""
    refusal = RefusedError("the daemon", 404, {"code": "unknown", "message": "no cluster"})
    done = run(refusal, "--json")
    assert isinstance(done.exception, UnknownError)
    assert json.loads(done.stdout) == {"code": "unknown", "message": "no cluster", "details": []}


def test_what_is_no_key_is_refused():
    """Before anybody is asked."""
    done = run(REPORT, "--of", "lb/edge")
    assert done.exit_code == 2
    assert "must be consul-kv:PATH" in done.output


async def test_consul_itself_is_asked(monkeypatch):
    """Its key names the cluster; the daemon is not needed."""
    async with FakeConsul() as consul:
        monkeypatch.setenv("CONSUL_HTTP_ADDR", consul.address)
        consul.keys["lb/edge"] = (b"cluster: {name: edge, node: '${NODE_NAME}'}\nservices: 5\n", 3)
        consul.keys["livelb/edge/nodes/a"] = (NodeRecord(node="a", at=AT).encode(), 4)
        done = await asyncio.to_thread(run, None, "--of", "consul-kv:lb/edge", "--json")
        report = json.loads(done.stdout)
        assert (done.exit_code, report["cluster"], report["node"]) == (0, "edge", None)
        assert [(each["name"], each["presence"]) for each in report["nodes"]] == [("a", "gone")]
        consul.keys["lb/edge"] = (b"services: {}\n", 5)
        done = await asyncio.to_thread(run, None, "--of", "consul-kv:lb/edge")
        assert str(done.exception) == "consul-kv:lb/edge: cluster.name: missing: the file names no cluster"
