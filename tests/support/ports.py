"""Ports that a test can name before somebody listens on them."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self


class HeldPort:
    """A TCP port that is this test's own until `release`, while nobody listens on it.

    A socket is bound to it and never listens. The kernel then gives the port to nobody who asks for any
    port, neither for `bind(0)` nor for the near end of `connect`; connecting to it is refused; and a program
    that binds it by number with SO_REUSEADDR (every server does) may listen on it, leave, and come back.
    So there is no moment in which another test, or another process, could take it.

    Args:
        host: The IPv4 or IPv6 address to hold it on; a listener on the wildcard address is no conflict.
        port: 0 for any.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        # with both options, a listener may set either of them or both
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise
        self.host = host
        self.port: int = self._socket.getsockname()[1]

    @property
    def address(self) -> str:
        """`host:port`, with brackets around IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def release(self) -> None:
        """Give the port back; the second time does nothing."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
