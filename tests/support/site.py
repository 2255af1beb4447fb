"""A data plane with a listener, a backend and a client that stays, and others of its name that come after it."""

from __future__ import annotations

import errno
import socket
from contextlib import ExitStack
from typing import Any

from tests.support.backends import LineServer
from tests.support.clients import dial, say
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort


class Site:
    """One service, whose clients a `LineServer` named "a" serves.

    Args:
        stack: Ends everything.
        arguments: Of the data plane, and of those that come after it unless they have some of their own.
        kind: Of the data plane.
    """

    def __init__(self, stack: ExitStack, *arguments: str, kind: type[DataPlane] = DataPlane) -> None:
        self._stack = stack
        self._arguments = arguments
        self._kind = kind
        self.backend = stack.enter_context(LineServer("a"))
        self.port = stack.enter_context(HeldPort())
        self.plane = stack.enter_context(kind(arguments))
        self.put()
        self.flow = self.client()

    def put(self, **options: Any) -> None:
        """Run the service; a drain waits for long."""
        self.plane.put_snapshot(
            {
                "web": {
                    "listen": self.port.address,
                    "backends": [self.backend.address],
                    "pool": {"mode": "off"},
                    "drain": {"timeout": "5m"},
                    **options,
                }
            }
        )

    def client(self) -> socket.socket:
        """Connect a client, and see that it is served."""
        client = self._stack.enter_context(dial(self.port.address))
        self.ask(client)
        return client

    @staticmethod
    def ask(client: socket.socket) -> None:
        """See that a client is served."""
        assert say(client) == "a"

    def another(self, *arguments: str) -> DataPlane:
        """Return another data plane of the same name and directories, not started yet."""
        plane = self._kind(arguments or self._arguments, runtime_dir=self.plane.runtime_dir)
        plane.state_dir = self.plane.state_dir
        plane._environment["LB_STATE_DIR"] = str(self.plane.state_dir)
        self._stack.callback(plane.close)
        return plane

    def take_over(self) -> DataPlane:
        """Start a successor with the flow left behind; return it."""
        return self.another("--workers", "2", "--takeover").start()

    def refused(self) -> bool:
        """Tell whether a new client is refused; one that is neither refused nor let in fails the test."""
        with socket.socket() as client:
            client.settimeout(5)
            return client.connect_ex((self.port.host, self.port.port)) == errno.ECONNREFUSED
