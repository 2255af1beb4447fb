"""`make demo-cluster`: three nodes that serve one address, changed in stages, drained, and one killed. Ends by itself.

Namespaces of the network stand for machines: three nodes with a data plane and a control plane each, and a router with the
clients, a real Consul and the backends. The router is played by this program: it follows what `lb-control announce` prints,
where ExaBGP would speak BGP. Clients come all the time, and each step says how many of them failed. Nothing outside of the
namespaces is changed, and all of it is gone at the end, also after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tools.demo_network import Door, Namespace, Router, missing
from tools.demo_nodes import ADDRESS, CLIENTS, CONSUL_PORT, KEY, PAGE_PORT, PORT, SERVERS, Node, Traffic
from tools.demo_parts import ROOT, DemoError, Stage, find_consul, folder, wait

BACKENDS: Final = (8001, 8002, 8003, 8004)
WRONG: Final = 8999
"""A port where nobody listens."""
OBSERVE_S: Final = 6.0
"""How long a canary is observed."""
SOME: Final = 100
"""Clients that are waited for."""
TARGET: Final = f"consul-kv:{KEY}"


class Demo:
    """The parts, and what is done to them.

    Args:
        directory: For configurations, sockets, state and logs.
        stack: Ends what was started.
    """

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._stage = Stage(directory, stack)
        self._file = directory / "lb.yaml"
        self._network = Namespace("router", stack)
        for address in (SERVERS, CLIENTS):
            self._network.ip(f"address add {address}/32 dev lo")
        self._network.sysctl("net.ipv4.ip_forward=1")  # nodes reach each other
        # Each connection is sent by all of its addresses and ports, not by its addresses alone.
        self._network.sysctl("net.ipv4.fib_multipath_hash_policy=1")
        self._nodes = [Node(number, self._stage, self._network) for number in (1, 2, 3)]
        self._router = Router(self._network, f"{ADDRESS}/32")
        self._traffic = Traffic(self._network)
        self._counted = (0, 0)

    def run(self, *, stay: bool) -> None:
        """Show everything.

        Args:
            stay: Go on with clients at the end, until Ctrl-C.

        Raises:
            DemoError: Something did not happen, or clients failed that should not have noticed.
        """
        self._begin()
        self._traffic.start()
        self._await_clients()
        self._count("Clients come from now on.", may_fail=False)
        self._canary_that_goes()
        self._canary_that_is_taken_back()
        self._drained()
        self._killed()
        if stay:
            self._stage.say("Ctrl-C ends it. On a node, as root, in another terminal:")
            print(f"          {self._nodes[0].shell()}", flush=True)
            signal.pause()
        self._traffic.stop()
        served, failed = self._traffic.answered, len(self._traffic.failed)
        self._stage.say(f"The end. {served} clients were served, {failed} failed.")

    # --- the steps

    def _begin(self) -> None:
        first, token = self._nodes[0], self._stage.directory / "http.token"
        for port in BACKENDS:
            backend = (sys.executable, str(ROOT / "tools/test_backend.py"), str(port), "--host", SERVERS)
            argv = self._network.within(*backend, "--name", f"app-{port}")
            self._stage.spawn(f"app-{port}", *argv, environment={})
        self._start_consul()
        self._write("rr", BACKENDS)
        self._show(first, "apply", str(self._file), "--to", TARGET)
        token.write_text(secrets.token_urlsafe(9))
        for node in self._nodes:
            node.start(token)
        self._show(first, "apply", str(self._file), "--to", TARGET, "--wait")
        for node in self._nodes:
            node.announce(self._router)
        wait(lambda: len(self._router.used) == len(self._nodes), "every node to be announced")
        self._stage.say(f"Three nodes announce {ADDRESS}; the router spreads connections over them.")
        self._show(first, "nodes")
        door = Door(first.namespace, PAGE_PORT, self._stage.stack)
        door.start()
        self._stage.say(f"The page of n1: http://127.0.0.1:{door.port}/     its token: {token.read_text()}")

    def _canary_that_goes(self) -> None:
        self._stage.say(
            "A change for all, first on n1: a client gets the backend with the fewest connections."
        )
        self._write("leastconn", BACKENDS)
        self._canary("n1", status=0)
        self._count("It is on every node.", may_fail=False)

    def _canary_that_is_taken_back(self) -> None:
        self._stage.say(f"A change with an error, first on n2: port {WRONG}, where nobody listens.")
        self._write("leastconn", (WRONG,))
        self._canary("n2", status=1)
        self._count("It was taken back; only clients of n2 met it.")
        self._await_clients()
        self._count("All is as before.", may_fail=False)

    def _canary(self, name: str, *, status: int) -> None:
        how = ("--canary", name, "--observe", f"{OBSERVE_S:g}s")
        self._show(self._nodes[0], "apply", str(self._file), "--to", TARGET, *how, status=status)

    def _drained(self) -> None:
        node = self._nodes[1]
        self._stage.say("n2 shall be upgraded: it is drained.")
        self._show(node, "node", "drain", "--wait")
        self._await_clients()
        self._count("n2 has no clients, and could be switched off.")
        self._show(node, "node", "enable")
        wait(lambda: node.address in self._router.used, "the route to n2 to come back")
        self._await_clients()
        self._count("n2 is back.")

    def _killed(self) -> None:
        first, node = self._nodes[0], self._nodes[2]
        node.kill()
        wait(lambda: node.address not in self._router.used, "the route to n3 to go")
        self._await_clients()
        self._count("Every process of n3 was killed; its route went with them, and its clients' connections.")
        self._await_clients()
        self._count("The others serve everybody.", may_fail=False)
        wait(lambda: first.sees_gone(node.name), "n3 to be missed")
        self._show(first, "nodes", status=None)

    # --- what they are made of

    def _start_consul(self) -> None:
        settings = self._stage.directory / "consul.json"
        ports = {"http": CONSUL_PORT, "dns": -1, "grpc": -1, "serf_wan": -1}
        settings.write_text(json.dumps({"node_name": "demo", "ports": ports, "disable_update_check": True}))
        agent = (find_consul(), "agent", "-dev", "-bind", SERVERS, "-client", SERVERS)
        self._stage.spawn(
            "consul", *self._network.within(*agent, "-config-file", str(settings)), environment={}
        )
        wait(lambda: self._network.answers(SERVERS, CONSUL_PORT), "Consul")

    def _write(self, mode: str, ports: Sequence[int]) -> None:
        """Write the file that is for all nodes."""
        backends = [f"{SERVERS}:{port}" for port in ports]
        document: dict[str, Any] = {
            "version": 1,
            "cluster": {
                "name": "demo",
                "node": "${NODE_NAME}",
                "address": f"http://${{NODE_IP}}:{PAGE_PORT}",
            },
            "consul": {"address": f"http://{SERVERS}:{CONSUL_PORT}"},
            "services": {
                "web": {
                    "listen": f"{ADDRESS}:{PORT}",
                    "mode": mode,
                    "backends": backends,
                    "drain": {"timeout": "5s", "close": "1s"},
                }
            },
        }
        self._file.write_text(json.dumps(document, indent=1))

    def _show(self, node: Node, *arguments: str, status: int | None = 0) -> None:
        """Run a command on a node, and show what it prints.

        Args:
            node: Where.
            arguments: Of `lb-control`.
            status: How it has to end; None: that is shown by what it prints.
        """
        shown = " ".join(arguments).replace(str(self._file), self._file.name)
        self._stage.say(f"{node.name}$ lb-control {shown}")
        with node.control(*arguments) as running:
            for line in running.stdout or ():
                print(f"          {line.rstrip()}".replace(str(self._file), self._file.name), flush=True)
        if status is not None and running.returncode != status:
            raise DemoError(f"lb-control {shown} ended with {running.returncode}, and {status} was expected")

    def _await_clients(self) -> None:
        before = self._traffic.answered
        wait(lambda: self._traffic.answered > before + SOME, "more clients")

    def _count(self, text: str, *, may_fail: bool = True) -> None:
        """Say how many clients have come since the last time, and how many failed."""
        total = (self._traffic.answered, len(self._traffic.failed))
        served, failed = (now - before for now, before in zip(total, self._counted, strict=True))
        self._counted = total
        self._stage.say(f"{text} {served} clients were served, {failed} failed.")
        if failed and not may_fail:
            raise DemoError(f"clients failed: {self._traffic.failed[-failed:][:5]}")


def main() -> None:
    """Run the demonstration; exit with 1 and the reason if anything did not go as it should."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--stay", action="store_true", help="go on with clients until Ctrl-C, so that one can look around"
    )
    stay = parser.parse_args().stay
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        if why := missing():
            sys.exit(f"demo-cluster: {why}")
        with folder() as directory, contextlib.ExitStack() as stack:
            Demo(directory, stack).run(stay=stay)
    except DemoError as error:
        sys.exit(f"demo-cluster: {error}")
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main()
