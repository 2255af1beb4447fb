"""The files of deploy/exabgp, deploy/bird and deploy/keepalived as they are: routes and addresses follow what a node says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.deployed import DEPLOY, keepalived, marking, serving
from tests.support.machine import Machine, Service, plug, state, switch
from tests.support.namespaces import needs_namespaces
from tests.support.wait import wait_for

pytestmark = [needs_namespaces, pytest.mark.timeout(180)]

VIP = "203.0.113.10"
SHARED = "192.0.2.10/24"
LB_YAML = "version: 1\nservices:\n  web: {listen: '0.0.0.0:80', backends: ['127.0.0.1:8080'], drain: {timeout: 1s}}\n"


def join(node: Machine, number: int, router: Machine) -> None:
    """Plug a node into the router's network, as 192.0.2.NUMBER."""
    plug(node, "eth0", f"192.0.2.{number}/24", (router, "lan"))


class Router:
    """A router with BIRD."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def route(self) -> str:
        """Return what BIRD knows of the route to the address that clients connect to; empty: there is none."""
        told = self.machine.try_to("birdc", f"show route {VIP}/32 all")
        return told if "BGP.as_path" in told else ""

    def withdrawals(self) -> int:
        """Return how many routes nodes have taken back so far."""
        told = self.machine.try_to("birdc", "show protocols all")
        return sum(int(each) for each in re.findall(r"Import withdraws: +(\d+)", told))

    def wait(self, med: int | None) -> str:
        """Wait until the route has this MED, or is gone (None)."""
        if med is None:
            wait_for(lambda: not self.route(), "the route to go")
            return ""
        return wait_for(
            lambda: f"BGP.med: {med}\n" in (told := self.route()) and told, f"a route with MED {med}"
        )


@pytest.fixture
def router() -> Iterator[Router]:
    """A router, 192.0.2.1, that runs deploy/bird/router.conf."""
    with Machine("router") as machine:
        switch(machine, "lan", "192.0.2.1/24")
        machine.put("/etc/bird/bird.conf", (DEPLOY / "bird/router.conf").read_text())
        with Service(machine, ["/usr/sbin/bird", "-f"]):
            yield Router(machine)


@pytest.fixture
def node(router: Router) -> Iterator[Machine]:
    """A node, 192.0.2.11, with a data plane that is ready."""
    with Machine("node") as node:
        join(node, 11, router.machine)
        node.ip(f"address add {VIP}/32 dev lo")
        with serving(node, LB_YAML):
            yield node


@pytest.fixture
def exabgp(node: Machine) -> Iterator[Service]:
    """ExaBGP on the node, as deploy/exabgp has it; the unit's environment, but for the user: nobody is `lb` here."""
    node.put("/etc/exabgp/exabgp.conf", (DEPLOY / "exabgp/exabgp.conf").read_text())
    unit = (DEPLOY / "exabgp/exabgp.service.d/livelb.conf").read_text()
    environment = [
        each for each in re.findall(r"^Environment=(.*)", unit, re.MULTILINE) if "_user=" not in each
    ]
    assert len(environment) == 2
    start = ["env", *environment, "exabgp_daemon_user=root", "/usr/sbin/exabgp", "/etc/exabgp/exabgp.conf"]
    with Service(node, start) as program:
        yield program


@pytest.fixture
def on_interfaces(node: Machine) -> Iterator[Service]:
    """BIRD on the node, as deploy/bird has it, and what keeps addresses on the interfaces that it announces."""
    node.put("/etc/bird/bird.conf", (DEPLOY / "bird/node.conf").read_text())
    with Service(node, ["/usr/sbin/bird", "-f"]), marking(node) as announce:
        yield announce


def planes(node: Machine) -> list[int]:
    """Return the processes of a node's data plane."""
    named = [(pid, Path(f"/proc/{pid}/cmdline").read_bytes()) for pid in node.pids()]
    return [pid for pid, command in named if b"lb-dataplane" in command]


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def announcer(exabgp: Service) -> int:
    """Wait for the process that ExaBGP has started, with its guard, and return its id."""

    def both() -> int:
        found = children(exabgp.pid)
        return found[0] if found and children(found[0]) else 0

    return wait_for(both, "the announcer and its guard")


@pytest.mark.needs("exabgp")
@pytest.mark.needs("bird")
def test_exabgp_follows_the_node(router, node, exabgp):
    """Ready: announced with MED and community. Lowered: MED is up. Withdrawn: gone. Enabled: all is as before."""
    told = router.wait(100)
    assert "BGP.community: (64512,100)" in told
    assert f"{VIP} via 192.0.2.11" in router.machine.run("ip", "route")
    with Service(node, ["lb-control", "node", "drain", "--settle", "5s", "--wait", "--quiet", "1s"]) as drain:
        router.wait(200)
        assert "ready; other nodes are preferred" in node.run("lb-control", "node")
        router.wait(None)
        assert drain.wait() == 0
        assert "may be switched off" in drain.output
    assert "not ready: drained" in node.try_to("lb-control", "ready")
    node.run("lb-control", "node", "enable")
    router.wait(100)


@pytest.mark.needs("exabgp")
@pytest.mark.needs("bird")
def test_exabgp_without_a_data_plane(router, node, exabgp):
    """The route goes when nobody serves any more."""
    router.wait(100)
    node.run("sh", "-c", "kill $(cat /run/lb/dataplane-main.sock.lock)")
    router.wait(None)


