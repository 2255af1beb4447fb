"""The process that workers are forked from: it has loaded what they run, so they begin at once and share its memory.

Theory of operation:

1. It has one thread, no event loop, and no socket but its supervisor's. So a fork of it is whole, as one of a supervisor,
   which has all these, would not be.
2. Its heap is frozen before the first fork, so that no collection in a worker writes to pages that are shared.
3. A message with a descriptor asks for a worker whose channel that is, and the answer is its pid. One with a pid asks how
   that worker ended. Until then it stays as a zombie, so that its pid can be nobody else's.
4. It ends with its supervisor's socket. SIGTERM, which a service manager sends to all processes of a service, ends it as little as
   the signals that workers do not end by either: it knows how they end. They serve on without it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from typing import Final

import uvloop

from dataplane.worker.process import Worker

MESSAGE_BYTES: Final = 32
"""More than a number has digits."""


def main() -> None:
    """Serve the supervisor whose socket has the descriptor that is the only argument; in a worker, work."""
    with socket.socket(fileno=int(sys.argv[1])) as orders:
        channel = serve(orders)
    if channel is not None:
        uvloop.run(_work(channel))


def serve(orders: socket.socket) -> socket.socket | None:
    """Fork workers until the supervisor is gone, and return None then; return in each worker, with its channel."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    while True:
        order, fds, _, _ = socket.recv_fds(orders, MESSAGE_BYTES, 1)
        if not order:
            return None
        if not fds:
            _, status = os.waitpid(int(order), 0)
            _answer(orders, os.waitstatus_to_exitcode(status))
            continue
        channel = socket.socket(fileno=fds[0])
        pid = _fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return channel
        channel.close()
        _answer(orders, pid)


def _fork() -> int:
    """Return what fork(2) does, or the number of its error, negative."""
    try:
        return os.fork()
    except OSError as error:
        return -(error.errno or 1)


def _answer(orders: socket.socket, number: int) -> None:
    with contextlib.suppress(ConnectionError):  # the supervisor is gone
        orders.send(str(number).encode())


async def _work(channel: socket.socket) -> None:
    await Worker(channel).run()
