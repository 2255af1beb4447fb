"""Writing down: what cannot be written is said, and written as soon as it can be."""

from __future__ import annotations

import asyncio
import contextlib

from controlplane.core.backoff import Backoff
from controlplane.errors import StoreError
from controlplane.operations.saving import Keeping
from controlplane.store import State
from tests.controlplane.operations.test_controller import until
from tests.controlplane.test_store import entry


class Disk:
    """A store on a disk that may be full."""

    def __init__(self):
        self.full = True
        self.tries = 0
        self.saved = []
        self.recorded = []

    def save(self, state):
        """Keep a state."""
        self._check()
        self.saved.append(state.generation)

    def record(self, made, _document):
        """Keep an entry of the history."""
        self._check()
        self.recorded.append(made.generation)

    def _check(self):
        self.tries += 1
        if self.full:
            raise StoreError("state.json: No space left on device")


@contextlib.asynccontextmanager
async def kept():
    """Keep on such a disk."""
    disk, log = Disk(), []
    keeping = Keeping(disk, log.append, Backoff(base_s=0.001, cap_s=0.002))
    task = asyncio.create_task(keeping.run())
    try:
        yield disk, keeping, log
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_a_full_disk_refuses_is_written_when_it_has_room():
    """Every generation in its order, and of the states the newest; it is logged once, and once that it is over."""
    async with kept() as (disk, keeping, log):
        for number in (1, 2):
            warnings = await keeping.keep(State(generation=number), *entry(number))
            assert [each.partition(":")[0] for each in warnings] == [
                "not written to the history",
                "not written down, so a restart forgets it",
            ]
        assert "No space left" in keeping.error
        before = disk.tries
        await until(lambda: disk.tries > before + 4)
        disk.full = False
        await until(lambda: keeping.error is None)
        assert (disk.recorded, disk.saved, len(log)) == ([1, 2], [2], 2), log
        before = disk.tries
        assert await keeping.keep(State(generation=3)) == []
        assert (disk.saved[-1], disk.tries) == (3, before + 1)
