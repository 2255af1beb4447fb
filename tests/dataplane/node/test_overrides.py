"""What operators want of backends, on a node without clients."""

from __future__ import annotations

import pytest

from dataplane.errors import Refused
from dataplane.node.overrides import effective_specs, note_overrides, tell_overruled
from dataplane.node.slices import SLICE
from schemas.api import BackendPatch
from tests.dataplane.node.bench import benched


@pytest.fixture
async def bench():
    """A node."""
    async with benched() as bench:
        yield bench


def named(count: int) -> list[dict[str, str]]:
    """Return so many backends at one address."""
    return [{"id": f"b{number}", "address": "127.0.0.1:1"} for number in range(count)]


async def noted(bench, **patches):
    """Note overrides without acting on them; return what has begun and ended by id."""
    running, effective = await effective_specs(bench.node, "s", patches, placed=True)
    made = await note_overrides(bench.node, running, effective, patches)
    return {one.spec.id: (one.begun, one.ended) for one in made}


async def test_what_has_begun_and_what_has_ended(bench):
    """A word that is said again begins nothing; the snapshot's own word ends one, and ends none that there is not."""
    await bench.put(*named(2))
    assert await noted(bench, b0=BackendPatch(weight=3), b1=BackendPatch(weight=1, state="drain")) == {
        "b0": ({"weight": 3}, {}),
        "b1": ({"state": "drain"}, {}),
    }
    since = bench.node.overrides["s", "b0"]["weight"][1]
    bench.reactor.now += 1
    assert await noted(bench, b0=BackendPatch(weight=3)) == {"b0": ({}, {})}
    assert bench.node.overrides["s", "b0"] == {"weight": (3, since)}
    assert await noted(bench, b1=BackendPatch(weight=5, state="enabled")) == {
        "b1": ({"weight": 5}, {"state": "enabled"})
    }
    assert await noted(bench, b0=BackendPatch(weight=1)) == {"b0": ({}, {"weight": 1})}
    assert set(bench.node.overrides) == {("s", "b1")}


async def test_whoever_is_not_there_is_named(bench):
    """With its place in the body, if it has one; nothing is noted."""
    await bench.put(*named(1))
    patches = {"b0": BackendPatch(weight=2), "x": BackendPatch(weight=2)}
    for placed, places in [(True, ["backends.x"]), (False, [])]:
        with pytest.raises(Refused) as caught:
            await effective_specs(bench.node, "s", patches, placed=placed)
        assert [one["path"] for one in caught.value.details] == places
    with pytest.raises(Refused, match="no service t"):
        await effective_specs(bench.node, "t", patches, placed=True)
    assert not bench.node.overrides


async def test_a_snapshot_overrules(bench):
    """Told with the values that hold then; an override of a backend that is gone ends silently."""
    await bench.put(*named(2))
    before = {("s", "b0"): {"weight": (3, 0.0)}, ("s", "gone"): {"weight": (3, 0.0)}}
    bench.told.clear()
    tell_overruled(bench.node, before)
    assert bench.told == [("override_ended", {"service": "s", "backend": "b0", "weight": 1})]


@pytest.mark.parametrize("mode", ["rr", "sticky"])
@pytest.mark.parametrize("count", [1, SLICE + 50])
async def test_clients_meet_all_of_it(bench, mode, count):
    """However many: the selection has each weight and none of those that are out, and the last one serves again."""
    await bench.put(*named(count + 1), mode=mode)
    last = f"b{count}"
    out = {f"b{number}": BackendPatch(weight=0, state="drain") for number in range(count)}
    await bench.applier.patch_all("s", {"backends": out})
    assert {bench.service.selection.pick(key << 40, ()).id for key in range(20)} == {last}
    back = {name: BackendPatch(weight=1, state="enabled") for name in out}
    await bench.applier.patch_all("s", {"backends": {last: {"weight": 0}, **back}})
    picked = {bench.service.selection.pick(key << 40, ()).id for key in range(20)}
    assert picked
    assert last not in picked
