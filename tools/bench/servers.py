"""The servers behind the contenders."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from tools.bench.build import compiled, installed, postgres
from tools.bench.child import Child, Failed
from tools.bench.contenders import free_port, render, work_directory

BACKENDS: Final = 2
"""Of the loads that may be spread."""
_PGBENCH_SCALE: Final = 1
_RECOVERY_S: Final = 10.0


class Server(Protocol):
    """Starts what a load is answered by."""

    def __call__(self, stack: ExitStack) -> list[str]:
        """Start it, to be ended by `stack`, and return the `host:port` of each backend."""


def echo_servers(stack: ExitStack) -> list[str]:
    """Start the raw echo server on two addresses."""
    addresses = [f"127.0.0.1:{free_port(stack)}" for _ in range(BACKENDS)]
    return _start([compiled("echo"), *addresses], addresses, stack)


def _http(stack: ExitStack) -> list[str]:
    addresses = [f"127.0.0.1:{free_port(stack)}" for _ in range(BACKENDS)]
    directory = work_directory(stack)
    config = directory / "nginx.conf"
    line = "        listen $host:$port backlog=4096;"
    config.write_text(render("nginx-http.conf", line, addresses, {"directory": str(directory)}))
    argv = [installed("nginx"), "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(config)]
    return _start(argv, addresses, stack, directory)


def _iperf(stack: ExitStack) -> list[str]:
    address = f"127.0.0.1:{free_port(stack)}"
    port = address.rpartition(":")[2]
    return _start([installed("iperf3"), "-s", "-B", "127.0.0.1", "-p", port], [address], stack)


def _stream(stack: ExitStack) -> list[str]:
    address = f"127.0.0.1:{free_port(stack)}"
    return _start([compiled("stream"), address], [address], stack)


def _redis(stack: ExitStack) -> list[str]:
    address = f"127.0.0.1:{free_port(stack)}"
    port = address.rpartition(":")[2]
    argv = [
        installed("redis-server"),
        "--port",
        port,
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    return _start(argv, [address], stack)


def _start(
    argv: list[str], addresses: list[str], stack: ExitStack, directory: Path | None = None
) -> list[str]:
    child = Child(argv, directory or work_directory(stack))
    stack.enter_context(child)
    for address in addresses:
        child.wait_listening(int(address.rpartition(":")[2]))
    return addresses


def _postgres(stack: ExitStack) -> list[str]:
    """Start a new PostgreSQL cluster with pgbench's tables; as another user if we are root, whom it refuses."""
    initdb, server, pgbench = postgres("initdb"), postgres("postgres"), installed("pgbench")
    user = None
    directory = work_directory(stack)
    if os.geteuid() == 0:
        try:
            account = pwd.getpwnam("postgres")
        except KeyError as error:
            raise Failed("PostgreSQL refuses root, and there is no user postgres") from error
        user = account.pw_name
        shutil.chown(directory, user)
    data = directory / "data"
    _run([initdb, "-D", str(data), "-A", "trust", "-U", "bench", "--no-sync"], directory, user)
    port = free_port(stack)
    child = Child(
        [
            server, "-D", str(data), "-p", str(port), "-c", "listen_addresses=127.0.0.1",
            "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=200",
        ],
        directory,
        user=user,
    )  # fmt: skip
    stack.enter_context(child)
    child.wait_listening(port)
    argv = [pgbench, "-i", "-q", "-s", str(_PGBENCH_SCALE), "-h", "127.0.0.1", "-p", str(port), "-U", "bench"]
    _wait_accepting([installed("pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"])
    _run([*argv, "postgres"], directory, user)
    return [f"127.0.0.1:{port}"]


def _wait_accepting(question: list[str]) -> None:
    """Wait until PostgreSQL has recovered; it listens before."""
    end = time.monotonic() + _RECOVERY_S
    while subprocess.run(question, check=False).returncode != 0:
        if time.monotonic() > end:
            raise Failed("PostgreSQL does not become ready")
        time.sleep(0.05)


def _run(argv: list[str], directory: Path, user: str | None) -> None:
    done = subprocess.run(
        argv, cwd=directory, user=user, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        raise Failed(f"{Path(argv[0]).name}: {done.stderr[-300:]}")


SERVERS: Final[Mapping[str, Server]] = MappingProxyType(
    {
        "echo": echo_servers,
        "http": _http,
        "iperf": _iperf,
        "stream": _stream,
        "redis": _redis,
        "postgres": _postgres,
    }
)
