"""`make soak`, the cluster's part: nodes are lost, drained, upgraded and changed, one after the other, for as long as one likes.

Three nodes, a router, Consul and clients in network namespaces (tests/support/cluster.py; root only). A client may fail only
if it was under way when the router changed its mind: it keeps no table of connections. All nodes are whole after each round.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from tests.support import episodes
from tests.support.aftermath import unexcused
from tests.support.cluster import KEY, Bed, Node
from tests.support.episodes import TO, Window, limit, written
from tests.support.wait import wait_for

RATE: Final = 300.0
HOLD_S: Final = 9
EVENTS: Final = (
    "power_cut",
    "kill",
    "freeze",
    "cut_off",
    "upgrade",
    "change",
    "canary_without_its_command",
    "leader_dies",
)
EXPIRY_S: Final = 240.0
"""A canary that nobody attends to has ended by then: it says itself for how long it lasts."""


class Soak:
    """The rounds.

    Args:
        bed: The cluster.
        seed: Of the random choices.
        only: Names of events; empty: all.
    """

    def __init__(self, bed: Bed, seed: int, only: Sequence[str] = ()) -> None:
        self._bed = bed
        self._random = random.Random(seed)
        self._limit = 1000
        self.clients = 0
        self.failed: Counter[str] = Counter()
        self._events = [getattr(self, name) for name in only or EVENTS]

    def round(self) -> None:
        """Let one thing happen under load.

        Raises:
            AssertionError: Somebody failed who had no reason to, or something did not come back.
        """
        event = self._random.choice(self._events)
        begin = time.monotonic()
        with self._bed.load(rate=RATE) as load:
            episodes.more(load)
            windows = event()
            episodes.more(load)
        report = load.report
        lost = unexcused(report.visits, [(each.begun, each.over) for each in windows])
        assert lost == [], f"{event.__name__}: {lost[:10]}"  # noqa: S101 - a soak checks
        self.clients += report.started
        self.failed += report.failures
        took = time.monotonic() - begin
        print(
            f"ok   {event.__name__}: {took:.0f} s, {report.started} clients, {dict(report.failures)}",
            flush=True,
        )

    def _node(self) -> Node:
        return self._random.choice(self._bed.nodes)

    def _lost(self, change: Callable[[Node], object], back: Callable[[Node], object]) -> list[Window]:
        node = self._node()
        return [episodes.lose(self._bed, node, change), episodes.find(self._bed, node, back)]

    def power_cut(self) -> list[Window]:
        """Switch a node off, and on again."""
        return self._lost(Node.off, episodes.start_again)

    def kill(self) -> list[Window]:
        """Kill all programs of a node, and start them again."""
        return self._lost(Node.kill, episodes.start_again)

    def freeze(self) -> list[Window]:
        """Stop all programs of a node, and let them go on."""
        return self._lost(Node.freeze, Node.thaw)

    def cut_off(self) -> list[Window]:
        """Take the link to the router away, and bring it back."""
        return self._lost(lambda node: node.link("eth0", "down"), lambda node: node.link("eth0", "up"))

    def upgrade(self) -> list[Window]:
        """Drain, restart and enable a node."""
        node = self._node()
        drained = episodes.drain(self._bed, node)
        episodes.upgrade(node)
        return [drained, episodes.enable(self._bed, node)]

    def change(self) -> list[Window]:
        """Change all nodes by way of a canary."""
        node, self._limit = self._node(), self._limit + 1
        file = written(node, limits={"connections": self._limit})
        node.control("apply", file, *TO, "--canary", "1", "--observe", "5s", "--wait")
        self._all_run(self._limit)
        return []

    def canary_without_its_command(self) -> list[Window]:
        """Kill the command of a canary at any instant: what runs in the end is the old content everywhere, or the new one."""
        node = self._node()
        file = written(node, limits={"connections": self._limit + 1})
        options = ("--canary", "1", "--observe", "3s", "--timeout", "5s", "--wait")
        with node.command("apply", file, *TO, *options) as apply:
            time.sleep(self._random.uniform(0, 6))
            apply.kill()
        wait_for(lambda: self._bed.registry.raw(f"{KEY}.lock") is None, "its lock to go", deadline_s=EXPIRY_S)
        self._limit = episodes.held(self._bed)["services"]["web"].get("limits", {"connections": 0})[
            "connections"
        ]
        self._all_run(self._limit)
        return []

    def leader_dies(self) -> list[Window]:
        """Kill the server that leads Consul in the middle of a canary, and start it again."""
        registry, node = self._bed.registry, self._node()
        self._limit += 1
        file = written(node, limits={"connections": self._limit})
        with node.command(
            "apply", file, *TO, "--canary", "1", "--observe", "5s", "--wait", "--timeout", "60s"
        ) as apply:
            time.sleep(self._random.uniform(0, 6))
            leader = registry.leader()
            leader.kill()
            code = apply.wait(120)
            assert code == 0, apply.output  # noqa: S101 - a soak checks
        leader.start()
        registry.wait_for_leader()
        self._all_run(self._limit)
        return []

    def _all_run(self, wanted: int) -> None:
        wait_for(
            lambda: all(limit(node) == wanted for node in self._bed.nodes),
            f"all to run {wanted}",
            deadline_s=EXPIRY_S,
        )


def main() -> None:
    """Run rounds until the time is up; exit with 1 at the first that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="for all rounds (default %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="repeat this run's choices")
    parser.add_argument(
        "--only", choices=EVENTS, action="append", default=[], help="have no other events; repeatable"
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("skipped: root is missing: only root makes namespaces")
        return
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with Bed(workers=2, hold_s=HOLD_S) as bed:
        soak = Soak(bed, seed, options.only)
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            soak.round()
    print(
        f"{soak.clients} clients; {soak.failed.total()} of them, under way as a route changed, failed: {dict(soak.failed)}"
    )


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"FAIL {error}")
