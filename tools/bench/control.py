"""Clients of the ways to change a running proxy: HAProxy's runtime socket and our API, both on Unix sockets."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

from tools.bench.child import Failed

_ANSWER_S: Final = 30.0
_PROMPT: Final = b"\n> "
_AT_ONCE: Final = 100
"""Commands in one line of HAProxy's: its buffer has 16 KiB."""
_OK: Final = 200


class Control(Protocol):
    """Changes weights of the backends `b0`, `b1`, ... of the service `bench`."""

    def set_weight(self, index: int, weight: int) -> None:
        """Change one, and wait until it is done."""

    def prepare_all(self, weights: Mapping[int, int]) -> Callable[[], object]:
        """Return what changes many at once, and waits until it is done; what is sent is made now."""

    def prepare_patch(self, weights: Mapping[int, int]) -> Callable[[], object]:
        """Return what changes these weights and says nothing of the others."""

    def prepare_services(self, further: int, weight: int) -> Callable[[], object]:
        """Return what changes `b0` of `bench` and of so many further services, `idle0`, `idle1`, ..."""


class _Line:
    def __init__(self, path: Path, stack: ExitStack) -> None:
        end = time.monotonic() + _ANSWER_S
        while True:
            self._socket = stack.enter_context(socket.socket(socket.AF_UNIX))
            self._socket.settimeout(_ANSWER_S)
            try:
                self._socket.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError) as error:
                self._socket.close()
                if time.monotonic() > end:
                    raise Failed(f"no control socket: {error}") from error
                time.sleep(0.02)  # a proxy may accept clients before it lets itself be controlled
            else:
                return

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def receive(self) -> bytes:
        data = self._socket.recv(1 << 20)
        if not data:
            raise Failed("the control socket was closed")
        return data


class RuntimeSocket:
    """HAProxy's runtime socket, in its interactive mode: one connection for all commands.

    Args:
        directory: Where the socket is.
        stack: Closes it.
    """

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._line = _Line(directory / "haproxy.sock", stack)
        self._command("prompt")

    def set_weight(self, index: int, weight: int) -> None:
        """Change one."""
        if answer := self._command(f"set weight bench/b{index} {weight}"):
            raise Failed(f"HAProxy: {answer}")

    def prepare_all(self, weights: Mapping[int, int]) -> Callable[[], object]:
        """Return what changes many, as many in a line as fit."""
        commands = [f"set weight bench/b{index} {weight}" for index, weight in weights.items()]
        return lambda: self._batches(commands)

    def prepare_patch(self, weights: Mapping[int, int]) -> Callable[[], object]:
        """Return the same: a line says nothing of whom it does not name."""
        return self.prepare_all(weights)

    def prepare_services(self, further: int, weight: int) -> Callable[[], object]:
        """Return what changes one backend of every service, as many in a line as fit."""
        names = ["bench", *(f"idle{index}" for index in range(further))]
        commands = [f"set weight {name}/b0 {weight}" for name in names]
        return lambda: self._batches(commands)

    def query(self, command: str) -> str:
        """Ask something that changes nothing."""
        return self._command(command)

    def _batches(self, commands: Sequence[str]) -> None:
        for start in range(0, len(commands), _AT_ONCE):
            if answer := self._command(*commands[start : start + _AT_ONCE]):
                raise Failed(f"HAProxy: {answer}")

    def _command(self, *commands: str) -> str:
        self._line.send(f"{';'.join(commands)}\n".encode())
        answer = b""
        while answer.count(_PROMPT) < len(commands):  # one behind each answer
            answer += self._line.receive()
        return answer.replace(_PROMPT, b"").decode().strip()


class Api:
    """Our API, on one connection that stays.

    Args:
        directory: The runtime directory.
        stack: Closes the connection.
    """

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._line = _Line(directory / "dataplane-bench.sock", stack)
        self._snapshot = json.loads(self._call("GET", "/v1/snapshot", b""))

    def set_weight(self, index: int, weight: int) -> None:
        """Change one, by PATCH."""
        self._call("PATCH", f"/v1/services/bench/backends/b{index}", b'{"weight": %d}' % weight)

    def prepare_all(self, weights: Mapping[int, int]) -> Callable[[], object]:
        """Return what changes many, by PUT of the whole snapshot."""
        for backend in self._snapshot["services"]["bench"]["backends"]:
            backend["weight"] = weights.get(int(backend["id"].removeprefix("b")), backend["weight"])
        return self._prepare_push()

    def prepare_backends(self, addresses: Sequence[str]) -> Callable[[], object]:
        """Return what gives `bench` these backends instead of its own, by PUT of the whole snapshot."""
        service = self._snapshot["services"]["bench"]
        like = service["backends"][0]
        service["backends"] = [
            {**like, "id": f"b{index}", "address": address} for index, address in enumerate(addresses)
        ]
        return self._prepare_push()

    def prepare_patch(self, weights: Mapping[int, int]) -> Callable[[], object]:
        """Return what changes these weights, by one PATCH."""
        changes = {f"b{index}": {"weight": weight} for index, weight in weights.items()}
        body = json.dumps({"backends": changes}).encode()
        return lambda: self._call("PATCH", "/v1/services/bench/backends", body)

    def prepare_services(self, further: int, weight: int) -> Callable[[], object]:
        """Return what changes one backend of every service, by PUT of the whole snapshot."""
        for name in ["bench", *(f"idle{index}" for index in range(further))]:
            self._snapshot["services"][name]["backends"][0]["weight"] = weight
        return self._prepare_push()

    def divide(self, ports: Sequence[int]) -> None:
        """Divide the backends among `bench` and further services, which listen on these ports."""
        services = self._snapshot["services"]
        backends, share = services["bench"]["backends"], len(ports) + 1
        for index, port in enumerate(ports, start=1):
            services[f"more{index}"] = {
                **services["bench"],
                "listen": [f"127.0.0.1:{port}"],
                "backends": backends[index::share],
            }
        services["bench"] = {**services["bench"], "backends": backends[::share]}
        self._prepare_push()()

    def get(self, path: str) -> bytes:
        """Return what is at `path`."""
        return self._call("GET", path, b"")

    def _prepare_push(self) -> Callable[[], object]:
        self._snapshot["generation"] += 1
        self._snapshot.pop("hash", None)
        body = json.dumps(self._snapshot).encode()
        return lambda: self._call("PUT", "/v1/snapshot", body)

    def _call(self, method: str, path: str, body: bytes) -> bytes:
        self._line.send(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._line.receive()
        head, _, answer = answer.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(answer) < int(fields["content-length"]):
            answer += self._line.receive()
        if int(status.split()[1]) != _OK:
            raise Failed(f"{method} {path}: {answer.decode()[:300]}")
        return answer


def control_of(name: str, directory: Path, stack: ExitStack) -> Control:
    """Connect to the control socket of a contender that runs in a directory: HAProxy's, or else ours.

    Args:
        name: A key of CONTENDERS.
        directory: Where it runs.
        stack: Closes the connection.
    """
    return (RuntimeSocket if name.startswith("haproxy") else Api)(directory, stack)
