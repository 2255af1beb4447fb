"""What a process tells its successor."""

from __future__ import annotations

import asyncio

import pytest

from dataplane.errors import Refused
from dataplane.node.takeover_state import Handover, inherit, state_of, verdicts_of
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


@pytest.mark.parametrize("taken", [True, False])
async def test_nothing_changes_while_somebody_takes_over(taken):
    """What runs is locked from the offer on; afterwards changes are refused, or go on if nobody took over."""
    async with benched() as bench:
        await bench.put("127.0.0.1:1")

        async def let_go(refusal):
            bench.applier.refusal = refusal

        pairs = [(one.address, one.sock) for one in bench.node.listeners.values()]
        handover = Handover(bench.applier, lambda: pairs, let_go)
        offer = await handover.offer()
        assert offer.addresses == [bench.port.address]
        change = asyncio.create_task(bench.put("127.0.0.1:2"))
        await asyncio.sleep(0)
        assert not change.done()
        if not taken:
            handover.keep("it died")
            await change
            assert [kind for kind, _ in bench.told if kind.startswith("takeover")][1:] == ["takeover_failed"]
            return
        await handover.release()
        with pytest.raises(Refused, match="another process has taken over"):
            await change
