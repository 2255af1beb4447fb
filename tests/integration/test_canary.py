"""One change for three real nodes that follow a key of a real Consul: waited for, by way of a canary, and cut off at each step."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.backends import LineServer
from tests.support.consul import Agent, Cluster
from tests.support.load import Load
from tests.support.many_nodes import KEY, ManyNodes
from tests.support.wait import wait_for

pytestmark = [pytest.mark.needs("consul"), pytest.mark.timeout(180)]

NOBODY = "127.0.0.1:1"
QUICK = {
    "controlplane.cluster.rollout.SPARE_S": 1.0,
    "controlplane.cluster.rollout.FRESH_S": 0.5,
    "controlplane.core.record_pace._NUMBERS_S": 0.3,
}
"""A canary that is left alone ends after a few seconds."""


@pytest.fixture
def agent() -> Iterator[Agent]:
    """A Consul for development."""
    with Agent() as agent:
        yield agent


@pytest.fixture
def servers() -> Iterator[tuple[LineServer, LineServer]]:
    """The backends of the old content, and of the new one."""
    with LineServer("old") as old, LineServer("new") as new:
        yield old, new


@contextmanager
def running(directory, agent, servers) -> Iterator[ManyNodes]:
    """Run three nodes that have the old content."""
    with ManyNodes(directory, agent) as made:
        first = made.ends(made.applied(made.document(servers[0].address), "--wait"))
        if first[0]:  # the nodes have not told of themselves yet: nobody was there to be waited for
            wait_for(lambda: all(each == [servers[0].address] for each in made.backends()), "the old content")
        wait_for(
            lambda: made.ends(made.applied(made.document(servers[0].address), "--wait"))[0] == 0,
            "all nodes to tell that they have it",
        )
        yield made


@pytest.fixture
def bed(agent, servers, tmp_path_factory) -> Iterator[ManyNodes]:
    """Three nodes that run the old content."""
    with running(tmp_path_factory.mktemp("m"), agent, servers) as made:
        yield made


@pytest.fixture
def clients(bed) -> Iterator[list[Load]]:
    """Clients of each node, for the length of a test."""
    with ExitStack() as stack:
        loads = [stack.enter_context(Load(bed.address(node), rate=60.0)) for node in bed.nodes]
        for load in loads:
            load.wait_progress()
        yield loads


def record(agent: Agent) -> dict:
    """Return the canary's record."""
    status, raw = agent.request("GET", "/v1/kv/lb/edge.canary?raw")
    assert status == 200, raw
    return raw


def content(agent: Agent) -> str:
    """Return the first backend of the key's content."""
    return agent.request("GET", "/v1/kv/lb/edge?raw")[1]["services"]["web"]["backends"][0]


def test_all_nodes_are_waited_for(bed, servers):
    """0 when all run it; who refuses it is named with the reason, and who is killed meanwhile is gone and not waited for."""
    new = bed.document(servers[1].address)
    code, said = bed.ends(bed.applied(new, "--wait"))
    assert (code, "3 of 3 nodes of edge run it" in said) == (0, True), said
    assert bed.backends() == [[servers[1].address]] * 3
    with (
        LineServer("busy", port=bed.port.port, host=bed.nodes[1].ip) if False else LineServer("busy") as busy
    ):
        taken = bed.document(servers[0].address)
        taken["services"]["more"] = {"listen": f"${{NODE_IP}}:{busy.port}", "backends": [servers[0].address]}
        code, said = bed.ends(bed.applied(taken, "--wait", "--timeout", "5s"))
    assert code == 1, said
    assert "n1: behind: " in said
    assert "it is tried again by itself" in said
    assert "2 of 3 nodes of edge run it" in said
    with bed.applied(bed.document(servers[1].address), "--wait") as command:
        bed.nodes[0].plane.send_signal(signal.SIGSTOP)
        bed.nodes[2].daemon.kill()
        wait_for(lambda: "n3: gone: gone since " in command.output, "the loss", every_s=0.1)
        bed.nodes[0].plane.send_signal(signal.SIGCONT)
        wait_for(lambda: command.poll() is not None, "the end", every_s=0.1)
        assert command.wait() == 1


def test_a_good_canary(bed, servers, clients):
    """Promoted without a failed client; each node has taken the new content once, and none went back."""
    old, new = servers
    before = [len(node.generations()) for node in bed.nodes]
    code, said = bed.ends(
        bed.applied(bed.document(new.address), "--canary", "n2", "--observe", "4s", "--json")
    )
    assert code == 0, said
    report = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert (report["how"], report["canary"]["nodes"]) == ("promoted", ["n2"])
    assert [each["standing"] for each in report["nodes"]] == ["runs"] * 3
    assert any(row["metric"] == "failed" and row["canary"].startswith("0% of ") for row in report["evidence"])
    assert bed.backends() == [[new.address]] * 3
    for load in clients:
        load.wait_progress()
        assert load.stop().failed == 0, load.report
    key = report["canary"]["id"][:8]
    for node, known in zip(bed.nodes, before, strict=True):
        (added,) = node.generations()[known:]
        word = " " if node.name == "n2" else " promoted: web: failed 0%"
        assert f"canary {key} of root on " in added["by"], added
        assert word in added["by"]
    assert record(bed.agent)["ended"]["how"] == "promoted"
    assert old.address != content(bed.agent)


