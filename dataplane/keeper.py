"""The process that a service manager knows, while the data plane is its child: for `--drain-detached`.

Theory of operation:

1. systemd waits for the end of the main process before it starts the next one, and believes no other process to be the main
   one from the moment when it wants an end. So that a restart does not wait for a drain, the main process must be
   another one than that which drains, from the beginning.
2. It forks before anything is loaded, and does nothing but wait: it passes signals on, and ends when the data plane says
   that it has given its name away, or has ended, and then in the same manner.
3. If it is killed, the data plane learns that, and does as if it had been killed itself: the workers of a supervisor serve
   until the next one has their sockets; a single process drains.
4. It needs a service manager that leaves the other processes of a service alone (KillMode=process), and listens to them
   (NotifyAccess=all).
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_VARIABLE: Final = "LB_KEEPER"
"""Tells the data plane its ends of the two pipes to the keeper."""
_PASSED_ON: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGABRT,  # the watchdog's
)


def keep() -> None:
    """Fork, and return in the child; the parent never returns."""
    its_input, our_output = os.pipe2(os.O_CLOEXEC)
    our_input, its_output = os.pipe2(os.O_CLOEXEC)
    own = os.getpid()
    child = os.fork()
    if child:
        os.close(its_input)
        os.close(its_output)
        _wait(child, our_input)
    os.close(our_input)
    os.close(our_output)
    os.setpgid(0, 0)  # a terminal's ^C is passed on, and must not come twice
    os.environ[_VARIABLE] = f"{own} {its_input} {its_output}"
    for name in ("LISTEN_PID", "WATCHDOG_PID"):
        if os.environ.get(name) == str(own):
            os.environ[name] = str(os.getpid())


def _wait(child: int, said: int) -> None:
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    if os.read(said, 1):
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        ended_by = os.WTERMSIG(status)
        with contextlib.suppress(OSError):  # SIGKILL needs no such thing
            signal.signal(ended_by, signal.SIG_DFL)
        os.kill(os.getpid(), ended_by)
    os._exit(os.waitstatus_to_exitcode(status))


class Kept:
    """What a data plane has to do with its keeper, if it has one; `on_loss` is called if that is killed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_loss: Callable[[], None]) -> None:
        self._loop = loop
        self.main_pid = os.getpid()
        """Of the process that a service manager knows."""
        self._on_loss = on_loss
        self._input = self._output = -1
        if given := os.environ.pop(_VARIABLE, ""):
            self.main_pid, self._input, self._output = map(int, given.split())
            self._loop.add_reader(self._input, self._lost)

    def _lost(self) -> None:
        self._forget()
        self._on_loss()

    def let_go(self) -> None:
        """Have the service manager start the next one."""
        if self._output >= 0:
            os.write(self._output, b"x")
            self._forget()

    def _forget(self) -> None:
        self._loop.remove_reader(self._input)
        os.close(self._input)
        os.close(self._output)
        self._input = self._output = -1
