"""`make demo-consul`: services that register get traffic; Consul that dies is not noticed by it. Ends by itself.

A real Consul, backends, a data plane and a control plane, each on ports of its own choice and in a folder that is
removed again. Clients come all the time; the last line says how many there were and how many failed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from tools.demo_parts import CLIENT_S, ROOT, DemoError, Stage, answer, call_unix, find_consul, folder, wait

HOST: Final = "127.0.0.1"
PAUSE_S: Final = 0.01
"""Between the end of one client and the next."""


class Traffic(threading.Thread):
    """Clients, one after the other: connect, ask, read the answer, end.

    Args:
        port: Of the balancer.
    """

    def __init__(self, port: int) -> None:
        super().__init__(name="traffic", daemon=True)
        self._port = port
        self._stopping = threading.Event()
        self.answered: Counter[str] = Counter()
        """By the name of the backend."""
        self.failed: list[str] = []

    def run(self) -> None:
        """Come until `stop`."""
        while not self._stopping.wait(PAUSE_S):
            try:
                with socket.create_connection((HOST, self._port), timeout=CLIENT_S) as client:
                    client.sendall(b"hello\n")
                    answer = client.makefile("rb").readline().decode()
                if not answer.endswith(": hello\n"):
                    self.failed.append(f"answered {answer!r}")
                self.answered[answer.partition(" ")[0]] += 1
            except OSError as error:
                self.failed.append(str(error))

    def stop(self) -> None:
        """Let nobody else come, and wait for who is there."""
        self._stopping.set()
        self.join()


class Demo:
    """The parts, and what is done to them.

    Args:
        directory: For configurations, sockets, state and logs.
        stack: Ends what was started.
    """

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self._directory = directory
        self._stage = Stage(directory, stack)
        self._environment = {
            "LB_RUNTIME_DIR": str(directory / "run"),
            "LB_STATE_DIR": str(directory / "state"),
        }
        self._ports = _free_ports(4)
        self._consul: subprocess.Popen[bytes] | None = None
        self._backends: dict[str, int] = {}

    def run(self) -> None:
        """Show everything.

        Raises:
            DemoError: Something did not happen, or a client failed.
        """
        self._start_consul()
        self._scale_up(4)
        self._start_balancer()
        wait(lambda: len(self._served()) == len(self._backends), "the first backends")
        traffic = Traffic(self._ports[0])
        traffic.start()
        self._stage.say("Four instances registered; clients come from now on.")
        self._scale(traffic)
        self._lose_consul(traffic)
        traffic.stop()
        total = sum(traffic.answered.values())
        self._stage.say(f"{total} clients, {len(traffic.failed)} failed.")
        if traffic.failed:
            raise DemoError(f"clients failed: {traffic.failed[:5]}")

    def _scale(self, traffic: Traffic) -> None:
        begin = time.monotonic()
        self._scale_up(8)
        wait(lambda: len(traffic.answered) == len(self._backends), "traffic to the new ones")
        self._stage.say(
            f"Four more registered: all eight answer clients after {time.monotonic() - begin:.2f} s."
        )
        self._request("PUT", "/v1/agent/service/maintenance/app-8?enable=true")
        wait(lambda: self._served().get("demo/app-8") == "drain", "maintenance")
        self._stage.say("app-8 is in maintenance: it drains.")
        for name in ("app-7", "app-8"):
            self._request("PUT", f"/v1/agent/service/deregister/{name}")
            del self._backends[name]
        wait(lambda: len(self._served()) == len(self._backends), "two fewer")
        self._stage.say("app-7 and app-8 deregistered: gone.")

    def _lose_consul(self, traffic: Traffic) -> None:
        if self._consul is None:
            return
        self._consul.kill()
        self._consul.wait()
        wait(lambda: self._source()["state"] == "stale", "the loss to be noticed")
        self._stage.say(f"Consul killed. Status says: {self._source()['last_error']}")
        self._expect_progress(traffic)
        self._start_consul()
        wait(lambda: self._source()["state"] == "held", "the empty catalogue to be held")
        held = self._source()["held"]
        self._stage.say(f"Consul is back and knows nothing: {held['count']} instances held ({held['why']}).")
        self._expect_progress(traffic)
        for name, port in self._backends.items():
            self._register(name, port)
        wait(lambda: self._source()["state"] == "ok", "Consul to be believed again")
        self._stage.say("All registered again: Consul is believed, and nothing has ever changed.")
        self._expect_progress(traffic)

    def _expect_progress(self, traffic: Traffic) -> None:
        before = sum(traffic.answered.values())
        wait(lambda: sum(traffic.answered.values()) > before + 100, "a hundred clients more")
        if len(self._served()) != len(self._backends):
            raise DemoError(f"backends were taken away: {sorted(self._served())} are left")

    def _start_consul(self) -> None:
        http_port, server, serf = self._ports[1:]
        ports = {"http": http_port, "server": server, "serf_lan": serf, "serf_wan": -1, "dns": -1, "grpc": -1}
        settings = self._directory / "consul.json"
        settings.write_text(json.dumps({"node_name": "demo", "ports": ports, "disable_update_check": True}))
        bind = ("-bind", HOST, "-client", HOST)
        argv = (find_consul(), "agent", "-dev", *bind, "-config-file", str(settings))
        self._consul = self._spawn("consul", *argv)
        wait(lambda: self._request("GET", "/v1/status/leader") not in (None, ""), "Consul")

    def _start_balancer(self) -> None:
        file = self._directory / "lb.yaml"
        service = {"listen": f"{HOST}:{self._ports[0]}", "discover": {"consul": {"service": "app"}}}
        consul = {"address": f"http://{HOST}:{self._ports[1]}"}
        file.write_text(json.dumps({"version": 1, "services": {"web": service}, "consul": consul}))
        beside = Path(sys.executable).parent
        self._spawn("dataplane", str(beside / "lb-dataplane"), "--name", "demo")
        plane = self._directory / "run/dataplane-demo.sock"
        wait(lambda: call_unix(plane, "/livez") is not None, "the data plane")
        self._spawn("control", str(beside / "lb-control"), "run", str(file))
        wait(lambda: bool(self._served()), "the first snapshot")

    def _scale_up(self, count: int) -> None:
        """Start backends and register them until there are so many."""
        for number in range(len(self._backends) + 1, count + 1):
            name, port = f"app-{number}", _free_ports(1)[0]
            self._spawn(name, sys.executable, str(ROOT / "tools/test_backend.py"), str(port), "--name", name)
            wait(lambda port=port: _accepts(port), name)  # type: ignore[misc]  # mypy sees no type in defaults
            self._backends[name] = port
            self._register(name, port)

    def _register(self, name: str, port: int) -> None:
        check = {"TCP": f"{HOST}:{port}", "Interval": "1s", "Status": "passing"}
        service = {"ID": name, "Name": "app", "Address": HOST, "Port": port, "Check": check}
        self._request("PUT", "/v1/agent/service/register", service)

    def _served(self) -> dict[str, str]:
        """Return the backends that the data plane runs: state by id."""
        snapshot = call_unix(self._directory / "run/dataplane-demo.sock", "/v1/snapshot") or {}
        service = (snapshot.get("services") or {}).get("web") or {"backends": []}
        return {backend["id"]: backend["state"] for backend in service["backends"]}

    def _source(self) -> dict[str, Any]:
        """Return what the control plane's status says of Consul."""
        status = call_unix(self._directory / "run/control.sock", "/v1/status") or {"sources": []}
        rows = [row for row in status["sources"] if row["name"] == "consul:app"]
        return rows[0] if rows else {"state": "unknown"}

    def _request(self, method: str, path: str, body: object = None) -> Any:
        connection = http.client.HTTPConnection(HOST, self._ports[1], timeout=CLIENT_S)
        return answer(connection, method, path, body)

    def _spawn(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        return self._stage.spawn(name, *argv, environment=self._environment)


def _free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [held.getsockname()[1] for held in sockets]


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=CLIENT_S).close()
    except OSError:
        return False
    return True


def main() -> None:
    """Run the demonstration; exit with 1 and the reason if anything did not go as it should."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with folder() as directory, contextlib.ExitStack() as stack:
            Demo(directory, stack).run()
    except DemoError as error:
        sys.exit(f"demo-consul: {error}")
    except KeyboardInterrupt:
        sys.exit(1)


if __name__ == "__main__":
    main()
