"""The machines of `make demo-cluster`: nodes in namespaces of their own, and clients beyond the router."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

from tools.demo_network import Namespace, Router
from tools.demo_parts import CLIENT_S, Stage, call_unix, wait

ADDRESS: Final = "192.0.2.10"
"""The clients' address, which every node has and announces."""
SERVERS: Final = "10.77.0.1"
"""Where Consul and the backends are: at the router."""
CLIENTS: Final = "10.77.0.2"
PORT: Final = 80
CONSUL_PORT: Final = 8500
PAGE_PORT: Final = 9100
KEY: Final = "lb/edge.yaml"
NODES: Final = ("n1", "n2", "n3")
THREADS: Final = 4
PAUSE_S: Final = 0.01
"""Between the end of one client and the next, for each thread."""


def command(name: str) -> str:
    """Return one of our commands, beside this Python."""
    return str(Path(sys.executable).with_name(name))


class Traffic:
    """Clients beyond the router: connect, ask, read the answer, end.

    Args:
        namespace: Of the router.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._stopping = threading.Event()
        self._counting = threading.Lock()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(THREADS)]
        self.answered = 0
        self.failed: list[str] = []

    def start(self) -> None:
        """Let them come."""
        for each in self._threads:
            each.start()

    def stop(self) -> None:
        """Let nobody else come, and wait for who is there."""
        self._stopping.set()
        for each in self._threads:
            each.join()

    def _run(self) -> None:
        while not self._stopping.wait(PAUSE_S):
            why = self._ask()
            with self._counting:
                if why:
                    self.failed.append(why)
                else:
                    self.answered += 1

    def _ask(self) -> str:
        try:
            with self._namespace.connect(ADDRESS, PORT, source=CLIENTS, timeout_s=CLIENT_S) as client:
                client.sendall(b"hello\n")
                answer = client.makefile("rb").readline()
        except OSError as error:
            return str(error)
        return "" if answer.endswith(b": hello\n") else f"answered {answer!r}"


class Node:
    """One machine.

    Args:
        number: From 1.
        stage: Where its programs run.
        router: The router's namespace.
    """

    def __init__(self, number: int, stage: Stage, router: Namespace) -> None:
        self.name = NODES[number - 1]
        self.address = f"10.77.{number}.2"
        self._stage = stage
        self._programs: list[subprocess.Popen[bytes]] = []
        self.runtime = stage.directory / self.name
        self.runtime.mkdir(mode=0o700)
        self.environment = {
            "LB_RUNTIME_DIR": str(self.runtime),
            "LB_STATE_DIR": str(self.runtime / "state"),
            "CONSUL_HTTP_ADDR": f"http://{SERVERS}:{CONSUL_PORT}",
            "NODE_NAME": self.name,
            "NODE_IP": self.address,
        }
        self.namespace = Namespace(self.name, stage.stack)
        router.ip(f"link add {self.name} type veth peer name eth0 netns {self.namespace.pid}")
        router.ip(f"address add 10.77.{number}.1/24 dev {self.name}")
        router.ip(f"link set {self.name} up")
        self.namespace.ip(f"address add {self.address}/24 dev eth0")
        self.namespace.ip(f"address add {ADDRESS}/32 dev lo")
        self.namespace.ip("link set eth0 up")
        self.namespace.ip(f"route add default via 10.77.{number}.1")

    def start(self, token: Path) -> None:
        """Start its data plane and its daemon."""
        self._spawn("dataplane", "lb-dataplane", "--name", self.name)
        plane = self.runtime / f"dataplane-{self.name}.sock"
        wait(lambda: call_unix(plane, "/livez") is not None, f"the data plane of {self.name}")
        page = ("--http", f"0.0.0.0:{PAGE_PORT}", "--http-token-file", str(token))
        self._spawn("control", "lb-control", "run", f"consul-kv:{KEY}", *page)
        wait(lambda: self.status() is not None, f"the daemon of {self.name}")

    def announce(self, router: Router) -> None:
        """Let it tell the router whenever it is ready, and when it is not."""
        # ExaBGP would read its commands, and answer on its standard input, whose end is ExaBGP's end.
        how: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = self._spawn("announce", "lb-control", "announce", "--prefix", f"{ADDRESS}/32", **how)
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        router.listen(process.stdout, self.address)

    def kill(self) -> None:
        """End every process of it at once, without a word."""
        for each in self._programs:
            each.kill()
        for each in self._programs:
            each.wait()

    def status(self) -> Any:
        """Return what its daemon says; None: nothing."""
        return call_unix(self.runtime / "control.sock", "/v1/status")

    def shell(self) -> str:
        """Return the command line of a shell there, with everything set."""
        set_ = [f"{name}={value}" for name, value in self.environment.items()]
        path = f"PATH={Path(sys.executable).parent}:$PATH"
        return " ".join(self.namespace.within("env", *set_, path, "bash"))

    def sees_gone(self, name: str) -> bool:
        """Tell whether its daemon knows that another node is gone."""
        told = call_unix(self.runtime / "control.sock", "/v1/nodes") or {"nodes": []}
        return any(each["name"] == name and each["presence"] == "gone" for each in told["nodes"])

    def control(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command there; its output is to be read."""
        return subprocess.Popen(
            self.namespace.within(command("lb-control"), *arguments),
            env={**os.environ, **self.environment, "COLUMNS": "120", "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _spawn(self, name: str, program: str, *arguments: str, **how: Any) -> subprocess.Popen[bytes]:
        argv = self.namespace.within(command(program), *arguments)
        process = self._stage.spawn(f"{self.name}-{name}", *argv, environment=self.environment, **how)
        self._programs.append(process)
        return process
