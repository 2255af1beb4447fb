"""The study of discovery: from a registration in Consul to the first client at the new backend."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from tools.bench.build import ROOT, control_plane
from tools.bench.child import Child, Failed
from tools.bench.contenders import Running, free_port, launch, work_directory
from tools.bench.control import Api
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler

_CONSUL: Final = ROOT / ".tools" / "consul"
_INSTALL_S: Final = 120.0
_WAIT_S: Final = 15.0
_REGISTRATIONS: Final = 3
"""In a turn."""
_HOST: Final = "127.0.0.1"


@dataclass
class RegistrationStudy:
    """A real Consul, a real `lb-control run`, a real data plane, and a backend that was not there before."""

    contenders: Sequence[str]
    thorough: bool = True
    fresh: bool = False
    name: str = "registration"
    title: str = "From a registration in Consul to the first client"
    note: str = (
        "A Consul agent, `lb-control run` and a data plane, which serves one instance. Another is registered, with a"
        " check that passes, while one client after the other connects; the time ends when the first reaches the new one."
        " Then it is deregistered; a backend that goes may wait 100 ms for others that go with it, one that comes never"
        f" does. {_REGISTRATIONS} registrations in each turn."
    )
    metrics: Sequence[Metric] = (
        Metric("first_ms", "to the first client", "ms", "less"),
        Metric("slowest_ms", "slowest of a turn", "ms", "less"),
        Metric("consul_ms", "Consul's own answer", "ms", "less"),
        Metric("gone_ms", "from deregistration to gone", "ms", "less"),
    )

    def open(self, stack: ExitStack) -> None:
        """Start Consul."""
        done = subprocess.run(
            [ROOT / "tools" / "get-consul", _CONSUL],
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
        if done.returncode != 0:
            raise Failed(f"no Consul: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
        self._consul = _start_consul(stack)
        self._count = 0

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start the data plane and the daemon before it, and wait for the first instance."""
        (first,) = echo_servers(stack)[:1]
        self._register("first", int(first.rpartition(":")[2]))
        running = launch(name, [first], stack)
        _start_daemon(running, self._consul, stack)
        self._api = Api(running.directory, stack)
        _wait(lambda: self._serves("first"), "the first instance")
        return lambda _seconds: self._sample(running, stack)

    def _sample(self, running: Running, stack: ExitStack) -> dict[str, float]:
        times = [self._once(running.address, stack) for _ in range(_REGISTRATIONS)]
        first, consul, gone = zip(*times, strict=True)
        return {
            "first_ms": statistics.median(first) * 1e3,
            "slowest_ms": max(first) * 1e3,
            "consul_ms": statistics.median(consul) * 1e3,
            "gone_ms": statistics.median(gone) * 1e3,
        }

    def _once(self, address: str, stack: ExitStack) -> tuple[float, float, float]:
        """Return seconds from the registration to the first client, to Consul's answer, and until it was gone."""
        self._count += 1
        identity = f"new-{self._count}"
        server = stack.enter_context(socket.create_server((_HOST, 0)))
        server.setblocking(False)
        start = time.monotonic()
        self._register(identity, server.getsockname()[1])
        answered = time.monotonic()
        _connect_until(address, server)
        reached = time.monotonic()
        self._request("PUT", f"/v1/agent/service/deregister/{identity}")
        removing = time.monotonic()
        _wait(lambda: not self._serves(identity), "its end")
        return reached - start, answered - start, time.monotonic() - removing

    def _register(self, identity: str, port: int) -> None:
        check = {"TTL": "10m", "Status": "passing"}
        self._request(
            "PUT",
            "/v1/agent/service/register",
            {"ID": identity, "Name": "app", "Address": _HOST, "Port": port, "Check": check},
        )

    def _serves(self, identity: str) -> bool:
        service = json.loads(self._api.get("/v1/snapshot"))["services"].get("bench", {"backends": []})
        return any(backend["id"].endswith(f"/{identity}") for backend in service["backends"])

    def _request(self, method: str, path: str, body: object = None) -> Any:
        return _call(self._consul, method, path, body)


def _connect_until(address: str, server: socket.socket) -> None:
    """Connect, one client after the other, until one arrives at `server`."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        with socket.create_connection((host, int(port)), timeout=_WAIT_S) as client:
            client.sendall(b"ping")
            # the other instance echoes at once; the new one is only looked at
            client.settimeout(0.005)
            with contextlib.suppress(TimeoutError):
                client.recv(16)
            with contextlib.suppress(BlockingIOError):
                server.accept()[0].close()
                return
    raise Failed("nobody reached the new backend")


def _start_consul(stack: ExitStack) -> int:
    """Start an agent for development and return the port of its API."""
    directory = work_directory(stack)
    port, rpc, gossip = (free_port(stack) for _ in range(3))
    ports = {"http": port, "server": rpc, "serf_lan": gossip, "serf_wan": -1, "dns": -1, "grpc": -1}
    settings = {"node_name": "bench", "ports": ports, "disable_update_check": True, "log_level": "err"}
    (directory / "consul.json").write_text(json.dumps(settings))
    program = str(_CONSUL / "usr" / "bin" / "consul")
    argv = [program, "agent", "-dev", "-bind", _HOST, "-client", _HOST, "-config-file", "consul.json"]
    child = stack.enter_context(Child(argv, directory))
    child.wait_listening(port)

    def leads() -> bool:
        try:
            return _call(port, "GET", "/v1/status/leader") not in {None, ""}
        except (OSError, Failed, http.client.HTTPException):
            return False

    _wait(leads, "Consul's leader")
    return port


def _start_daemon(running: Running, consul: int, stack: ExitStack) -> None:
    """Start `lb-control run` for a data plane that runs."""
    service = {
        "listen": running.address,
        "pool": {"mode": "off"},
        "health": {"active": {"type": "none"}},
        "discover": {"consul": {"service": "app"}},
    }
    desired = {
        "version": 1,
        "services": {"bench": service},
        "consul": {"address": f"http://{_HOST}:{consul}"},
        "guard": {"max_shrink": "100%"},
    }
    file = running.directory / "lb.json"
    file.write_text(json.dumps(desired))
    environment = {
        "LB_RUNTIME_DIR": str(running.directory),
        "LB_STATE_DIR": str(running.directory / "control"),
    }
    stack.enter_context(
        Child([control_plane(), "run", str(file)], running.directory, environment=environment)
    )


def _call(port: int, method: str, path: str, body: object = None) -> Any:
    connection = http.client.HTTPConnection(_HOST, port, timeout=_WAIT_S)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise Failed(f"Consul: {method} {path}: {response.status} {raw.decode()[:200]}")
    return json.loads(raw) if raw.strip() else None


def _wait(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _WAIT_S
    while not holds():
        if time.monotonic() > end:
            raise Failed(f"waited {_WAIT_S:g} s for {what}")
        time.sleep(0.01)
