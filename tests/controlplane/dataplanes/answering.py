"""Whatever may stand behind a socket: it answers with these bytes, and both clients are asked what they make of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"pid": 7}'


@contextmanager
def server(path: Path, *parts: bytes, hang: bool = False) -> Iterator[str]:
    """Answer one connection with these bytes, then close it, or keep it open."""
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while not done.is_set():
                connection, _ = listener.accept()
                with connection:
                    if done.is_set():
                        return
                    connection.recv(65536)
                    for part in parts:
                        connection.sendall(part)
                    if hang:
                        done.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(path)
        finally:
            done.set()
            with socket.socket(socket.AF_UNIX) as wake:
                wake.connect(str(path))
            thread.join()
