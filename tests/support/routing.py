"""A router with BIRD, and what announces a node's address to it: ExaBGP, both by the files of `deploy/`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

from tests.support.deployed import AHEAD, DEPLOY
from tests.support.machine import Machine, Service
from tests.support.programs import require
from tests.support.wait import wait_for

ROUTER: Final = "192.0.2.1"
_NODE: Final = "192.0.2.11"
_HOLD: Final = re.compile(r"(hold[ -]time) 3;")
_ANNOUNCE: Final = "announce "
_PATIENT: Final = "announce --timeout 20s --hold 30s "


def adapted(file: str, hold_s: int, address: str = _NODE) -> str:
    """Return a file of `deploy/` with what it says to change, and with more patience: tests keep the cores busy.

    Args:
        file: Below `deploy/`.
        hold_s: After how long of silence a session is over; 3 s in our files.
        address: The node's own.
    """
    text = _HOLD.sub(rf"\1 {hold_s};", (DEPLOY / file).read_text())
    return text.replace(_ANNOUNCE, _PATIENT).replace(_NODE, address)


def bird(router: Machine, hold_s: int) -> Service:
    """Return BIRD on a router, as `deploy/bird/router.conf` has it; see `adapted`."""
    router.put("/etc/bird/bird.conf", adapted("bird/router.conf", hold_s))
    return Service(router, [*AHEAD, require("bird"), "-f"])


def exabgp(node: Machine, address: str, hold_s: int, environment: dict[str, str]) -> Service:
    """Return ExaBGP on a node, as `deploy/exabgp` has it; see `adapted`."""
    node.put("/etc/exabgp/exabgp.conf", adapted("exabgp/exabgp.conf", hold_s, address))
    unit = (DEPLOY / "exabgp/exabgp.service.d/livelb.conf").read_text()
    settings = re.findall(r"^Environment=(.*)", unit, re.MULTILINE)
    command = [
        *AHEAD,
        "env",
        *settings,
        "exabgp_log_level=WARNING",
        require("exabgp"),
        "/etc/exabgp/exabgp.conf",
    ]
    return Service(node, command, environment=environment)


def next_hops(router: Machine, prefix: str) -> list[str]:
    """Return the next hops of a prefix in a router's kernel, in the order in which they divide the hashes."""
    routes = json.loads(router.run("ip", "-json", "route", "show", prefix) or "[]")
    hops = [hop for route in routes for hop in route.get("nexthops", [route])]
    return [hop["gateway"] for hop in hops if "gateway" in hop]


def wait_next_hops(router: Machine, prefix: str, hops: Sequence[str]) -> None:
    """Wait until a router's kernel has exactly these next hops for a prefix."""
    wait_for(
        lambda: sorted(next_hops(router, prefix)) == sorted(hops),
        f"{prefix} to go by {', '.join(hops) or 'nobody'}",
        deadline_s=120,
        every_s=0.05,
    )
