"""Nodes that follow a key in a fake Consul, as their daemons would, with the rule that daemons have."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.core.canary import CanaryRule, Picture
from controlplane.core.canary_record import digest_of_content, parse_record
from controlplane.core.node_record import NodeRecord, Outcomes
from controlplane.operations.options import now_text
from tests.support.fakeconsul import FakeConsul


@dataclass
class FakeNode:
    """One node; what a test sets is what it does.

    Attributes:
        fails: The share of new connections that fail, by the content that it runs.
        refuses: Contents that it refuses.
        unready: Contents with which it is not ready.
        deaf: It takes nothing new.
        silent: It serves, and tells nothing of it.
    """

    consul: FakeConsul
    name: str
    fails: dict[bytes, float] = field(default_factory=dict)
    refuses: set[bytes] = field(default_factory=set)
    unready: set[bytes] = field(default_factory=set)
    deaf: bool = False
    silent: bool = False
    dead: bool = False
    rate: int = 100
    taken: list[bytes] = field(default_factory=list)
    started: str = field(default_factory=now_text)

    def __post_init__(self) -> None:
        self._rule = CanaryRule(None, time.monotonic(), time.time())
        self._outcomes = Outcomes(usable=1, backends=1)
        self._error: str | None = None

    @property
    def running(self) -> bytes:
        """What it has taken last."""
        return self.taken[-1]

    def turn(self) -> None:
        """Read, take, serve, and tell."""
        path = f"livelb/edge/nodes/{self.name}"
        if self.dead:
            self.consul.locks.pop(path, None)
            return
        if not self.deaf:
            self._take()
        failed = round(self.rate * self.fails.get(self.running, 0.0))
        self._outcomes += Outcomes(self.rate, failed)
        if self.silent:
            return
        record = NodeRecord(
            self.name,
            now_text(),
            started=self.started,
            key="lb",
            content=digest_of_content(self.running),
            canary=None if self._rule.memory is None else self._rule.memory.id,
            generation=len(self.taken),
            converged=True,
            error=self._error,
            ready=self.running not in self.unready,
            reason="a: ending" if self.running in self.unready else "",
            outcomes={"web": replace(self._outcomes, usable=1, backends=1)},
        )
        self.consul.index += 1
        self.consul.keys[path] = (record.encode(), self.consul.index)
        self.consul.locks[path] = f"session of {self.name}"

    def _take(self) -> None:
        keys: dict[str, tuple[bytes, int]] = self.consul.keys
        canary = None if "lb.canary" not in keys else parse_record(keys["lb.canary"][0])
        picture = Picture(keys["lb"][0], canary)
        content = self._rule.look(picture, self.name, time.monotonic(), time.time()).content
        if content is None or (self.taken and content == self.running):
            self._error = None
        elif content in self.refuses:
            self._error = f"lb:1: {self.name} does not want it"
        else:
            self._error = None
            self.taken.append(content)


async def live(*nodes: FakeNode, every_s: float = 0.01) -> None:
    """Have nodes do what they do until cancelled."""
    while True:
        for each in nodes:
            each.turn()
        await nodes[0].consul.wake()
        await asyncio.sleep(every_s)


def record_of(consul: FakeConsul) -> Any:
    """Return the canary's record."""
    return parse_record(consul.keys["lb.canary"][0])
