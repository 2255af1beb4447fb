"""A drain waits for what it says, goes on where it was, and ends in time; on virtual time, with data planes that a test moves."""

from __future__ import annotations

import json

import pytest

from controlplane.core.drain import Phase, Turn
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import GoneError, HeldBackError, LateError, PlaceError, RefusedError
from controlplane.operations.drain_file import DrainFile
from controlplane.operations.node_drain import Draining, LateDrainError, Node, Pace, enable


class Plane:
    """A data plane: `active` connections of a service and clients that have come, which a test changes as time goes."""

    def __init__(self, name="a", active=0, *, former=False):
        prefix = "draining" if former else "dataplane"
        self.endpoint = Endpoint(name, f"/nowhere/{prefix}-{name}.sock")
        self.active, self.came, self.cut = active, 0, 0
        self.error = None
        self.orders = []

    def ask(self, call, *, timeout_s):
        """Answer `/v1/status`, and take orders."""
        if self.error is not None:
            raise self.error
        if call.method == "PUT":
            assert call.target == "/v1/drain"
            self.orders.append(json.loads(call.body)["draining"])
            return {}
        listeners = [{"accepted": self.came}]
        web = {
            "active": self.active,
            "listeners": listeners,
            "totals": {"closed": {"drain_timeout": self.cut}},
        }
        return {"services": {"web": web}}


class Site:
    """A node on virtual time: `at` says what happens when."""

    def __init__(self, tmp_path, *planes, former=()):
        self.record = DrainFile(tmp_path)
        self.planes, self.former = planes, former
        self.now, self.said, self.events = 0.0, [], []

    def at(self, second, what):
        """Have something happen."""
        self.events.append((second, what))

    def node(self):
        """Return the node."""

        def find():
            if not self.planes:
                raise PlaceError("none")
            return self.planes

        return Node(find, lambda: self.former)

    def sleep(self, seconds):
        """Let time go on."""
        self.now += seconds
        due = [each for each in self.events if each[0] <= self.now]
        self.events = [each for each in self.events if each[0] > self.now]
        for _, what in due:
            what()

    def drain(self, *, wait=True, **pace):
        """Give the command."""
        draining = Draining(
            self.node(), self.record, "ann", Pace(**pace), self.said.append, lambda: self.now, self.sleep
        )
        return draining.run(wait=wait)

    def told(self, text):
        """Tell whether it has said so."""
        return any(text in line for line in self.said)


def set_to(plane, **values):
    """Return what sets attributes of a plane."""
    return lambda: [setattr(plane, name, value) for name, value in values.items()]


def test_the_whole_way(tmp_path):
    """Lowered for as long as was said, withdrawn until no client comes, draining until none is left."""
    plane = Plane(active=3)
    site = Site(tmp_path, plane)
    phases = {}
    for second in (1, 4, 7, 14, 20):
        site.at(second, lambda second=second: phases.update({second: site.record.read().phase}))
    site.at(6, set_to(plane, came=2))
    site.at(18, set_to(plane, active=0))
    assert site.drain(settle_s=3, quiet_s=5).phase is Phase.DRAINED
    assert phases == {1: "lowered", 4: "withdrawn", 7: "withdrawn", 14: "draining"}
    assert 18 <= site.now < 19
    assert site.record.read().phase is Phase.DRAINED
    assert site.told("draining: 3 connections: web 3")
    assert not site.told("cut")


def test_without_waiting_it_ends_withdrawn(tmp_path):
    """Nobody's connection has got a deadline."""
    plane = Plane(active=3)
    site = Site(tmp_path, plane)
    assert site.drain(wait=False, settle_s=3).phase is Phase.WITHDRAWN
    assert site.now == 3
    assert plane.orders == []


@pytest.mark.parametrize(
    "turns", [(), (Turn.LOWER,), (Turn.LOWER, Turn.WITHDRAW), (Turn.LOWER, Turn.WITHDRAW, Turn.DRAIN)]
)
def test_a_command_that_was_interrupted_goes_on(tmp_path, turns):
    """Wherever it was; what is behind it is not done again."""
    plane = Plane()
    site = Site(tmp_path, plane)
    for turn in turns:
        site.record.turn(turn, "bob")
    assert site.drain(settle_s=3, quiet_s=5).phase is Phase.DRAINED
    assert site.told("lowered:") is (len(turns) < 2)
    assert site.told("withdrawn:") is (len(turns) < 3)
    before = site.now
    assert site.drain().phase is Phase.DRAINED
    assert site.now == before


