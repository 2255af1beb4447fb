"""Two processes that watch each other, so that one of them withdraws the routes when the other dies or hangs.

Theory of operation
-------------------

1. ExaBGP keeps the routes of a process that has died, is stopped or hangs, for as long as ExaBGP itself lives. So whoever
   announces has a guard: a child, forked before anything else happens, that can write to the same ExaBGP.
2. The announcer beats at each round, and the guard answers each beat. Both ends know so that the other one lives, and not only
   that it exists: a process that is stopped (SIGSTOP, a debugger, a frozen disk) answers nothing.
3. The guard, when no beat has come for `hold_s`, or the announcer has ended without a word: it kills the announcer, which
   could otherwise wake up and announce again behind its back, withdraws, and ends. ExaBGP then notices the end of the process
   that it has started, and starts it again.
4. The announcer, when the guard has ended or has not answered for `hold_s`: it kills the guard, withdraws, and ends, and is
   started again with a new guard.
5. What is left: both stopped at the same moment (a signal to the whole process group). Then only ExaBGP's own end
   helps, or that they go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BEAT: Final = b"."
_BYE: Final = b"q"
"""The announcer has withdrawn by itself."""


class Guarded:
    """The announcer's end: made in it, with the guard running from then on.

    Args:
        hold_s: How long there may be no sign of life, seconds.
        withdraw: Withdraws all routes; called in the guard.
    """

    def __init__(self, hold_s: float, withdraw: Callable[[], None]) -> None:
        self._hold_s = hold_s
        ours, theirs = socket.socketpair()
        announcer = os.getpid()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._pid = os.fork()
        if self._pid == 0:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)  # the announcer's end is what ends it
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            ours.close()
            _guard(theirs, hold_s, announcer, withdraw)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        ours.setblocking(False)
        self._link = ours
        self._heard = time.monotonic()

    @property
    def pid(self) -> int:
        """Of the guard."""
        return self._pid

    def beat(self) -> bool:
        """Say that the announcer lives; tell whether the guard does."""
        now = time.monotonic()
        try:
            self._link.send(_BEAT)
        except BlockingIOError:  # it has not read for long
            pass
        except OSError:
            return False
        return self._answered(now)

    def _answered(self, now: float) -> bool:
        try:
            if not self._link.recv(4096):
                return False
            self._heard = now
        except BlockingIOError:
            pass
        except OSError:
            return False
        return now - self._heard < self._hold_s

    def end(self) -> None:
        """Let the guard go without a withdrawal: the announcer has done that."""
        with contextlib.suppress(OSError):
            self._link.send(_BYE)
        self._link.close()

    def kill(self) -> None:
        """End the guard, whatever it does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)


def _guard(link: socket.socket, hold_s: float, announcer: int, withdraw: Callable[[], None]) -> None:
    """Be the guard; never returns."""
    try:
        if _watch(link, hold_s):
            with contextlib.suppress(ProcessLookupError):
                if os.getppid() == announcer:  # else it has ended, and its number may be another's
                    os.kill(announcer, signal.SIGKILL)
            withdraw()
    finally:
        os._exit(0)


def _watch(link: socket.socket, hold_s: float) -> bool:
    """Answer beats; tell, once they have ended, whether the routes have to be withdrawn."""
    while True:
        readable, _, _ = select.select([link], [], [], hold_s)
        if not readable:
            return True
        try:
            said = link.recv(4096)
            if not said:
                return True
            if _BYE in said:
                return False
            link.send(_BEAT)
        except OSError:
            return True
