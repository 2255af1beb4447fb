"""`make soak`: changes and faults under load, for as long as one likes; nothing may be lost, nothing may grow.

Rounds of half a minute: short clients and long flows run through a data plane while a change comes
every fraction of a second: weights, drains, backends and services that come and go, backends that refuse, workers that
are replaced. None of them excuses a single failed client. Between rounds the data plane is idle, and what it holds then
(memory, descriptors, processes) is compared with the first round's.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.backends import LineServer
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

BACKENDS: Final = 4
ROUND_S: Final = 30.0
RATE: Final = 100.0
FLOWS: Final = 20
SETTLE_S: Final = 60.0
"""How long the data plane has to become idle after a round."""
MEMORY_GROWTH: Final = 1.3
"""More than this times the first round's memory is a leak; less is the allocator."""
SPARE_DESCRIPTORS: Final = 16
PAGE_KIB: Final = 4


@dataclass(frozen=True)
class Holding:
    """What all processes of a data plane hold together."""

    processes: int
    descriptors: int
    memory_kib: int


class Soak:
    """The changes, and what must be true whatever they are.

    Args:
        seed: Of the random choices.
        workers: Of the data plane.
        stack: Ends what is started here.
    """

    def __init__(self, seed: int, workers: int, stack: ExitStack) -> None:
        self._random = random.Random(seed)
        self._stack = stack
        self.backends = [stack.enter_context(LineServer(f"b{i}")) for i in range(BACKENDS)]
        self.listener = stack.enter_context(HeldPort())
        self._spare = stack.enter_context(HeldPort())
        self._wanted: dict[str, dict[str, Any]] = {b.name: self._entry(b) for b in self.backends}
        self._refusing: LineServer | None = None
        self._with_spare = False
        self._restarts = workers > 1  # SIGHUP to a single process is another thing: it reads its file again
        self.plane = stack.enter_context(DataPlane(["--workers", str(workers)]))
        self.done: Counter[str] = Counter()
        self._put()

    @staticmethod
    def _entry(backend: LineServer) -> dict[str, Any]:
        return {"id": backend.name, "address": backend.address, "weight": 1, "state": "enabled"}

    def change(self) -> None:
        """Make one random change, and wait until it is acknowledged."""
        actions: list[tuple[int, Callable[[], None]]] = [
            (6, self.weigh),
            (4, self.drain),
            (4, self.remove),
            (3, self.spare),
            (2, self.refuse),
            (int(self._restarts), self.restart),
        ]
        action = self._random.choices([a for _, a in actions], [w for w, _ in actions])[0]
        action()
        self.done[action.__name__] += 1

    def weigh(self) -> None:
        """Give one backend another weight."""
        self._random.choice(list(self._wanted.values()))["weight"] = self._random.randint(1, 10)
        self._put()

    def drain(self) -> None:
        """Drain the backend that is enabled, or enable the one that is drained: at most one at a time."""
        drained = [entry for entry in self._wanted.values() if entry["state"] == "drain"]
        if drained:
            drained[0]["state"] = "enabled"
        else:
            self._random.choice(list(self._wanted.values()))["state"] = "drain"
        self._put()

    def remove(self) -> None:
        """Remove a backend, or bring back the one that was removed."""
        missing = [backend for backend in self.backends if backend.name not in self._wanted]
        if missing:
            self._wanted[missing[0].name] = self._entry(missing[0])
        else:
            del self._wanted[self._random.choice(list(self._wanted))]
        self._put()

    def spare(self) -> None:
        """Add a second service, or remove it."""
        self._with_spare = not self._with_spare
        self._put()

    def refuse(self) -> None:
        """Let a backend refuse new connections, keeping those it has; or let it listen again."""
        if self._refusing is None:
            self._refusing = self._random.choice(self.backends)
            self._refusing.refuse()
        else:
            self._refusing.listen_again()
            self._refusing = None

    def restart(self) -> None:
        """Replace the workers one by one."""
        self.plane.send_signal(signal.SIGHUP)

    def _put(self) -> None:
        service = {
            "listen": [self.listener.address],
            "mode": "rr",
            "backends": list(self._wanted.values()),
            "health": {"active": {"type": "tcp", "interval": "500ms", "timeout": "500ms"}},
            "drain": {"timeout": "1h", "close": "1s"},
        }
        services = {"web": service}
        if self._with_spare:
            services["spare"] = {**service, "listen": [self._spare.address]}
        self.plane.put_snapshot(services)

    def round(self, seconds: float) -> Load:
        """Run load and changes for so long, and return the load, at its end."""
        end = time.monotonic() + seconds
        with Load(self.listener.address, rate=RATE, flows=FLOWS) as load:
            load.wait_flows()
            while time.monotonic() < end and not load.report.failed:
                self.change()
                time.sleep(self._random.uniform(0.05, 0.5))
        return load

    def settle(self) -> Holding:
        """Wait until no connection and no former worker is left, and return what is held then."""
        wait_for(
            lambda: sum(s["active"] for s in self.plane.status()["services"].values()) == 0,
            "the last connection to end",
            deadline_s=SETTLE_S,
        )
        wait_for(
            lambda: len(_group(self.plane.pid)) <= 1 + len(self.plane.status()["workers"]),
            "the former workers to end",
            deadline_s=SETTLE_S,
        )
        return _holding(self.plane.pid)


def _group(leader: int) -> list[Path]:
    """Return the /proc entries of the process group that `leader` started."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == leader and fields[0] != "Z":
            members.append(entry)
    return members


def _holding(leader: int) -> Holding:
    group = _group(leader)
    descriptors = sum(len(list((entry / "fd").iterdir())) for entry in group)
    pages = sum(int((entry / "statm").read_text().split()[1]) for entry in group)
    return Holding(len(group), descriptors, pages * PAGE_KIB)


def _complaints(first: Holding, now: Holding) -> list[str]:
    found = []
    if now.descriptors > first.descriptors + SPARE_DESCRIPTORS:
        found.append(f"descriptors grew from {first.descriptors} to {now.descriptors}")
    if now.memory_kib > first.memory_kib * MEMORY_GROWTH:
        found.append(f"memory grew from {first.memory_kib} KiB to {now.memory_kib} KiB")
    return found


def main() -> None:
    """Soak; exit with 1 if a client failed or something grew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="for how long (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the random changes (default: a new one)")
    parser.add_argument("--workers", type=int, default=2, help="of the data plane (default %(default)s)")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"soaking for {options.seconds:g} s, seed {seed}", flush=True)
    end = time.monotonic() + options.seconds
    first: Holding | None = None
    with ExitStack() as stack:
        soak = Soak(seed, options.workers, stack)
        while True:
            report = soak.round(min(ROUND_S, max(1.0, end - time.monotonic()))).report
            if report.failed:
                sys.exit(
                    f"{report.failed} clients failed: {dict(report.failures)}\n" + "\n".join(report.details)
                )
            now = soak.settle()
            print(f"{report.succeeded} clients, {report.pings} pings, none failed; idle: {now}", flush=True)
            first = first or now
            if complaints := _complaints(first, now):
                sys.exit("; ".join(complaints))
            if time.monotonic() >= end:
                break
        print(f"changes: {dict(soak.done)}")


if __name__ == "__main__":
    main()
