"""The study of a network: client, proxy and backend in namespaces of their own, with pairs of veth between them."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tools.bench import parse
from tools.bench.build import compiled, installed
from tools.bench.child import Child, Failed, within
from tools.bench.contenders import launch, work_directory
from tools.bench.loads import CONNECTIONS, MESSAGE_BYTES, OPERATION_METRICS, WARM_UP_S
from tools.bench.study import Metric, Sampler, costed, echo_load, output_of

_PREFIX: Final = "lb-bench-"
_FOLDER: Final = Path("/run/netns")
_PROXY_TO_CLIENT: Final = "10.78.0.2"
_ENDS: Final = (("client", "10.78.0.1", _PROXY_TO_CLIENT), ("backend", "10.78.1.1", "10.78.1.2"))
"""Who is at the other end of one of the proxy's wires, with its address and the proxy's."""
_BACKENDS: Final = ("10.78.1.1:7000", "10.78.1.1:7001")
_FIRST_PORT: Final = 7100
"""The namespaces are the run's own: no other program can have these ports."""
_SETTINGS: Final = (("ipv4/ip_local_port_range", "10000 65535"), ("ipv4/tcp_tw_reuse", "1"))
"""Loopback reuses ports in TIME_WAIT after a second without being asked; here the same has to be said."""


class Namespaces:
    """Named network namespaces (`ip netns`), which nobody else has.

    Args:
        stack: Removes them, with all that is in them.

    Raises:
        Failed: We are not root, or a program is missing.
    """

    def __init__(self, stack: ExitStack) -> None:
        if os.geteuid() != 0:
            raise Failed("network namespaces need root")
        self._ip = installed("ip")
        installed("nsenter")
        self._stack = stack
        _remove_left_over(self._ip)

    def add(self, name: str) -> str:
        """Make one and return its full name."""
        full = f"{_PREFIX}{os.getpid()}-{name}"
        _run(self._ip, "netns", "add", full)
        self._stack.callback(_run, self._ip, "netns", "delete", full)
        _run(self._ip, "-n", full, "link", "set", "lo", "up")
        for setting, value in _SETTINGS:
            self.write(full, f"/proc/sys/net/{setting}", value)
        return full

    def wire(self, one: tuple[str, str], other: tuple[str, str], device: str) -> None:
        """Connect two, each a full name and an address, by a pair of veth of that name.

        Packets are steered over all processors (RPS), as a network card with several queues does it. Without that the
        kernel makes the whole handshake within `connect()`, as on loopback; with it three of four are under way when
        `connect()` returns.
        """
        every = f"{(1 << (os.cpu_count() or 1)) - 1:x}"
        _run(
            self._ip,
            "link",
            "add",
            device,
            "netns",
            one[0],
            "type",
            "veth",
            "peer",
            "name",
            device,
            "netns",
            other[0],
        )
        for full, address in (one, other):
            _run(self._ip, "-n", full, "address", "add", f"{address}/24", "dev", device)
            _run(self._ip, "-n", full, "link", "set", device, "up")
            self.write(full, f"/sys/class/net/{device}/queues/rx-0/rps_cpus", every)

    def write(self, full: str, path: str, text: str) -> None:
        """Write into a file of /proc/sys/net or /sys/class/net as one sees them there."""
        _run(self._ip, "netns", "exec", full, "sh", "-c", f"echo {text} >{path}")


def _remove_left_over(ip: str) -> None:
    """Remove what runs have left that were killed."""
    for path in _FOLDER.glob(f"{_PREFIX}*"):
        pid = path.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            _run(ip, "netns", "delete", path.name)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: {done.stderr.strip()[-300:]}")


@dataclass
class VethStudy:
    """Connect, send, receive, close, where each packet has to cross a device."""

    contenders: Sequence[str]
    thorough: bool = True
    fresh: bool = False
    name: str = "veth"
    title: str = "Connect, send, receive, close, over veth"
    note: str = (
        f"`load.c`, closed loop, {CONNECTIONS} clients at once; client, proxy and backends are in three network namespaces,"
        " with pairs of veth between them. Packets are steered over all processors (RPS), so that three of four handshakes"
        " are still under way when `connect()` returns, and have to be waited for; on loopback none is."
    )
    metrics: Sequence[Metric] = OPERATION_METRICS

    def open(self, stack: ExitStack) -> None:
        """Make the namespaces, and start the backends in theirs."""
        spaces = Namespaces(stack)
        self._proxy = spaces.add("proxy")
        others = {}
        for name, address, proxy_address in _ENDS:
            others[name] = spaces.add(name)
            spaces.wire((others[name], address), (self._proxy, proxy_address), name)
        self._client = others["client"]
        backend = Child(within(others["backend"], [compiled("echo"), *_BACKENDS]), work_directory(stack))
        stack.enter_context(backend)
        for address in _BACKENDS:
            backend.wait_listening(int(address.rpartition(":")[2]))
        self._ports = itertools.count(_FIRST_PORT)

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Start a contender between them."""
        listen = f"{_PROXY_TO_CLIENT}:{next(self._ports)}"
        running = launch(name, _BACKENDS, stack, listen=listen, namespace=self._proxy)
        argv = echo_load("connect", listen, CONNECTIONS, MESSAGE_BYTES)

        def sample(seconds: float) -> dict[str, float]:
            return parse.load(output_of(within(self._client, argv(seconds, WARM_UP_S)), seconds))

        return costed(sample, running.child)
