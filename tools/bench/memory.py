"""The study of what an idle connection costs in memory."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tools.bench.certificates import make_certificates
from tools.bench.child import Failed
from tools.bench.contenders import NAME, launch, tls_name
from tools.bench.servers import echo_servers
from tools.bench.study import Metric, Sampler

_BEFORE: Final = 20
"""Connections that have come and gone before the first look at the memory: code and buffers that all share."""
_SETTLE_S: Final = 0.3
_ANSWER_S: Final = 10.0
_PROBE_S: Final = 0.5


@dataclass
class MemoryStudy:
    """A fresh process each turn, then connections that have each carried one message, and rest."""

    contenders: Sequence[str]
    connections: int
    key: str = ""
    """Of the certificate with which they end TLS, one of KEYS; empty: they do not."""
    thorough: bool = True
    fresh: bool = True
    name: str = "memory"
    title: str = "Memory of an idle connection"
    note: str = (
        "The growth of the processes' memory (PSS) per connection that has carried one message and rests. The kernel's"
        " part (two sockets) is the same for all and not in it."
    )
    metrics: Sequence[Metric] = (
        Metric("per_connection", "memory per connection", "KiB", "less"),
        Metric("before", "memory before", "MiB", "less", 1 / 1024),
    )

    def open(self, stack: ExitStack) -> None:
        """Start the backends."""
        self._backends = echo_servers(stack)
        self._context: ssl.SSLContext | None = None
        if self.key:
            make_certificates()
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._context.check_hostname = False
            self._context.verify_mode = ssl.CERT_NONE

    def prepare(self, name: str, stack: ExitStack) -> Sampler:
        """Look whether it starts; each turn starts it anew."""
        del stack
        with ExitStack() as own:
            launch(self._called(name), self._backends, own)
        return lambda _seconds: self._sample(self._called(name))

    def _called(self, name: str) -> str:
        return tls_name(name, self.key) if self.key else name

    def _sample(self, name: str) -> dict[str, float]:
        with ExitStack() as own:
            running = launch(name, self._backends, own)
            if running.child is None:
                raise Failed("no process to look at")
            self._wait_answers(running.address)
            with ExitStack() as first:
                for _ in range(_BEFORE):
                    self._open(running.address, first)
            time.sleep(_SETTLE_S)
            before = running.child.memory_kib()
            for _ in range(self.connections):
                self._open(running.address, own)
            time.sleep(_SETTLE_S)
            growth = running.child.memory_kib() - before
            return {"per_connection": growth / self.connections, "before": before}

    def _wait_answers(self, address: str) -> None:
        """Wait until it relays; Traefik listens before it knows where to."""
        end = time.monotonic() + _ANSWER_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError, Failed), ExitStack() as own:
                self._open(address, own, _PROBE_S)
                return
            time.sleep(_PROBE_S / 10)
        raise Failed("it does not relay")

    def _open(self, address: str, stack: ExitStack, answer_s: float = _ANSWER_S) -> None:
        host, _, port = address.rpartition(":")
        client = stack.enter_context(socket.create_connection((host, int(port)), timeout=answer_s))
        if self._context is not None:
            # or the message waits for the acknowledgement of the handshake's end, 40 ms for each connection
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client = stack.enter_context(self._context.wrap_socket(client, server_hostname=NAME))
        client.sendall(b"ping")
        if not client.recv(16):
            raise Failed("a connection was closed")
