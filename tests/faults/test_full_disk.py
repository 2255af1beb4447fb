"""A full log disk: said, counted, without half lines, and over as soon as there is room."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

pytestmark = [
    pytest.mark.needs("unshare", "mount"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount"),
]

QUIET = {"health": {"active": {"type": "none"}}, "pool": {"mode": "off"}}
SIZE = 65_536


class SmallDisk(DataPlane):
    """A data plane whose log disk has 64 KiB, most of them taken."""

    def __init__(self, *arguments):
        mount = f'mkdir -p disk && mount -t tmpfs -o size={SIZE} none disk && exec "$@"'
        super().__init__([*arguments, "--access-log", "disk/access.log"])
        self.argv = ["unshare", "--mount", "sh", "-c", mount, "sh", *self.argv]

    @property
    def disk(self):
        """The disk, which only its own processes have mounted."""
        return Path(f"/proc/{self.pid}/root{self.directory}/disk")


def lines(text):
    """Return what a log holds; every line has to be whole."""
    assert text.endswith("\n") or not text
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_access_log(workers):
    """Clients are served; each line is in the file or counted; the end of it is told, too."""
    with LineServer("one") as server, HeldPort() as port, SmallDisk("--workers", workers) as plane:
        plane.put_snapshot({"web": {"listen": port.address, "backends": [server.address], **QUIET}})
        (plane.disk / "ballast").write_bytes(b"x" * (SIZE - 8_192))
        asked = 0

        def visit(times):
            nonlocal asked
            for _ in range(times):
                ask(port.address)
                asked += 1

        def counted():
            return plane.metrics().value("lb_log_lines_dropped_total")

        def lost():
            visit(20)
            return counted() >= 20

        wait_for(lost, "lines to be lost")
        wait_for(lambda: "log_lines_lost" in plane.output, "that to be told")
        found = lambda: lines((plane.disk / "access.log").read_text())  # noqa: E731 - a question
        wait_for(lambda: len(found()) + counted() == asked, "each line to be there or counted")
        (plane.disk / "ballast").unlink()

        def again():
            visit(1)  # the room there is has to last for the seconds that it takes
            return "log_written_again" in plane.output

        wait_for(again, "the log to be written again", every_s=0.3, deadline_s=40)
        told = [json.loads(line) for line in plane.output.splitlines() if '"event": "log_' in line]
        first = next(event for event in told if event["event"] == "log_lines_lost")
        assert (first["log"], first["path"], first["cause"], first["level"]) == (
            "access log",
            "disk/access.log",
            "No space left on device",
            "warning",
        )
        wait_for(lambda: len(found()) + counted() == asked, "each line to be there or counted")
