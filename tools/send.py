#!/usr/bin/env python3
"""Send standard input to a port, print everything that comes back, and tell by the exit status if it went well.

The sending side is closed at the end of the input, and the answer is read up to its end: `echo a | send.py
127.0.0.1 4000` returns when the backend has closed. Nothing is waited for in vain while the input goes on: who types
may take any time. A peer that closes without an answer is a failure. Needs nothing but Python 3.11.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator

INPUT_S = 1.0
"""How long input may take that has not come yet when the peer has closed."""


def main() -> None:
    """Make `--count` connections, one after the other; exit with 1 at the first that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "host", metavar="HOST", help="a name, an address, or unix:/path (PORT is then left out)"
    )
    parser.add_argument("port", metavar="PORT", type=int, nargs="?")
    parser.add_argument(
        "--count", metavar="N", type=int, default=1, help="send the input N times, each on its own"
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="to connect, and for each part of the answer once the input has ended (default %(default)s)",
    )
    options = parser.parse_args()
    if options.port is None and not options.host.startswith("unix:"):
        parser.error("PORT is missing")
    try:
        if options.count == 1:
            exchange(connect(options.host, options.port, options.timeout), None)
        else:
            data = sys.stdin.buffer.read()
            for _ in range(options.count):
                exchange(connect(options.host, options.port, options.timeout), data)
    except KeyboardInterrupt:
        sys.exit(130)
    except TimeoutError:
        sys.exit(f"send.py: no answer within {options.timeout:g} s")
    except OSError as error:
        sys.exit(f"send.py: {error}")


def connect(host: str, port: int | None, timeout_s: float) -> socket.socket:
    """Connect to a port, or to a Unix socket."""
    if host.startswith("unix:"):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout_s)
        sock.connect(host.removeprefix("unix:"))
        return sock
    return socket.create_connection((host, port), timeout_s)


def exchange(sock: socket.socket, data: bytes | None) -> None:
    """Send, end, and print what comes.

    Args:
        sock: Connected; it is closed. Its timeout counts from the end of the input.
        data: What to send; None for standard input, as it comes.

    Raises:
        ConnectionError: The peer has closed without an answer, or reset the connection.
        TimeoutError: The peer is silent.
    """
    with sock:
        sender = Sender(sock, data)
        sender.start()
        answered = False
        while piece := receive(sock, sender):
            answered = True
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        if not answered:
            sender.join(INPUT_S)
            if sender.asked or sender.is_alive():
                msg = "closed without an answer"
                raise ConnectionError(msg)


def receive(sock: socket.socket, sender: Sender) -> bytes:
    """Wait for a part of the answer: for as long as the input goes on, and then for as long as the timeout says."""
    while True:
        ended = not sender.is_alive()
        try:
            return sock.recv(65536)
        except TimeoutError:
            if ended:
                raise


class Sender(threading.Thread):
    """Sends everything; if the peer is gone, who reads its answer will learn why."""

    def __init__(self, sock: socket.socket, data: bytes | None) -> None:
        super().__init__(daemon=True)
        self._sock = sock
        self._data = data
        self.asked = False
        """Whether there was anything to send."""

    def run(self) -> None:
        """Send, and say that this is all."""
        with contextlib.suppress(OSError):
            for piece in self._pieces():
                self.asked = True
                self._sock.sendall(piece)
            self._sock.shutdown(socket.SHUT_WR)

    def _pieces(self) -> Iterator[bytes]:
        if self._data is not None:
            if self._data:
                yield self._data
            return
        while piece := os.read(sys.stdin.fileno(), 65536):
            yield piece


if __name__ == "__main__":
    main()
