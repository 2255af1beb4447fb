"""What travels between a supervisor and its workers arrives as it was sent."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataplane.core.spec import ServiceSpec
from dataplane.ipc.messages import (
    SLICE,
    Columns,
    Running,
    different,
    load,
    pack,
    pack_columns,
    unpack,
    unpack_columns,
)
from dataplane.node.specs import service_spec
from schemas.snapshot import parse_snapshot


async def test_a_service_arrives_whole_and_in_order() -> None:
    """However many slices its backends take, the spec is equal to what was packed."""
    backends = [
        {"id": f"b{number}", "address": "127.0.0.1:2", "weight": number % 7}
        for number in range(SLICE * 2 + 1)
    ]
    snapshot = parse_snapshot(
        {
            "generation": 1,
            "services": {"web": {"listen": "127.0.0.1:1", "mode": "sticky", "backends": backends}},
        }
    )
    spec = service_spec("web", snapshot.services["web"])
    packed = pack(spec)
    assert len(packed.slices) == 3
    assert await unpack(packed) == spec


def spec_of(backends: dict[str, int], **options: object) -> ServiceSpec:
    """Return a service with these backends, by id: the weight of each."""
    rows = [{"id": id_, "address": "127.0.0.1:2", "weight": weight} for id_, weight in backends.items()]
    service = {"listen": "127.0.0.1:1", "backends": rows, **options}
    snapshot = parse_snapshot({"generation": 1, "services": {"web": service}})
    return service_spec("web", snapshot.services["web"])


CROWDS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3))
MODES = st.sampled_from(["rr", "sticky"])


@settings(deadline=None)
@given(CROWDS, MODES, CROWDS, MODES)
def test_a_difference_arrives_as_the_whole(
    before: dict[str, int], mode: str, after: dict[str, int], other: str
) -> None:
    """Whatever was added, removed, changed or put into another order; no more travels than what is other than before."""
    old, new = spec_of(before, mode=mode), spec_of(after, mode=other)
    running = Running(old, {one.id: one for one in old.backends})
    packed = pack(new, running)
    assert asyncio.run(unpack(packed, running)) == new
    assert (packed.options is None) is (mode == other)
    assert (packed.ids is None) is (list(before) == list(after))
    rows = [row for piece in packed.slices for row in load(piece)]
    assert {row[0] for row in rows} == {id_ for id_, weight in after.items() if before.get(id_) != weight}
    assert [one.id for one in different(new, running)] == [row[0] for row in rows]


@pytest.mark.parametrize("count", [0, 1, SLICE, 2 * SLICE + 1])
async def test_columns_arrive(count: int) -> None:
    """However many slices they take."""
    columns: Columns = {("web", f"b{number}"): number for number in range(count)}
    packed = pack_columns(columns)
    assert len(packed) == -(-count // SLICE)
    assert await unpack_columns(packed) == columns