def test_clients_keep_coming(tmp_path):
    """It never becomes quiet; at the end of its time it says where they come to, what goes on, and what goes back."""
    plane = Plane(active=1)
    site = Site(tmp_path, plane)
    for second in range(1, 100):
        site.at(second, set_to(plane, came=second))
    with pytest.raises(LateDrainError) as error:
        site.drain(settle_s=0, quiet_s=5, timeout_s=20)
    assert "not drained within 20 s, and still withdrawn" in str(error.value)
    assert "web 20" in str(error.value)
    assert "lb-control node drain --wait" in str(error.value)
    assert "lb-control node enable" in str(error.value)
    assert site.told("clients came since it was withdrawn: web 5")
    assert plane.orders == []
    assert site.record.read().phase is Phase.WITHDRAWN


def test_connections_are_ordered_to_end_again_and_again(tmp_path):
    """Once a second: to those who came late, and after a change of what runs, which takes it back."""
    plane = Plane(active=2)
    site = Site(tmp_path, plane)
    site.at(4.5, set_to(plane, active=0, cut=1))
    site.drain(settle_s=0, quiet_s=0)
    assert plane.orders == [True] * 5
    assert site.told("cut at their drain timeout: web 1")


def test_somebody_enables_it_meanwhile(tmp_path):
    """The command that waits is told who, at its next look, and changes nothing any more; in each phase."""
    for number, second in enumerate((1, 5, 12)):
        plane = Plane(active=1)
        site = Site(tmp_path / str(number), plane)
        site.at(second, lambda site=site: enable(site.node(), site.record, "bob"))
        with pytest.raises(HeldBackError, match="meanwhile bob has made this node enabled"):
            site.drain(settle_s=3, quiet_s=5)
        assert site.now < second + 3
        assert site.record.read().phase is Phase.ENABLED


def test_nothing_runs_here(tmp_path):
    """Without a data plane nobody can come, and nothing is left."""
    site = Site(tmp_path)
    assert site.drain(settle_s=0, quiet_s=2).phase is Phase.DRAINED
    assert site.told("draining: no connection is in place")


def test_a_data_plane_that_does_not_answer(tmp_path):
    """Nothing is concluded from its silence, which is said; of one whose process has ended nothing is left."""
    silent, gone = Plane("a"), Plane("b")
    silent.error, gone.error = LateError("a", 5), GoneError("b", "/x", "2026-01-01T00:00:00Z")
    site = Site(tmp_path, silent, gone)
    with pytest.raises(LateDrainError, match=r"a does not answer: no answer within 5 s") as error:
        site.drain(settle_s=0, quiet_s=1, timeout_s=10)
    assert "b does not" not in str(error.value)
    assert site.record.read().phase is Phase.WITHDRAWN
    silent.error = None
    assert site.drain(settle_s=0, quiet_s=1).phase is Phase.DRAINED


def test_a_data_plane_that_falls_silent_while_it_drains(tmp_path):
    """What it had is not taken for gone."""
    plane = Plane("a", active=1)
    site = Site(tmp_path, plane)
    site.at(3, set_to(plane, error=LateError("a", 5)))
    with pytest.raises(LateDrainError, match="still draining: a does not answer"):
        site.drain(settle_s=0, quiet_s=1, timeout_s=10)


def test_a_former_process_is_waited_for(tmp_path):
    """It finishes what it has; its connections count, by its name, and it gets no orders."""
    former = Plane("draining-a.7", active=2, former=True)
    site = Site(tmp_path, Plane("a"), former=(former,))
    site.at(9, set_to(former, active=0))
    site.drain(settle_s=0, quiet_s=1)
    assert site.now >= 9
    assert site.told("draining-a.7 2")
    assert former.orders == []


def test_one_of_an_older_version(tmp_path):
    """It cannot be told to end its connections: that is said once, and they are waited for."""
    plane = Plane(active=1)
    site = Site(tmp_path, plane)
    ask = plane.ask

    def older(call, *, timeout_s):
        if call.method == "PUT":
            raise RefusedError("a", 404, {"message": "no such path"})
        return ask(call, timeout_s=timeout_s)

    plane.ask = older
    site.at(4, set_to(plane, active=0))
    assert site.drain(settle_s=0, quiet_s=0).phase is Phase.DRAINED
    assert sum("end only by themselves: a: refused: no such path" in line for line in site.said) == 1
    assert enable(site.node(), site.record, "ann")[1] == []


def test_enabling(tmp_path):
    """Deadlines are taken back first; whoever does not answer is named, and the node is enabled all the same."""
    plane, late = Plane("a"), Plane("b")
    late.error = LateError("b", 5)
    site = Site(tmp_path, plane, late)
    site.record.turn(Turn.LOWER, "ann")
    drain, warnings = enable(site.node(), site.record, "bob")
    assert (drain.phase, drain.by, plane.orders) == (Phase.ENABLED, "bob", [False])
    assert warnings == ["b: its connections keep their last deadline: no answer within 5 s"]
