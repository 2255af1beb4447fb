"""What answers come to: one selection's backends, on virtual time and without a watch."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.core.guard import GuardPolicy
from controlplane.core.instances import Classified, Condition, Instance
from controlplane.core.track import Trust
from controlplane.core.weights import MAX_WEIGHT
from controlplane.discovery.consul.pool import Pool, backend_of, only_backends, packed, unpacked
from controlplane.discovery.consul.query import Query, Selection
from controlplane.discovery.consul.settings import ConsulError
from controlplane.discovery.consul.watch import Runtime
from tests.support.fakeconsul import entry

LEADER = Trust(confirmed=True)
SEEN = Instance("n1/web-1", "10.0.0.1:80", 2, 1)


class Play:
    """A pool on virtual time."""

    def __init__(self, *datacenters, **policy):
        self.now = 1000.0
        selection = Selection(Query(service="web"), datacenters or ("",))
        runtime = Runtime(clock=lambda: self.now, wall=lambda: 5000.0 + self.now, random=lambda: 0.0)
        self.pool = Pool(selection, GuardPolicy(**policy), lambda *_: False, runtime)

    def see(self, *names, datacenter=0, **kwargs):
        """Take an answer with these instances; returns the ids of the backends."""
        entries = [entry(name, address=f"10.0.{datacenter}.{ord(name[-1])}", **kwargs) for name in names]
        self.pool.receive(datacenter, entries, LEADER)
        return self.wait(0.0)

    def wait(self, seconds):
        """Let time pass."""
        self.now += seconds
        self.pool.advance()
        return self.ids

    @property
    def ids(self):
        """The ids of the backends; None before the first."""
        return None if self.pool.backends is None else [each.id for each in self.pool.backends]


def test_backends_are_sorted_and_news_are_told():
    """`advance` tells whether anything has changed."""
    play = Play()
    assert play.see("b", "a") == ["n1/a", "n1/b"]
    assert not play.pool.advance()
    play.pool.receive(0, [entry("c", address="10.9.9.9")], LEADER)
    assert play.pool.advance()
    assert play.ids == ["n1/a", "n1/b", "n1/c"]  # what is gone waits for the burst to end


def test_what_is_held_is_shown_and_released():
    """`shown` tells what `release` would do, and does nothing."""
    play = Play()
    play.see("a", "b", "c")
    play.see("a")
    assert play.wait(1.0) == ["n1/a", "n1/b", "n1/c"]
    assert [each.id for each in play.pool.shown()] == ["n1/a"]
    assert play.ids == ["n1/a", "n1/b", "n1/c"]
    play.pool.release()
    assert play.ids == ["n1/a"]


def test_another_pool_recalls_all_that_the_guard_knows():
    """High waters and holds too; the policy and the replies are its own, and what it does then changes nothing here."""
    play, names = Play(hold_s=3600.0), "abcdefghij"
    play.see(*names)
    play.see(*names[:6])
    play.wait(1.0)
    play.see(*names[:4])
    assert len(play.wait(1.0)) == 6  # four are more than half of six, and not of ten
    later, lax = Play(hold_s=1800.0), Play(max_shrink=0.9, hold_s=1.0)
    for each in (later, lax):
        each.now = play.now
        each.pool.recall(play.pool)
        assert each.ids == play.ids
        each.see(*names[:4])
        each.wait(2.0)
        each.see(*names[:4])
    assert (len(later.ids), len(lax.ids)) == (6, 4)
    held, before = later.pool.tracks[0].guard.held, play.pool.tracks[0].guard.held
    assert (held.since, held.until) == (before.since, before.until - 1800.0)
    assert len(play.wait(0.0)) == 6


def test_maintenance_drains():
    """It is a state of the backend, not its absence."""
    play = Play()
    row = entry("a")
    row["Checks"].append({"CheckID": "_node_maintenance", "Status": "critical"})
    play.pool.receive(0, [row], LEADER)
    play.wait(0.0)
    assert [each.state for each in play.pool.backends] == ["drain"]


def test_the_next_datacenter_serves_for_an_empty_one():
    """After its hold; and ids say where an instance is."""
    play = Play("dc1", "dc2")
    play.see("a")
    assert play.see("b", datacenter=1) == ["dc1/n1/a"]
    play.see()
    play.wait(20.0)
    assert play.see() == ["dc2/n1/b"]
    assert play.pool.chosen == 1


def test_what_was_saved_comes_back():
    """In another life, until Consul answers; what is no instance is left out."""
    play = Play()
    play.see("a", "b")
    saved = play.pool.saved()
    saved["datacenters"][""].append({"id": "broken"})
    later = Play()
    later.pool.restore(saved)
    assert later.wait(0.0) == ["n1/a", "n1/b"]
    assert later.pool.saved_at == saved["at"]
    later.see("a", "b")
    assert later.pool.saved_at is None


def test_that_there_was_none_comes_back_as_well():
    """Where a set may be empty, emptiness is known in another life, too; rows that cannot be read are no emptiness."""
    play = Play(allow_empty=True)
    assert play.see() == []
    saved = play.pool.saved()
    later = Play(allow_empty=True)
    later.pool.restore(saved)
    assert later.wait(0.0) == []
    saved["datacenters"][""] = [{"id": "broken"}]
    broken = Play(allow_empty=True)
    broken.pool.restore(saved)
    assert broken.wait(0.0) is None


@pytest.mark.parametrize("saved", [{}, {"at": "x", "datacenters": {}}, {"at": 1.0, "datacenters": {"": 3}}])
def test_what_cannot_be_restored_is_nothing(saved):
    """A state file is input like any other."""
    play = Play()
    play.pool.restore(saved)
    assert play.wait(0.0) is None


def test_settled():
    """There is nothing to wait for once the guard has weighed an answer, or only an operator can help."""
    play = Play()
    watch = SimpleNamespace(health=SimpleNamespace(error=None))
    play.pool.watches = (watch,)
    assert not play.pool.settled()
    watch.health.error = ConsulError("timeout", "x")
    assert not play.pool.settled()
    watch.health.error = ConsulError("denied", "x")
    assert play.pool.settled()
    watch.health.error = None
    play.see("a")
    assert play.pool.settled()


@pytest.mark.parametrize(
    ("condition", "state"), [(Condition.PASSING, "enabled"), (Condition.MAINTENANCE, "drain")]
)
def test_maintenance_is_a_drain(condition: Condition, state: str) -> None:
    """Whoever is there takes clients otherwise; the weight is the one that fits its neighbours'."""
    made = backend_of(replace(SEEN, condition=condition), 3)
    assert (made.state, made.weight, made.address) == (state, 3, "10.0.0.1:80")


