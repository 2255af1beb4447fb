"""`make soak`, part two: workers are killed, restarted and handed over, in full counts.

Clients come at a fixed rate whatever happens; each connects, sends, reads and closes, and no step of it may take more than
two seconds. Only a killed worker excuses failures: as many as may have been inside it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from tests.support.backends import LineServer
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort

STALL_S: Final = 2.0
FLOWS: Final = 20
INSIDE: Final = 8
"""Clients that one worker may serve at the same moment, at the rates that two cores bear."""
KILL_EVERY_S: Final = 4.0
MANY: Final = 300


class Site:
    """Two workers, and their successors."""

    balanced = False
    """Whether they hand clients over."""

    def __init__(self, stack: ExitStack, ports: int = 1) -> None:
        self._stack = stack
        self.backends = [stack.enter_context(LineServer(f"b{number}")) for number in range(4)]
        self.ports = [stack.enter_context(HeldPort()) for _ in range(ports)]
        self.more = [stack.enter_context(HeldPort()) for _ in range(3)]
        self.former: list[DataPlane] = []
        self.plane = stack.enter_context(DataPlane(["--workers", "2"]))
        self._generation = 0
        self.put(0)

    def put(self, more: int) -> None:
        """Listen on every port, and on some more."""
        self._generation += 1
        service: dict[str, Any] = {
            "listen": [port.address for port in [*self.ports, *self.more[:more]]],
            "backends": [backend.address for backend in self.backends],
            "balance_workers": self.balanced,
        }
        self.plane.put_snapshot({"web": service}, generation=self._generation)

    def pids(self) -> list[int]:
        """Return the workers' process ids."""
        return [worker["pid"] for worker in self.plane.status()["workers"]]

    def kill(self) -> None:
        """Kill a worker and wait for its successor."""
        victim = random.choice(self.pids())
        os.kill(victim, signal.SIGKILL)
        self.plane.wait_status(
            lambda status: (
                len(status["workers"]) == 2  # noqa: PLR2004 - the two that there should be
                and victim not in [worker["pid"] for worker in status["workers"]]
            )
        )

    def restart(self) -> None:
        """Replace all workers."""
        status, body = self.plane.request("POST", "/v1/restart")
        assert status == 200, body  # noqa: S101, PLR2004 - a soak checks

    def take_over(self) -> None:
        """Replace everything."""
        successor = DataPlane(["--workers", "2", "--takeover"], runtime_dir=self.plane.runtime_dir)
        self._stack.callback(successor.close)
        self.former.append(self.plane)
        self.plane = successor.start()

    def listeners(self) -> None:
        """Add or remove some listeners."""
        self.put(random.randrange(4))


def run(name: str, step: Callable[[Site], None], times: int, *, rate: float, **how: float) -> bool:
    """Do one thing many times under load; return whether nobody noticed."""
    ports, flows, allowed = int(how.get("ports", 1)), int(how.get("flows", FLOWS)), int(how.get("allowed", 0))
    with ExitStack() as stack:
        site = Site(stack, ports)
        load = Load(site.ports[-1].address, rate=rate, flows=flows, timeout_s=STALL_S)
        with load:
            load.wait_progress()
            for _ in range(times):
                begin = time.monotonic()
                step(site)
                time.sleep(max(0.0, begin + how.get("every_s", 0.0) - time.monotonic()))
            load.wait_progress()
        report = load.report
        codes = [former.wait(STALL_S * 10) for former in site.former]
    inside = report.failures["short"] + report.failures["reset"]
    fine = report.failed == inside <= allowed and not any(codes)
    print(
        f"{'ok  ' if fine else 'FAIL'} {times} x {name}: {report.succeeded} clients, {dict(report.failures)}",
        flush=True,
    )
    if not fine:
        print("\n".join([*report.details, f"exit codes {codes}"]))
    return fine


def main() -> None:
    """Run all of it; exit with 1 if anybody noticed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=300.0, help="clients a second (default %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts (default %(default)s)")
    parser.add_argument(
        "--balance-workers", action="store_true", help="have workers hand clients over to each other"
    )
    options = parser.parse_args()
    Site.balanced = options.balance_workers

    def of(count: int) -> int:
        return max(1, round(count * float(options.share)))

    rate, kills = options.rate, of(15)
    results = [
        run(
            "a killed worker",
            Site.kill,
            kills,
            rate=rate,
            flows=0,
            every_s=KILL_EVERY_S,
            allowed=kills * INSIDE,
        ),
        run("a rolling restart", Site.restart, of(20), rate=rate),
        run("a takeover", Site.take_over, of(5), rate=rate),
        run("listeners that come and go", Site.listeners, of(40), rate=rate),
        run(f"a takeover of {MANY} listeners", Site.take_over, of(3), rate=rate / 3, ports=MANY),
    ]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
