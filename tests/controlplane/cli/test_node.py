"""The commands about the node as a whole: what they print, and how they exit."""

from __future__ import annotations

import json

import pytest

from controlplane.cli.node import node
from controlplane.core.drain import Phase, Turn
from controlplane.errors import HeldBackError, LateError
from controlplane.operations.drain_file import DrainFile
from controlplane.operations.node_drain import LateDrainError
from tests.controlplane.cli.given import Given, run

WEB = {"active": 0, "listeners": [{"accepted": 1}], "totals": {"closed": {}}}
IDLE = {"services": {"web": WEB}}
BUSY = {"services": {"web": {**WEB, "active": 2}}}
QUICK = ("--settle", "0s", "--quiet", "0s")


@pytest.fixture
def record(tmp_path):
    """Where it is written down."""
    return DrainFile(tmp_path)


def test_a_node_that_serves(record):
    """One line."""
    result = run(node, Given(a={}, record=record))
    assert (result.exit_code, result.output) == (0, "ready\n")


def test_a_node_that_is_taken_out(record):
    """Phase, whose word, since when, what goes on and what goes back; then each reason. The same as JSON."""
    record.turn(Turn.LOWER, "ann")
    given = Given(a={}, record=record)
    lines = run(node, given).output.splitlines()
    assert lines[0] == "ready; other nodes are preferred"
    assert lines[1].startswith("lowered by ann since 20")
    assert "to go on: lb-control node drain --wait" in lines[1]
    assert "lb-control node enable" in lines[1]
    drain = record.turn(Turn.WITHDRAW, "ann")
    lines = run(node, given).output.splitlines()
    assert lines[0] == "not ready"
    assert lines[2].startswith("withdrawn: by ann since ")
    told = json.loads(run(node, given, "--json").output)
    assert told.pop("reason").startswith("withdrawn: by ann")
    assert told == {
        "ready": False,
        "preferred": False,
        "drain": {"phase": "withdrawn", "by": "ann", "since": drain.since},
    }


def test_draining_to_the_end(record):
    """0, and the last words are what an operator waits for."""
    result = run(node, Given(a=IDLE, record=record), "drain", "--wait", *QUICK)
    assert result.exit_code == 0
    assert result.output.endswith(
        "drained: this node may be switched off\nto take clients again: lb-control node enable\n"
    )
    assert record.read().phase is Phase.DRAINED
    assert "it may be switched off" in run(node, Given(a={}, record=record)).output


def test_draining_without_waiting(record):
    """0 once it is withdrawn, with what goes on."""
    result = run(node, Given(a=BUSY, record=record), "drain", "--settle", "0s")
    assert result.exit_code == 0
    assert "to go on: lb-control node drain --wait" in result.output
    assert record.read().phase is Phase.WITHDRAWN


def test_a_drain_that_is_late(record):
    """An error of ours, so 1; it stays where it is."""
    given = Given(a=BUSY, record=record)
    with pytest.raises(
        LateDrainError, match="still draining: still connected: 2 connections: web 2"
    ) as error:
        run(node, given, "drain", "--wait", *QUICK, "--timeout", "0s")
    assert error.value.exit_code == 1
    assert ("PUT", "/v1/drain", 5.0) in given.asked
    assert record.read().phase is Phase.DRAINING
    assert HeldBackError.exit_code == 1


def test_enabling(record):
    """0; or 1 with who does not answer, and enabled all the same."""
    record.turn(Turn.LOWER, "ann")
    result = run(node, Given(a={}, record=record), "enable")
    assert result.exit_code == 0
    assert result.output.startswith("enabled: ")
    record.turn(Turn.LOWER, "ann")
    result = run(node, Given(a=LateError("a", 5), record=record), "enable")
    assert result.exit_code == 1
    assert "a: its connections keep their last deadline: no answer within 5 s" in result.stderr
    assert record.read().phase is Phase.ENABLED
