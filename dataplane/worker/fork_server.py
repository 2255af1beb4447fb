"""The process that workers are forked from: it has loaded what they run, so they begin at once and share its memory.

Theory of operation:

1. It has one thread, no event loop, and no socket but its supervisor's. So a fork of it is whole, as one of a supervisor,
   which has all these, would not be.
2. The first one is forked itself, from what becomes the supervisor, as soon as that has loaded what workers run and before
   it loads or begins anything else (`begin`): it is there at once, and all of them share those pages. A later one is
   executed (`main`), so it has the code as it is then.
3. Its heap is frozen before the first fork, so that no collection in a worker writes to pages that are shared.
4. A message with a descriptor asks for a worker whose channel that is, and the answer is its pid. One with a pid asks how
   that worker ended. Until then it stays as a zombie, so that its pid can be nobody else's.
5. It ends with its supervisor's socket. SIGTERM, which a service manager sends to all processes of a service, ends it as little as
   the signals that workers do not end by either: it knows how they end. They serve on without it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NamedTuple

import uvloop

from dataplane.worker.process import Worker

MESSAGE_BYTES: Final = 32
"""More than a number has digits."""
_DEAF_TO: Final = (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM)


class Begun(NamedTuple):
    """One that was forked from this process, its parent."""

    pid: int
    orders: socket.socket

    def dismiss(self) -> None:
        """End it."""
        self.orders.close()
        os.waitpid(self.pid, 0)


def begin() -> Begun:
    """Fork it from this process, which has one thread yet; the child serves, works, and ends with SystemExit.

    Raises:
        OSError: There can be no such process.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gc.freeze()
    signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF_TO)
    pid = _fork()
    if pid == 0:
        ours.close()
        _become(theirs)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _DEAF_TO)
    if pid == 0:
        _live(theirs)
        sys.exit()
    theirs.close()
    if pid < 0:
        ours.close()
        raise OSError(-pid, os.strerror(-pid))
    ours.setblocking(False)
    return Begun(pid, ours)


def _become(orders: socket.socket) -> None:
    """Be as one that is executed: deaf (rule 5, and a terminal's ^C is the supervisor's to interpret), and without its files."""
    for number in _DEAF_TO:
        signal.signal(number, signal.SIG_IGN)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for each in [int(one.name) for one in Path("/proc/self/fd").iterdir()]:
        if each > 2 and each != orders.fileno():  # noqa: PLR2004 - standard input, output and error
            with contextlib.suppress(OSError):  # the folder's own
                os.close(each)


def main() -> None:
    """Serve the supervisor whose socket has the descriptor that is the only argument; in a worker, work."""
    _live(socket.socket(fileno=int(sys.argv[1])))


def _live(orders: socket.socket) -> None:
    with orders:
        channel = serve(orders)
    if channel is not None:
        uvloop.run(_work(channel))


def serve(orders: socket.socket) -> socket.socket | None:
    """Fork workers until the supervisor is gone, and return None then; return in each worker, with its channel."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
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
