"""Work in slices: the loop has its turn between any two, and a computation's result or error comes out."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Generator

import pytest

from dataplane.node.slices import (
    FULL,
    MANY,
    MIDDLE,
    YOUNG,
    in_slices,
    lasting,
    pieces,
    sliced,
    tune_collector,
)


def work(seen: list[str], slices: int, *, fails: bool = False) -> Generator[None, None, str]:
    """Note each slice, and return a word at the end or fail."""
    for number in range(slices):
        seen.append(f"slice {number}")
        yield
    if fails:
        raise ValueError("no result")
    return "done"


async def test_others_have_their_turn_between_slices() -> None:
    """Whatever waits for the loop is done after each slice, not after the whole."""
    seen: list[str] = []

    async def other() -> None:
        for number in range(3):
            seen.append(f"other {number}")
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert await in_slices(work(seen, 3)) == "done"
    await task
    assert seen == ["slice 0", "other 0", "slice 1", "other 1", "slice 2", "other 2"]


async def test_a_failure_comes_out() -> None:
    """Whoever asked for the result hears why there is none."""
    with pytest.raises(ValueError, match="no result"):
        await in_slices(work([], 2, fails=True))


async def test_nothing_to_slice_is_done_at_once() -> None:
    """A computation without a slice has its result as well."""
    assert await in_slices(work([], 0)) == "done"


async def test_items_come_in_pieces_too() -> None:
    """The loop has its turn after each; the last one is shorter, and of nothing there is none."""
    seen: list[object] = []

    async def other() -> None:
        seen.append("other")

    task = asyncio.create_task(other())
    async for some in pieces("abcde", 2):
        seen += [some]
    await task
    assert seen == ["ab", "other", "cd", "e"]
    assert [some async for some in pieces("")] == []


async def test_items_come_in_slices_too() -> None:
    """The loop has its turn after each so many; all items come, in order."""
    seen: list[object] = []

    async def other() -> None:
        seen.append("other")

    task = asyncio.create_task(other())
    async for number in sliced(range(3), 2):
        seen += [number]
    await task
    assert seen == [0, 1, "other", 2]


@pytest.fixture
def collector():
    """Put it back as it was."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.enable()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_what_is_there_is_collected_no_more_and_the_rest_seldom():
    """What exists at the start is left out of every collection; until then there is none (`dataplane.start`)."""
    gc.disable()
    tune_collector()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == (YOUNG, MIDDLE, FULL)


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("much", [False, True])
def test_what_a_change_makes_is_not_looked_through(*, much):
    """Nothing is collected meanwhile; what is much is left out from then on. Whatever goes wrong, the collector is on again."""
    gc.collect()
    gc.unfreeze()
    made = []

    def make() -> None:
        with lasting():
            assert not gc.isenabled()
            made.extend([] for _ in range(MANY + 1 if much else 1))
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        make()
    assert gc.isenabled()
    assert (gc.get_freeze_count() > len(made)) is much