def test_a_bad_canary(bed, servers, clients):
    """Taken back by itself, and nobody but its own clients noticed."""
    code, said = bed.ends(bed.applied(bed.document(NOBODY), "--canary", "1", "--observe", "60s"))
    assert code == 1, said
    assert "taken back: web: failed " in said
    wait_for(lambda: bed.backends() == [[servers[0].address]] * 3, "the old content")
    wait_for(lambda: clients[0].report.failed, "its clients to notice")
    for load in clients[1:]:
        load.wait_progress()
        assert load.stop().failed == 0, load.report
    entries = bed.nodes[0].generations()
    assert " taken_back: web: failed " in entries[-1]["by"]
    assert content(bed.agent) == servers[0].address
    for node in bed.nodes[1:]:
        assert len(node.generations()) == len(entries) - 2
    status = bed.nodes[0]("status", "--json").json()
    assert "canary" not in status["sources"][0]


def test_a_canary_that_its_node_cannot_take(bed, servers):
    """Taken back with the node's reason, without a change of anything."""
    before = [len(node.generations()) for node in bed.nodes]
    with LineServer("busy") as busy:
        taken = bed.document(servers[1].address)
        taken["services"]["more"] = {"listen": f"${{NODE_IP}}:{busy.port}", "backends": [servers[0].address]}
        code, said = bed.ends(bed.applied(taken, "--canary", "n1", "--timeout", "3s"))
    assert (code, "taken back: n1: " in said, " after 3 s" in said) == (1, True, True), said
    wait_for(lambda: bed.nodes[0]("status", "--json").json()["config_error"] is None, "no error any more")
    assert [len(node.generations()) for node in bed.nodes] == before


@pytest.mark.parametrize("step", ["begins on", "observing for"])
def test_killed_at_a_step_and_left_alone(bed, servers, step):
    """It ends by itself, and says so; the others have never heard of it."""
    old, new = servers
    with bed.command(
        "apply",
        bed.operator.write(bed.document(new.address)),
        *("--to", KEY, "--canary", "n1", "--observe", "2s", "--timeout", "2s"),
        constants=QUICK,
    ) as command:
        command.wait_output(step)
        command.kill()
    wait_for(
        lambda: (
            " expired: " in bed.nodes[0].generations()[-1]["by"]
            or "expired: it was to last" in bed.nodes[0].daemon.output
        ),
        "the end of the canary",
        every_s=0.2,
    )
    wait_for(lambda: bed.backends() == [[old.address]] * 3, "the old content")
    assert (content(bed.agent), "ended" in record(bed.agent)) == (old.address, False)


def test_killed_after_it_was_promoted(bed, servers):
    """All nodes have the new content, whether somebody waits for that or not."""
    new = servers[1]
    with bed.applied(bed.document(new.address), "--canary", "n1", "--observe", "1s") as command:
        command.wait_output("promoted: ")
        command.kill()
    wait_for(lambda: bed.backends() == [[new.address]] * 3, "the new content")
    assert record(bed.agent)["ended"]["how"] == "promoted"


def test_killed_and_gone_on_with(bed, servers):
    """While its lock lives, others are refused by its name; the same content goes on, and no node goes back and forth."""
    old, new = servers
    before = len(bed.nodes[0].generations())
    with bed.applied(bed.document(new.address), "--canary", "n1", "--observe", "120s") as command:
        command.wait_output("observing for")
        pid = command.pid
        command.kill()
    for arguments in (("--canary", "n1"), (), ("--wait",)):
        code, said = bed.ends(bed.applied(bed.document(new.address), *arguments))
        assert (code, "a canary by root on " in said, f"(pid {pid})" in said) == (1, True, True), said
    wait_for(
        lambda: bed.agent.request("GET", "/v1/kv/lb/edge.lock")[0] == 404, "the end of its lock", every_s=0.5
    )
    code, said = bed.ends(bed.applied(bed.document(old.address, retries=1)))
    assert (code, "--take-back" in said) == (1, True), said
    code, said = bed.ends(bed.applied(bed.document(new.address), "--canary", "n1", "--observe", "1s"))
    assert (code, " goes on as " in said) == (0, True), said
    assert bed.backends() == [[new.address]] * 3
    assert len(bed.nodes[0].generations()) == before + 1


