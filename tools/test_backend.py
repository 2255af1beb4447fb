#!/usr/bin/env python3
"""A backend to try the balancer with: says who answered, and misbehaves on request.

Needs nothing but Python 3.11. A message is a line, or what one read brings behind the last newline, so that
`nc`, `echo a | tools/send.py` and a client that sends no newline at all get their answers.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_LONGEST = 107  # the PROXY protocol's text, section 2.1: with CRLF


class Broken(Exception):  # noqa: N818 - not an error of this program
    """The peer broke the rules; its connection is closed."""


def main() -> None:
    """Listen, and serve until a signal."""
    options = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with _listen(options) as listener:
            print(f"listening on {_name_of(listener)}", flush=True)
            _serve(listener, options)
    except KeyboardInterrupt:
        sys.exit(0)
    except OSError as error:
        sys.exit(f"cannot listen: {error}")
    finally:
        if options.unix is not None:
            options.unix.unlink(missing_ok=True)


def _serve(listener: socket.socket, options: argparse.Namespace) -> None:
    """Serve until SIGTERM. Its handler raises nothing: that would come out of whatever is under way, as a thread's start."""
    messages, told = itertools.count(1), []

    def end(number: int, _frame: object) -> None:
        told.append(number)
        listener.shutdown(socket.SHUT_RDWR)

    signal.signal(signal.SIGTERM, end)
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            if told:
                return
            raise
        client = Client(connection, options, messages)
        threading.Thread(target=client.serve, daemon=True).start()


class Client:
    """One client's connection, in its own thread.

    Args:
        connection: Accepted.
        options: The command line.
        messages: Counts the messages of all clients, for `--crash-after`.
    """

    def __init__(
        self, connection: socket.socket, options: argparse.Namespace, messages: Iterator[int]
    ) -> None:
        self._connection = connection
        self._options = options
        self._messages = messages
        self._carried = ""
        self._rest = b""

    def serve(self) -> None:
        """Serve it to its end, whatever the peer does."""
        with self._connection, contextlib.suppress(OSError, Broken):
            if self._options.proxy:
                self._read_proxy_header()
            if self._options.banner is not None:
                self._connection.sendall(self._options.banner.encode() + b"\n")
            if self._options.silent:
                while self._connection.recv(65536):
                    pass
            elif self._options.half_close:
                self._answer(b"".join(self._reads()).rstrip(b"\n"))
            else:
                self._converse()

    def _converse(self) -> None:
        for number, message in enumerate(self._read_messages(), 1):
            if self._options.reset:
                self._reset()
                return
            self._answer(message)
            if number == self._options.close_after:
                return

    def _reads(self) -> Iterator[bytes]:
        if self._rest:
            yield self._rest
        while data := self._connection.recv(65536):
            yield data

    def _read_messages(self) -> Iterator[bytes]:
        for data in self._reads():
            yield from data.splitlines()

    def _answer(self, message: bytes) -> None:
        if self._options.delay:
            time.sleep(self._options.delay)
        self._connection.sendall(self._words(message))
        if next(self._messages) == self._options.crash_after:
            os._exit(1)  # the kernel closes what is open, as after a kill

    def _words(self, message: bytes) -> bytes:
        if self._options.size is not None:
            return b"x" * (self._options.size - 1) + b"\n" if self._options.size else b""
        if message.strip() == b"ping":
            return b"pong\n"
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        who = " ".join(filter(None, [self._options.name, socket.gethostname(), str(os.getpid()), now]))
        return f"{who}{self._carried}: ".encode() + message + b"\n"

    def _reset(self) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    # PROXY protocol, versions 1 and 2: just enough to tell what came.

    def _read_proxy_header(self) -> None:
        data = self._exactly(len(V2_SIGNATURE))
        if data == V2_SIGNATURE:
            self._carried = f" for {self._version_2()}"
            return
        while not data.endswith(b"\r\n"):
            if len(data) >= V1_LONGEST:
                raise Broken
            data += self._exactly(1)
        words = data.decode("ascii", "replace").split()
        if words[:1] != ["PROXY"]:
            raise Broken
        known = len(words) == 6 and words[1] in {"TCP4", "TCP6"}  # noqa: PLR2004 - PROXY TCP4 from to port port
        self._carried = f" for {_join(words[2], int(words[4]))}" if known else " for unknown"

    def _version_2(self) -> str:
        command, family, size = struct.unpack("!BBH", self._exactly(4))
        body = self._exactly(size)
        if command == 0x20:  # noqa: PLR2004 - version 2, LOCAL
            return "local"
        if family == 0x11:  # noqa: PLR2004 - TCP over IPv4
            return _join(socket.inet_ntop(socket.AF_INET, body[:4]), int.from_bytes(body[8:10]))
        if family == 0x21:  # noqa: PLR2004 - TCP over IPv6
            return _join(socket.inet_ntop(socket.AF_INET6, body[:16]), int.from_bytes(body[32:34]))
        return "unknown"

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._connection.recv(size - len(data))
            if not piece:
                raise Broken
            data += piece
        return data


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(options: argparse.Namespace) -> socket.socket:
    if options.unix is not None:
        options.unix.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(options.unix))
        listener.listen(1024)
        return listener
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    return socket.create_server((options.host, options.port), family=family, backlog=1024)


def _name_of(listener: socket.socket) -> str:
    name = listener.getsockname()
    return f"unix:{name}" if isinstance(name, str) else _join(name[0], name[1])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("port", metavar="PORT", type=int, nargs="?", default=0, help="0 (the default) for any; it is printed")
    add("--host", default="127.0.0.1", help="the address to listen on (default %(default)s)")
    add("--unix", metavar="PATH", type=Path, help="listen on a Unix socket instead")
    add("--name", default="", help="stands first in each answer")
    add("--banner", metavar="TEXT", help="send a line to each client at once")
    add("--delay", metavar="SECONDS", type=float, default=0.0, help="wait before each answer")
    add("--size", metavar="BYTES", type=int, help="answer so many bytes instead of words")
    add("--half-close", action="store_true", help="read up to the client's end, answer once, close")
    add("--close-after", metavar="N", type=int, help="close each connection after N answers")
    add("--crash-after", metavar="N", type=int, help="die after N answers in all, connections open")
    add("--reset", action="store_true", help="reset the connection at its first message")
    add("--silent", action="store_true", help="accept and read, never answer")
    add("--proxy", action="store_true", help="expect a PROXY header, v1 or v2, and tell the address in it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