@pytest.mark.needs("exabgp")
@pytest.mark.needs("bird")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
@pytest.mark.parametrize("which", ["announcer", "guard"])
def test_exabgp_when_one_of_two_fails(router, exabgp, which, number):
    """Whichever of announcer and guard dies or hangs, the other withdraws; both are started again, and announce."""
    router.wait(100)
    before, main = router.withdrawals(), announcer(exabgp)
    os.kill(main if which == "announcer" else children(main)[0], number)
    wait_for(lambda: router.withdrawals() > before, "a withdrawal")
    wait_for(lambda: announcer(exabgp) != main, "another announcer")
    router.wait(100)


@pytest.mark.needs("exabgp")
@pytest.mark.needs("bird")
def test_a_question_that_hangs(router, node, exabgp):
    """A data plane that is stopped answers nothing: not ready, until it goes on. The announcer is the same all the time."""
    router.wait(100)
    main, plane = announcer(exabgp), planes(node)
    for pid in plane:
        os.kill(pid, signal.SIGSTOP)
    router.wait(None)
    for pid in plane:
        os.kill(pid, signal.SIGCONT)
    node.thaw()
    router.wait(100)
    assert announcer(exabgp) == main


@pytest.mark.needs("exabgp")
@pytest.mark.needs("bird")
def test_exabgp_reads_another_configuration(router, node, exabgp):
    """The session is another one, and the routes are there again: they are said again at times."""
    router.wait(100)
    before = router.withdrawals()
    changed = (DEPLOY / "exabgp/exabgp.conf").read_text().replace("hold-time 3;", "hold-time 4;")
    node.put("/etc/exabgp/exabgp.conf", changed)
    exabgp.send_signal(signal.SIGUSR1)
    exabgp.wait_output("loaded new configuration successfully")
    wait_for(lambda: exabgp.output.count("connected to peer") > 1, "another session")
    router.wait(100)
    assert router.withdrawals() == before


@pytest.mark.needs("exabgp")
@pytest.mark.needs("bird")
def test_exabgp_itself_dies(router, exabgp):
    """Its session ends, and with it the route; nothing that it has started stays."""
    router.wait(100)
    main = announcer(exabgp)
    both = [main, *children(main)]
    exabgp.kill()
    router.wait(None)
    wait_for(lambda: all(state(pid) in {"", "Z"} for pid in both), "the announcer to end")


@pytest.mark.needs("bird")
def test_bird_follows_the_node(router, node, on_interfaces):
    """The same routes come of addresses on interfaces: ready, lowered, withdrawn, and back."""
    told = router.wait(100)
    assert "BGP.community: (64512,100)" in told
    with Service(node, ["lb-control", "node", "drain", "--settle", "5s"]) as drain:
        router.wait(200)
        router.wait(None)
        assert drain.wait() == 0
    assert f"{VIP}/32" in node.run("ip", "address", "show", "dev", "lo")
    node.run("lb-control", "node", "enable")
    router.wait(100)
    on_interfaces.stop()
    router.wait(None)


@pytest.mark.needs("bird")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_bird_when_the_announcer_fails(router, node, on_interfaces, number):
    """Nothing of ours runs any more: the kernel removes the address, and BIRD the route; it comes back with the announcer."""
    router.wait(100)
    on_interfaces.send_signal(number)
    router.wait(None)
    if number is signal.SIGKILL:
        on_interfaces.wait()
    if number is signal.SIGSTOP:
        node.thaw()
    else:
        on_interfaces.start()
    router.wait(100)


class Pair(NamedTuple):
    """One of two nodes with keepalived."""

    node: Machine
    keepalived: Service


def holder(pair: dict[str, Pair]) -> str:
    """Return who has the shared address: a name, or several."""
    shown = ("ip", "address", "show", "dev", "eth0")
    return " ".join(name for name, each in pair.items() if SHARED in each.node.run(*shown))


@pytest.fixture
def pair() -> Iterator[dict[str, Pair]]:
    """Two nodes with keepalived, as deploy/keepalived has it."""
    with contextlib.ExitStack() as stack:
        router = stack.enter_context(Machine("switch"))
        switch(router, "lan", "192.0.2.1/24")
        machines, nodes = {}, {}
        for number, name in enumerate(("one", "two"), 11):
            node = machines[name] = stack.enter_context(Machine(name))
            join(node, number, router)
            stack.enter_context(serving(node, LB_YAML))
            stack.enter_context(marking(node))
        for name, node in machines.items():
            nodes[name] = Pair(node, stack.enter_context(keepalived(node, name)))
        yield nodes


@pytest.mark.needs("keepalived")
def test_keepalived_moves_the_address(pair):
    """The node of the higher priority has it; lowered, not ready, or without a data plane, the other one; enabled, back."""
    wait_for(lambda: holder(pair) == "one", "the address on the first node")
    one, two = pair["one"].node, pair["two"].node
    with Service(one, ["lb-control", "node", "drain", "--settle", "1h"]) as drain:
        wait_for(lambda: holder(pair) == "two", "the address to leave a lowered node")
        assert "ready" in one.run("lb-control", "ready")
        one.run("lb-control", "node", "enable")
        drain.kill()
    wait_for(lambda: holder(pair) == "one", "the address to come back")
    one.run("lb-control", "node", "drain", "--settle", "0s")
    wait_for(lambda: holder(pair) == "two", "the address to leave a withdrawn node")
    one.run("lb-control", "node", "enable")
    wait_for(lambda: holder(pair) == "one", "the address to come back")
    one.run("sh", "-c", "kill $(cat /run/lb/dataplane-main.sock.lock)")
    wait_for(lambda: holder(pair) == "two", "the address to leave a node without a data plane")
    # Nobody else is ready: the one that is lowered keeps it.
    with Service(two, ["lb-control", "node", "drain", "--settle", "1h"]) as drain:
        pair["two"].keepalived.wait_output("Changing effective priority from 100 to 50")
        assert holder(pair) == "two"
        drain.kill()