def test_what_a_snapshot_has_no_place_for_is_rejected_with_its_reason() -> None:
    """The others stay, and what was rejected before."""
    wrong = replace(SEEN, id="b", address="10.0.0.1:0")
    left = only_backends(Classified((SEEN, wrong), ()))
    assert left.instances == (SEEN,)
    (remark,) = left.rejected
    assert remark.id == "b"
    assert "port" in remark.why


def test_a_large_weight_is_no_reason() -> None:
    """It is divided later."""
    heavy = replace(SEEN, weight=MAX_WEIGHT * 100)
    assert only_backends(Classified((heavy,), ())).instances == (heavy,)


def test_what_was_kept_comes_back() -> None:
    """Through JSON, whole."""
    assert unpacked(json.loads(json.dumps(packed(SEEN)))) == SEEN


@pytest.mark.parametrize(
    "change", [{"condition": "asleep"}, {"address": "x"}, {"weight": "heavy"}, {"id": None}]
)
def test_a_state_file_is_input_like_any_other(change: dict[str, Any]) -> None:
    """What is none, or lacks something, is left out; what is more than known is ignored."""
    assert unpacked({**packed(SEEN), **change}) is None
    assert unpacked({**packed(SEEN), "later": 1}) == SEEN
    for name in packed(SEEN):
        assert unpacked({key: value for key, value in packed(SEEN).items() if key != name}) is None
    assert unpacked("x") is None
