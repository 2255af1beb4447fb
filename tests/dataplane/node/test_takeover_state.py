"""What a process tells its successor."""

from __future__ import annotations

from dataplane.node.takeover_state import state_of, verdicts_of
from schemas.health import Verdict
from tests.dataplane.node.bench import benched


async def test_successors_of_any_version_can_read_what_checks_found():
    """The rows keep the five fields that they always had; who is unreachable stands beside them."""
    async with benched() as bench:
        await bench.put(*({"id": id_, "address": "127.0.0.1:1"} for id_ in "abc"))
        a = Verdict(state="down", cause="status 503")
        b = Verdict(state="down", cause="refused", reachable=False)
        assert bench.node.decide_all({"s": {"a": a, "b": b, "x": b}}) == ["s/x"]
        state = state_of(bench.applier)
        assert state["verdicts"] == [
            ("s", "a", "down", "status 503", False),
            ("s", "b", "down", "refused", False),
        ]
        assert state["unreachable"] == [("s", "b")]
        assert [row[4] for row in verdicts_of(bench.node)] == [True, False]
