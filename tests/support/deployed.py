"""Files of `deploy/` on machines that are made for a test."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.machine import Machine, Service
from tests.support.programs import require
from tests.support.wait import wait_for

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
AHEAD: Final = ("nice", "-n", "-15")
"""For what has to speak up several times a second, or is taken for dead: its turn comes before that of other tests."""


@contextlib.contextmanager
def serving(machine: Machine, lb_yaml: str) -> Iterator[Service]:
    """Run a data plane of a machine, with its file where it belongs; it is ready in the block."""
    machine.put("/etc/lb/lb.yaml", lb_yaml)
    with Service(machine, ["/usr/bin/lb-dataplane", "--config", "/etc/lb/lb.yaml"]) as plane:
        wait_for(machine.path("/run/lb/dataplane-main.sock").exists, "the data plane's socket")
        yield plane


@contextlib.contextmanager
def marking(machine: Machine, *more: str) -> Iterator[Service]:
    """Run what deploy/systemd/lb-announce.service runs, with more arguments."""
    lines = (DEPLOY / "systemd/lb-announce.service").read_text().splitlines()
    for line in lines:
        if line.startswith("ExecStartPre="):
            words = shlex.split(line.partition("=")[2].lstrip("-+"))
            said = machine.try_to(*words)
            if (
                "Unknown device type" in said
            ):  # a kernel without the module: anything that leads nowhere will do
                machine.run(*("bridge" if word == "dummy" else word for word in words))
    starts = [shlex.split(line.partition("=")[2]) for line in lines if line.startswith("ExecStart=")]
    assert len(starts) == 1
    with Service(machine, [*starts[0], *more]) as announce:
        yield announce


def keepalived(machine: Machine, which: str) -> Service:
    """Return keepalived on one of two nodes, `one` or `two`, as deploy/keepalived has it."""
    for file in ("keepalived.conf", "livelb-marked"):
        machine.put(f"/etc/keepalived/{file}", (DEPLOY / "keepalived" / file).read_text())
    machine.path("/etc/keepalived/livelb-marked").chmod(0o755)
    command = [require("keepalived"), "--dont-fork", "--log-console", "--config-id", which]
    return Service(machine, [*AHEAD, *command])
