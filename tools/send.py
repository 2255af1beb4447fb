#!/usr/bin/env python3
"""Send standard input to a port, print everything that comes back, and tell by the exit status if it went well.

The sending side is closed at the end of the input, and the answer is read up to its end: `echo a | send.py
127.0.0.1 4000` returns when the backend has closed. Needs nothing but Python 3.11.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import threading

__all__ = ["main"]


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
        "--timeout", metavar="SECONDS", type=float, default=10.0, help="of each step (default %(default)s)"
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
        sock: Connected; it is closed.
        data: What to send; None for standard input, as it comes.
    """
    with sock:
        sender = threading.Thread(target=send, args=(sock, data), daemon=True)
        sender.start()
        while piece := sock.recv(65536):
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()


def send(sock: socket.socket, data: bytes | None) -> None:
    """Send everything; if the peer is gone, who reads its answer will learn why."""
    with contextlib.suppress(OSError):
        if data is not None:
            sock.sendall(data)
        else:
            while piece := os.read(sys.stdin.fileno(), 65536):
                sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
