"""What was accepted last is written down and wished, and a generation is above all that run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from controlplane.errors import UnknownError
from controlplane.operations.accepted import Accepted
from controlplane.operations.options import Origin
from controlplane.operations.saving import Keeping
from controlplane.store import State, Store

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
