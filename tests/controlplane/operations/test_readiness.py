"""Data planes and the record, asked by a command and by the daemon: the same verdict."""

from __future__ import annotations

from controlplane.core.drain import Turn
from controlplane.errors import LateError, PlaceError, RefusedError
from controlplane.operations.drain_file import DrainFile
from controlplane.operations.readiness import asked, of_fleet
from tests.controlplane.cli.given import Given
from tests.controlplane.fakes import ReadyFleet

REFUSED = RefusedError("b", 503, {"message": "not accepting"})


def test_a_command_asks_everybody(tmp_path):
    """Each is asked once, with the time that there is; who is not ready is named with what it says."""
    record = DrainFile(tmp_path)
    given = Given(a={}, b={})
    assert asked(given.clients, record, 1.5).ready
    assert given.asked == [("GET", "/readyz", 1.5)] * 2
    verdict = asked(Given(a={}, b=REFUSED, c=LateError("c", 2)).clients, record, 1.0)
    assert verdict.reason == "data_plane: b: not accepting; data_plane: c: no answer within 2 s"
    assert verdict.planes["a"] is None


def test_nobody_to_ask(tmp_path):
    """Where was looked is said."""

    def nobody():
        raise PlaceError("looked for /run/lb")

    assert "no_data_plane: looked for /run/lb" in asked(nobody, DrainFile(tmp_path), 1.0).reason


def test_the_record_counts(tmp_path):
    """What a command has written is seen at the next look; a damaged record is a reason."""
    record = DrainFile(tmp_path)
    record.turn(Turn.LOWER, "ann")
    lowered = asked(Given(a={}).clients, record, 1.0)
    assert (lowered.ready, lowered.preferred) == (True, False)
    record.turn(Turn.WITHDRAW, "ann")
    assert asked(Given(a={}).clients, record, 1.0).reason.startswith("withdrawn: by ann")
    record.path.write_text("{")
    assert "unknown: " in asked(Given(a={}).clients, record, 1.0).reason


async def test_the_daemon_asks_its_fleet(tmp_path):
    """The same verdict; a data plane that cannot be reached has that against it."""
    record, fleet = DrainFile(tmp_path), ReadyFleet()
    assert (await of_fleet(fleet, record, 1.0)).ready
    fleet.is_ready = False
    assert (await of_fleet(fleet, record, 1.0)).reason == "data_plane: a: not yet"
    fleet.error = LateError("a", 2)
    assert (await of_fleet(fleet, record, 1.0)).reason == "data_plane: a: no answer within 2 s"
    fleet.error, fleet.is_ready = None, True
    record.turn(Turn.LOWER, "ann")
    record.turn(Turn.WITHDRAW, "ann")
    assert (await of_fleet(fleet, record, 1.0)).reason.startswith("withdrawn: by ann")
