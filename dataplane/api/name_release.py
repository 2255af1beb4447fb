"""How a process that drains gives its name away, so that the next one of that name serves at once.

Theory of operation:

1. First its listening sockets are closed, and whoever was in their queues is being served (`supervisor.listening_sockets`, `node.listeners`). Then the API
   moves to a socket of the process's own (`draining_path`), and its name, its lock and its addresses on TCP are free. So
   whoever gets the lock can have everything else, too.
2. `lb-control` shows what is behind such a socket as draining, and asks nothing else of it: it is no data plane any more.
3. With `--drain-detached`, who has to do with the service manager ends now (`dataplane.keeper`).
4. A process that is killed meanwhile leaves that socket. The next one of that name removes it: its lock is free.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

from dataplane.keeper import VARIABLE
from schemas.system.unix_socket import InUse, OwnSocket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dataplane.api.routes import DataPlane
    from dataplane.api.server import Endpoints

__all__ = ["Kept", "move_away", "sweep"]

_TODO = "it drains and ends by itself; until then status does not show it: ps -fp "


async def move_away(
    endpoints: Endpoints, plane: DataPlane, own: OwnSocket, away: OwnSocket, emit: Callable[..., None]
) -> None:
    """Serve the API of a process that drains at `away`, where it is in nobody's way."""
    pid = os.getpid()
    try:
        await endpoints.move(plane, own, away)
    except (OSError, InUse) as error:
        emit("api_not_served", cause=str(error), todo=f"{_TODO}{pid}")
    else:
        emit("draining", socket=str(away.path), pid=pid)


class Kept:
    """What a data plane has to do with its keeper; nothing, if it has none.

    Args:
        on_loss: Called if the keeper is killed.
    """

    def __init__(self, on_loss: Callable[[], None]) -> None:
        self.main_pid = os.getpid()
        """Of the process that a service manager knows."""
        self._on_loss = on_loss
        self._input = self._output = -1
        if given := os.environ.pop(VARIABLE, ""):
            self.main_pid, self._input, self._output = map(int, given.split())
            asyncio.get_running_loop().add_reader(self._input, self._lost)

    def _lost(self) -> None:
        self._forget()
        self._on_loss()

    def let_go(self) -> None:
        """Have the service manager start the next one."""
        if self._output >= 0:
            os.write(self._output, b"x")
            self._forget()

    def _forget(self) -> None:
        asyncio.get_running_loop().remove_reader(self._input)
        os.close(self._input)
        os.close(self._output)
        self._input = self._output = -1


def sweep(directory: Path, name: str) -> None:
    """Remove what processes of this name have left that were killed while they drained."""
    for path in directory.glob("draining-*.sock"):
        former, _, pid = path.stem.removeprefix("draining-").rpartition(".")
        if former == name and pid.isdecimal():
            left = OwnSocket(path)
            with contextlib.suppress(OSError, InUse):
                left.acquire()
                path.unlink(missing_ok=True)
                left.remove()
