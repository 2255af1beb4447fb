"""What a process tells its successor."""

from __future__ import annotations

from dataplane.node.takeover_state import inherit, state_of, verdicts_of
from schemas.api import BackendPatch, Verdict
from tests.dataplane.node.bench import benched


async def test_successors_of_any_version_can_read_what_checks_found():
    """The rows keep the five fields that they always had; who is unreachable stands beside them."""
    async with benched() as bench:
        await bench.put(*({"id": id_, "address": "127.0.0.1:1"} for id_ in "abc"))
        a = Verdict(state="down", cause="status 503")
        b = Verdict(state="down", cause="refused", reachable=False)
        assert bench.applier.decide_all({"s": {"a": a, "b": b, "x": b}}) == ["s/x"]
        state = state_of(bench.applier)
        assert state["verdicts"] == [
            ("s", "a", "down", "status 503", False),
            ("s", "b", "down", "refused", False),
        ]
        assert state["unreachable"] == [("s", "b")]
        assert [row[4] for row in verdicts_of(bench.node)] == [True, False]


async def test_a_successor_knows_what_its_predecessor_knew():
    """Overrides and health are inherited; of a backend that is not there nothing is."""
    async with benched() as before, benched() as after:
        for bench in (before, after):
            await bench.put(*({"id": id_, "address": "127.0.0.1:1"} for id_ in "ab"))
        await before.applier.patch("s", "a", BackendPatch(state="drain"))
        before.applier.decide_all({"s": {"b": Verdict(state="down", cause="refused", reachable=False)}})
        state = state_of(before.applier)
        state["verdicts"].append(("s", "gone", "down", "x", False))
        await inherit(after.applier, state)
        backends = after.service.backends
        assert backends["a"].spec.state.value == "drain"
        health = backends["b"].health
        assert (health.state.value, health.cause, health.reachable) == ("down", "refused", False)
