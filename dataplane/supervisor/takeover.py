"""How a supervisor begins with the listening sockets of others: of the process that it replaces, or of orphaned workers.

All that can fail comes before `confirm`: until then whoever is to be taken over goes on. From then on nothing ends this
process but a signal (`ipc.takeover` has the whole protocol).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Final

from dataplane.api.server import Endpoints
from dataplane.core.phase import Turn
from dataplane.errors import Refused, StartError, TakeoverError
from dataplane.ipc.takeover import Taken, giver_path, orphans, take
from dataplane.node.apply import Applier
from dataplane.node.initial import check_config, inherit, reread
from dataplane.process import Process
from dataplane.supervisor.lending import SocketGroup
from dataplane.supervisor.succession import Succession
from schemas.errors import InvalidDocument
from schemas.snapshot import parse_snapshot
from schemas.system.unix_socket import InUse

RETRY_S: Final = 1.0
_TODO: Final = (
    "clients are served; the API is as soon as this is out of the way: end the process that is in it"
)


class Successor:
    """Runs what another process ran, on its listening sockets and with new workers."""

    def __init__(
        self, process: Process, applier: Applier, sockets: SocketGroup, succession: Succession
    ) -> None:
        self._process = process
        self._applier = applier
        self._sockets = sockets
        self._succession = succession

    async def take_over(self, endpoints: Endpoints) -> None:
        """Replace the running process of this name, and serve the API; with a StartError that process goes on."""
        options, life = self._process.options, self._process.life
        if options.config is not None:
            await asyncio.to_thread(check_config, options.config)
        try:
            async with take(giver_path(options.runtime_dir, options.name)) as taken:
                life.turn(Turn.TAKE, time.time())
                await self._run_what_was_taken(taken)
                await self._succession.start()
                await endpoints.listen(relays=False)
                if (
                    life.leaving_since is not None
                ):  # nothing is taken over only to end: the process that runs serves
                    raise TakeoverError("this process was told to end")  # noqa: TRY301 - as what `take` raises
                await taken.confirm()
                await self._succeed(taken, endpoints)
                taken.serve()
        except TakeoverError as error:
            raise StartError(f"--takeover: {error}") from error
        except (InvalidDocument, Refused) as error:
            raise StartError(f"--takeover: what runs cannot be run here: {error}") from error
        if options.config is not None:
            await reread(self._applier, options.config)

    async def _run_what_was_taken(self, taken: Taken) -> None:
        snapshot = parse_snapshot(taken.state["snapshot"])
        wanted = {address for service in snapshot.services.values() for address in service.addresses}
        if wanted != taken.sockets.keys():
            different = ", ".join(sorted(wanted ^ taken.sockets.keys()))
            raise TakeoverError(f"sockets and snapshot do not agree on {different}")
        self._sockets.new.inherit(taken.sockets)
        await self._applier.restore(snapshot)
        await inherit(self._applier, taken.state)
        # What `--config` or the environment gave to that process is not saved: it was there for its next start, too.
        if snapshot.generation and (
            self._process.options.config is None or not taken.state.get("saved", True)
        ):
            self._applier.store.owe(snapshot)

    async def _succeed(self, taken: Taken, endpoints: Endpoints) -> None:
        """Serve the API in place of a process whose clients the workers have; TakeoverError if it never lets go."""
        process = self._process
        told = False
        while process.life.leaving_since is None:
            try:
                process.own.acquire()
                await endpoints.serve()
                return
            except (InUse, OSError) as error:
                if taken.not_released and isinstance(error, InUse):
                    raise TakeoverError("the running process had stopped waiting, and goes on") from error
                if not told:
                    process.events.emit("api_not_served", cause=str(error), todo=_TODO)
                told = True
                await asyncio.sleep(RETRY_S)

    async def take_from_orphans(self, stack: AsyncExitStack) -> list[Taken]:
        """Take the sockets of workers whose supervisor was killed; a worker that does not give is left alone."""
        options = self._process.options
        predecessors = []
        for path in orphans(options.runtime_dir, options.name):
            try:
                taken = await stack.enter_async_context(take(path))
            except TakeoverError as error:
                self._process.events.emit("orphan_gives_nothing", path=str(path), cause=str(error))
                path.unlink(missing_ok=True)
                continue
            self._sockets.new.inherit(taken.sockets)
            predecessors.append(taken)
        return predecessors
