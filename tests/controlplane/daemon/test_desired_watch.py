"""The watched file in the daemon: a content that is wrong waits for another; one that something is in the way of is tried again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controlplane.core.backoff import Backoff
from controlplane.daemon.desired_watch import WatchedFile
from controlplane.operations.options import ApplyOptions, Origin
from schemas.variables import Known, Variables
from tests.controlplane.fakes import FakeDataPlane
from tests.controlplane.operations.test_controller import daemon, document, proposal, until

WORTH_A_TRY = {"listen": "127.0.0.1:4001", "backends": ["10.0.0.9:1"]}


@dataclass
class Hand:
    """A home whose contents a test hands on itself."""

    name: str = "file lb.yaml"
    word: str = "file"
    place: str = "lb.yaml"
    folder: Path = Path()
    taking: list[Any] = field(default_factory=list)

    def force(self):
        """Nothing is read here."""

    def status(self):
        """Nothing is to be told."""
        return {}

    async def run(self, on_content, on_error):
        """Remember whom to hand it to, and watch nothing."""
        self.taking = [on_content, on_error]
        await asyncio.Event().wait()

    async def write(self, value, *note):
        """Hand a content on."""
        await until(lambda: self.taking)
        await self.taking[0](json.dumps(value).encode(), False, *note)


@contextlib.asynccontextmanager
async def watched(tmp_path, plane, look=lambda *_: Variables()):
    """Run a watched file over one data plane."""
    hand, log = Hand(), []
    backoff = Backoff(base_s=0.001, cap_s=0.004)
    async with daemon(tmp_path, [plane], look=look) as controller:
        file = WatchedFile(hand, controller, log.append, backoff)
        task = asyncio.create_task(file.run())
        try:
            yield hand, file, controller, log
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def in_use():
    """Return a data plane that cannot have an address, for now."""
    plane = FakeDataPlane()
    plane.refuses, plane.refusal_status = "extra", 503
    return plane


async def test_refused_for_another_reason_than_itself_is_tried_again(tmp_path):
    """A port that was taken and is free is had without a new content; one line of the log tells each of both."""
    plane = in_use()
    async with watched(tmp_path, plane) as (hand, file, _, log):
        await hand.write(document(extra=WORTH_A_TRY))
        assert "no such thing here" in file.config_error["message"]
        assert file.config_error["message"].endswith("; it is tried again by itself, at least every 0.004 s")
        since, dry_runs = file.config_error["since"], len(plane.asked)
        await until(lambda: len(plane.asked) > dry_runs + 3)
        assert file.config_error["since"] == since
        plane.refuses = None
        await until(lambda: "extra" in plane.services)
        await until(lambda: file.config_error is None)
        assert (len(log), file.source()["state"]) == (2, "ok"), log


async def test_what_the_node_does_not_know_of_itself_yet_is_tried_again(tmp_path):
    """Its agent starts later than we do: nobody has to touch the file."""
    plane, told = FakeDataPlane(), [Variables(why="the agent is away", passing=True)]
    async with watched(tmp_path, plane, lambda *_: told[-1]) as (hand, file, _, _log):
        await hand.write(document(extra={"listen": "${NODE_IP}:4001", "backends": []}))
        assert (
            "services.extra.listen: has ${NODE_IP}, which is not known: the agent is away; it is tried again"
            in file.config_error["message"]
        )
        told.append(Variables({"NODE_IP": Known("10.1.0.1", "the agent")}))
        await until(lambda: "extra" in plane.services)
        assert plane.services["extra"]["listen"] == ["10.1.0.1:4001"]
        told.append(Variables(why="nobody told"))
        await hand.write(document(other={"listen": "${NODE_X}:4001", "backends": []}))
        assert "tried again" not in file.config_error["message"]


async def test_wrong_content_waits_for_another(tmp_path):
    """Nothing that happens elsewhere makes it right."""
    async with watched(tmp_path, FakeDataPlane()) as (hand, file, controller, _):
        await hand.write({"version": 1})
        assert file.config_error["details"]
        assert "tried again" not in file.config_error["message"]
        await hand.write(document(weight=0, more=WORTH_A_TRY))
        assert (file.config_error, set(controller.accepted.state.services)) == (None, {"web", "more"})


async def test_newer_content_takes_the_place_of_the_one_that_waits(tmp_path):
    """What was refused is not taken any more once the file says something else."""
    plane = in_use()
    async with watched(tmp_path, plane) as (hand, file, controller, _):
        await hand.write(document(extra=WORTH_A_TRY))
        await hand.write(document(weight=3))
        assert (file.config_error, set(controller.accepted.state.services)) == (None, {"web"})
        plane.refuses = None
        asked = len(plane.asked)
        await until(lambda: len(plane.asked) > asked + 10)
        assert set(plane.services) == {"web"}


async def test_what_was_applied_meanwhile_is_the_newer_word(tmp_path):
    """It holds until the file changes, and the file's older content is not tried again over it."""
    plane = in_use()
    async with watched(tmp_path, plane) as (hand, file, controller, _):
        await hand.write(document())
        await hand.write(document(extra=WORTH_A_TRY))
        await controller.apply(proposal(7), ApplyOptions(timeout_s=5.0), Origin("op", "apply"))
        await until(lambda: "or at SIGHUP" in file.config_error["message"])
        plane.refuses = None
        asked = len(plane.asked)
        await until(lambda: len(plane.asked) > asked + 10)
        assert controller.accepted.state.applied_by == "op"
        assert plane.services["web"]["backends"][0]["weight"] == 7


async def test_where_a_content_comes_from_is_in_the_history(tmp_path):
    """A home may say more than its name; also of a content that is taken only at another try."""
    plane = in_use()
    async with watched(tmp_path, plane) as (hand, _, controller, _):
        await hand.write(document())
        await hand.write(document(extra=WORTH_A_TRY), "canary c1 of ann")
        plane.refuses = None
        await until(lambda: "extra" in plane.services)
        history = (await controller.accepted.history())["history"]
        assert [each["by"] for each in history] == ["file lb.yaml", "file lb.yaml, canary c1 of ann"]
