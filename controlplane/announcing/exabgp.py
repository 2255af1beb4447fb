"""A process of ExaBGP: announces this node's routes while it is ready, and withdraws them when it is not, or when in doubt.

Theory of operation
-------------------

1. ExaBGP starts it, reads its commands from its standard output, and answers each with `done` or `error` on its standard
   input, unless `exabgp.api.ack` is off.
2. It begins with a withdrawal: a process before it may have announced, and died. Then it asks at each round whether this
   node is ready. The question has a timeout; without an answer the node is not ready.
3. Commands are said when something has changed, after an error, and every REPEAT_S: an ExaBGP that has read another
   configuration for a router may have forgotten them.
4. Everything that can hang is inside of a round, and a round is what the guard (`guard`) sees. Answers are always read: ExaBGP
   waits for whoever does not.
5. When ExaBGP goes, its sessions have ended, and the routes with them: the end of standard input, or a broken output, ends
   this process.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Final

from controlplane.announcing.guard import Guarded
from controlplane.core.announcement import Call, Routes, call_of
from controlplane.core.readiness import Readiness

REPEAT_S: Final = 10.0
_OUT: Final = 1
_IN: Final = 0


class Ended(Exception):  # noqa: N818 - it is told to end, or ExaBGP has: no error
    """Nothing more is to be announced."""


class Announcer:
    """One process of ExaBGP.

    Args:
        routes: What to announce.
        ask: Finds out whether this node is ready, within a time that it keeps.
        tell: Told what changes, for the log.
    """

    def __init__(self, routes: Routes, ask: Callable[[], Readiness], tell: Callable[[str], None]) -> None:
        self._routes = routes
        self._ask = ask
        self._tell = tell
        self._said: Call | None = None
        """What ExaBGP has been told last; None: it has to be told again."""
        self._said_at = 0.0
        self._told = ""
        self._rest = b""

    def run(self, interval_s: float, hold_s: float) -> int:
        """Announce until told to end; return the exit status."""
        guarded = Guarded(hold_s, self._withdraw)
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, _end)
            self._withdraw()
            self._said = Call.WITHDRAWN
            while guarded.beat():
                self._round()
                self._listen(time.monotonic() + interval_s)
        except Ended:
            self._bow_out()
            guarded.end()
            return 0
        except BrokenPipeError:
            guarded.end()
            return 0
        except OSError as error:  # nor could the guard tell it; the next one begins with a withdrawal
            guarded.end()
            self._tell(f"ExaBGP cannot be told: {error.strerror}; it starts this command again")
            return 1
        guarded.kill()
        self._tell("the guard has ended, or hangs: withdrawn; ExaBGP starts both again")
        self._withdraw()
        return 1

    def _bow_out(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        try:
            self._withdraw()
        except OSError:  # ExaBGP has ended, and its sessions with it
            return

    def _round(self) -> None:
        """Ask, and say what follows."""
        verdict = self._ask()
        call, now = call_of(verdict), time.monotonic()
        why = f"{call} ({verdict.reason})" if verdict.reason else str(call)
        if why != self._told:
            self._told = why
            self._tell(f"{', '.join(map(str, self._routes.prefixes))}: {why}")
        repeats = call is not Call.WITHDRAWN and now - self._said_at >= REPEAT_S
        if call is not self._said or repeats:
            self._say(call)
            self._said, self._said_at = call, now

    def _say(self, call: Call) -> None:
        for line in self._routes.commands(call):
            os.write(_OUT, f"{line}\n".encode())  # shorter than PIPE_BUF: whole, or not at all

    def _withdraw(self) -> None:
        self._say(Call.WITHDRAWN)

    def _listen(self, until: float) -> None:
        """Read answers until the next round, `until` in monotonic seconds."""
        while (left := until - time.monotonic()) > 0:
            readable, _, _ = select.select([_IN], [], [], left)
            if readable:
                data = os.read(_IN, 65536)
                if not data:
                    self._tell("ExaBGP has ended")
                    raise Ended
                self._answers(data)

    def _answers(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-65536:]
        if b"error" in [line.strip() for line in lines]:
            if self._said is not None:
                self._tell("ExaBGP has refused a command, and says why in its log; it is told again")
            self._said = None


def _end(_number: int, _frame: FrameType | None) -> None:
    raise Ended
