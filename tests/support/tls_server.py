"""A TLS server for tests: blocking sockets of `ssl`, a thread for each connection, lines answered with its name."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Self


class TlsLineServer:
    """Answers each line with `name:line`, over TLS.

    Args:
        name: Says who answers.
        context: Has its certificate.
        greeting: Sent first, if anything.
    """

    def __init__(self, name: str, context: ssl.SSLContext, *, greeting: bytes = b"") -> None:
        self.name = name
        self.handshakes = 0
        """Those that succeeded."""
        self.resumed = 0
        self.alpn: list[str | None] = []
        """What was agreed on, of each."""
        self._context = context
        self._greeting = greeting
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        """Where it listens."""
        return "{}:{}".format(*self._listener.getsockname())

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                with self._lock:
                    self._open.add(sock)
                thread = threading.Thread(target=self._serve, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._context.wrap_socket(sock, server_side=True) as tls:
                with self._lock:
                    self.handshakes += 1
                    self.resumed += bool(tls.session_reused)
                    self.alpn.append(tls.selected_alpn_protocol())
                    self._open.discard(sock)
                    self._open.add(tls)
                tls.sendall(self._greeting)
                with tls.makefile("rb") as lines:
                    for line in lines:
                        tls.sendall(self.name.encode() + b":" + line)
                with contextlib.suppress(OSError):
                    tls.unwrap()
        except (OSError, ValueError):
            pass  # the other side has refused, or the test is over
        finally:
            sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
