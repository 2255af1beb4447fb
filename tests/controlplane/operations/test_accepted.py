"""What was accepted last is written down, as soon as it can be, and wished; a generation is above all that run."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from controlplane.core.backoff import Backoff
from controlplane.errors import StoreError, UnknownError
from controlplane.operations.accepted import Accepted, Keeping
from controlplane.operations.options import Origin
from controlplane.store import State, Store
from tests.controlplane.operations.test_controller import until
from tests.controlplane.test_store import entry

APPLY = Origin("op", "apply")


class Wishes:
    """A fleet that runs nothing and remembers what is wished of it."""

    def __init__(self, *running):
        self.wished = []
        self._running = running

    def running(self):
        """Return what the data planes run."""
        return list(self._running)

    def want(self, wish):
        """Remember a wish."""
        self.wished.append(wish.target.generation)

    async def services(self):
        """Return what the newest data plane runs."""
        return {"theirs": {}}


def accepted(tmp_path, *running, held=False):
    """Return it over such a fleet, with the events that it tells."""
    fleet, told = Wishes(*running), SimpleNamespace(events=[], log=[])
    keeping = Keeping(Store(tmp_path), told.log.append, held=held)
    return Accepted(keeping, fleet, told.events.append, told.log.append), fleet, told


def state(generation, version=1, **more):
    """Return a state with an lb.yaml."""
    return State(generation=generation, hash=f"hash {version}", document={"version": version}, **more)


async def test_what_is_accepted_is_written_wished_and_told(tmp_path):
    """Another process reads it; who watches is told of the generation."""
    it, fleet, told = accepted(tmp_path)
    assert await it.accept(state(1), APPLY) == []
    assert (fleet.wished, Store(tmp_path).load().generation) == ([1], 1)
    assert told.events == [{"type": "generation", "generation": 1, "hash": "hash 1", "by": "op"}]
    assert [each["generation"] for each in (await it.history())["history"]] == [1]


async def test_same_content_again_is_no_entry_of_the_history(tmp_path):
    """A generation that is only raised above another's was nobody's change."""
    it, fleet, _ = accepted(tmp_path)
    await it.accept(state(1), APPLY)
    await it.accept(state(5), Origin("lb-control run", "resume"))
    assert fleet.wished == [1, 5]
    assert [each["generation"] for each in (await it.history())["history"]] == [1]


async def test_held_is_written_when_it_came_true(tmp_path):
    """Until somebody says so, the disk knows nothing."""
    it, _, _ = accepted(tmp_path, held=True)
    await it.accept(state(1), APPLY)
    assert Store(tmp_path).load() == State()
    assert await it.keeping.write() == []
    assert Store(tmp_path).load().generation == 1


async def test_generation_is_above_all_that_run(tmp_path):
    """But a content that runs already keeps its own."""
    it, _, _ = accepted(tmp_path, (7, "theirs"), (4, "hash 1"))
    assert it.next_generation("hash 2") == 8
    assert accepted(tmp_path, (4, "hash 1"))[0].next_generation("hash 1") == 4


async def test_before_anything_was_accepted_the_newest_data_plane_says_what_runs(tmp_path):
    """Afterwards we do."""
    it, _, _ = accepted(tmp_path)
    assert (await it.snapshot())["services"] == {"theirs": {}}
    await it.accept(state(1, services={"ours": {"listen": [], "backends": []}}), APPLY)
    assert list((await it.snapshot())["services"]) == ["ours"]


async def test_earlier_is_the_newest_that_says_something_else(tmp_path):
    """Or the generation that is named; of one that is not there, it is said which are."""
    it, _, _ = accepted(tmp_path)
    for generation, version in ((1, 1), (2, 2), (3, 3), (4, 3)):
        await it.accept(state(generation, version), APPLY)
    assert (await it.earlier(None))[0].generation == 2
    assert (await it.earlier(1))[1] == {"version": 1}
    with pytest.raises(UnknownError, match="1 to 4"):
        await it.earlier(9)


async def test_what_cannot_be_read_is_said(tmp_path):
    """The history stands in for it."""
    it, _, _ = accepted(tmp_path)
    await it.accept(state(1), APPLY)
    (tmp_path / "control" / "state.json").write_text("{")
    again, _, told = accepted(tmp_path)
    await again.load()
    assert "overrides and the last snapshot are unknown" in again.lost
    assert told.log == [again.lost]
    assert again.state.document == {"version": 1}


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
            warnings = await keeping.keep(State(generation=number), entry(number)[0])
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