def test_interrupted_and_taken_back_by_another(bed, servers):
    """Ctrl-C takes it back before the command ends; of one that was killed, --take-back does."""
    old, new = servers
    with bed.applied(bed.document(new.address), "--canary", "n1", "--observe", "120s") as command:
        command.wait_output("observing for")
        command.send_signal(signal.SIGINT)
        assert command.wait() == 1
        assert "taken back: interrupted" in command.output
    assert bed.backends() == [[old.address]] * 3
    with bed.applied(bed.document(new.address), "--canary", "n1", "--observe", "120s") as command:
        command.wait_output("observing for")
        command.kill()
    wait_for(
        lambda: bed.agent.request("GET", "/v1/kv/lb/edge.lock")[0] == 404, "the end of its lock", every_s=0.5
    )
    assert bed.backends() == [[new.address], [old.address], [old.address]]
    code, said = bed.ends(bed.command("apply", "--to", KEY, "--take-back"))
    assert (code, "is taken back on n1" in said) == (0, True), said
    wait_for(lambda: bed.backends() == [[old.address]] * 3, "the old content")


def test_a_node_that_is_killed_with_its_canary_comes_back_to_it_for_the_rest_of_its_time(bed, servers):
    """Its daemon's restart neither ends it nor makes it longer; the command names it as gone, and takes it back."""
    old, new = servers
    node = bed.nodes[0]
    with bed.applied(bed.document(new.address), "--canary", "n1", "--observe", "120s") as command:
        command.wait_output("observing for")
        command.kill()
    node.daemon.kill()
    node.daemon.start()
    row = node.wait_status(lambda status: "canary" in status["sources"][0])["sources"][0]
    assert row["note"].startswith("canary ")
    assert bed.backends()[0] == [new.address]
    wait_for(
        lambda: bed.ends(bed.command("apply", "--to", KEY, "--take-back"))[0] == 0,
        "the end of its lock",
        every_s=1.0,
    )
    wait_for(lambda: bed.backends() == [[old.address]] * 3, "the old content")
    assert "taken_back" in node.generations()[-1]["by"]


def test_consul_is_frozen_in_the_middle(bed, servers):
    """For a while nobody can be asked: nothing changes, and the canary goes on when it answers."""
    new = servers[1]
    with bed.applied(bed.document(new.address), "--canary", "n1", "--observe", "6s") as command:
        command.wait_output("observing for")
        bed.agent.send_signal(signal.SIGSTOP)
        command.wait_output("Consul cannot be asked")
        bed.agent.send_signal(signal.SIGCONT)
        wait_for(lambda: command.poll() is not None, "the command's end", every_s=0.1)
        assert command.wait() in (0, 1)
    wait_for(lambda: len({str(each) for each in bed.backends()}) == 1, "one content on all nodes")


def test_the_leader_is_killed_in_the_middle(servers, tmp_path_factory):
    """The lock and the nodes' sessions live through the election, and the canary goes on to its end."""
    with Cluster() as cluster, running(tmp_path_factory.mktemp("m"), cluster.client, servers) as bed:
        new = servers[1]
        with bed.applied(bed.document(new.address), "--canary", "n1", "--observe", "8s") as command:
            command.wait_output("observing for")
            cluster.leader().kill()
            wait_for(lambda: command.poll() is not None, "the command's end", every_s=0.1)
            assert command.wait() == 0, command.output
        assert bed.backends() == [[new.address]] * 3


def test_what_it_would_do(bed, servers):
    """Each node's daemon is asked at its address; without its token, or without a node, the promise about clients is not kept."""
    old, new = servers
    sticky = {"mode": "sticky"}
    code, said = bed.ends(bed.applied(bed.document(old.address, **sticky), "--wait"))
    assert code == 0, said
    token = ("--token-file", bed.nodes[0].token)
    file = bed.operator.write(bed.document(old.address, new.address, **sticky))
    code, said = bed.ends(bed.command(*token, "plan", file, "--to", KEY))
    assert (code, f"+ backend web/{new.address}" in said) == (0, True), said
    report = json.loads(bed.ends(bed.command(*token, "plan", file, "--to", KEY, "--json"))[1])
    assert [(each["node"], each["result"], each["changes"]) for each in report["nodes"]] == [
        (f"n{number}", "ok", 1) for number in (1, 2, 3)
    ]
    assert report["impact"]["remap"].keys() == {"web"}
    code, said = bed.ends(bed.command(*token, "apply", file, "--to", KEY, "--max-remap", "1%"))
    assert (code, "of the sticky clients of a node would move" in said) == (1, True), said
    code, said = bed.ends(bed.command("plan", file, "--to", KEY))
    assert (code, said.count("refused"), "--token-file" in said, "no changes" in said) == (1, 3, True, False)
    bed.nodes[1].daemon.send_signal(signal.SIGSTOP)
    code, said = bed.ends(bed.command(*token, "apply", file, "--to", KEY, "--max-remap", "99%"))
    bed.nodes[1].daemon.send_signal(signal.SIGCONT)
    assert (code, "--max-remap cannot be kept" in said, "n2: no answer" in said) == (1, True, True), said
    assert bed.backends() == [[old.address]] * 3
    code, said = bed.ends(bed.command(*token, "apply", file, "--to", KEY, "--max-remap", "99%", "--wait"))
    assert code == 0, said
