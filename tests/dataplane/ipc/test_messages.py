"""What travels between a supervisor and its workers arrives as it was sent."""

from __future__ import annotations

from dataplane.ipc.messages import SLICE, pack, unpack
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
    assert len(packed[1]) == 3
    assert await unpack(packed) == spec
