"""A key as the home of a daemon's lb.yaml, with its canary: what `core.canary` says counts is handed on.

Theory of operation:

1. Whenever Consul shows something else, and when the time of a canary is up, the rule is asked, and what counts is handed on
   if it is another content than before.
2. What is to outlive the process is written down before a canary's content is handed on: a daemon that is killed in between
   knows of it.
3. What this node is called is known from the lb.yaml itself: a node that starts from nothing takes the key's content first,
   and then its canary.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from controlplane.core.canary import CanaryRule, Choice, Memory, Phase, Picture
from controlplane.desired.location import OnContent, OnError
from controlplane.discovery.consul.key import KeySource
from controlplane.discovery.consul.watch import Runtime
from controlplane.errors import StoreError
from controlplane.store import Store


class FollowedKey:
    """A home: see `desired.location`.

    Args:
        key: Where it is.
        node: Returns what this node is called in its cluster; None: it is in none, or that is not known yet.
        store: Keeps what is remembered of a canary.
        on_event: Told when a canary begins and ends here.
        log: Told the same, in words.
        runtime: Time.
    """

    def __init__(
        self,
        key: KeySource,
        node: Callable[[], str | None],
        store: Store,
        *,
        on_event: Callable[[dict[str, Any]], None],
        log: Callable[[str], None],
        runtime: Runtime | None = None,
    ) -> None:
        self.word, self.name, self.place = key.word, key.name, key.place
        self.folder: Path | None = key.folder
        self.key = key
        self._node = node
        self._store = store
        self._on_event = on_event
        self._log = log
        self._runtime = runtime or Runtime()
        self._rule = CanaryRule(None, 0.0, 0.0)
        self._seen: Picture | None = None
        self._handed: bytes | None = None
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()

    @property
    def canary(self) -> Memory | None:
        """The canary that runs here; None: there is none."""
        return self._rule.memory if self._rule.phase is Phase.RUNNING else None

    def force(self) -> None:
        """Read as soon as that is possible, and hand the content on even if it is the same."""
        self.key.force()

    def status(self) -> dict[str, Any]:
        """Return how the watch is doing, and the canary that runs here."""
        row, running, due = self.key.status(), self.canary, self._rule.due
        if running is None or due is None:
            return row
        moment = datetime.fromtimestamp(running.seen, UTC).isoformat(timespec="milliseconds")
        since, until = moment.replace("+00:00", "Z"), self._runtime.rfc3339(due)
        shown = {"id": running.id, "by": running.by, "since": since, "until": until}
        note = (
            f"canary {running.id[:8]} of {running.by} runs here since {_short(since)}, "
            f"until {_short(until)} at the latest"
        )
        return {"note": note, **row, "canary": shown}

    async def run(self, on_content: OnContent, _on_error: OnError) -> None:
        """Read once, then watch until cancelled; raises what `KeySource.run` raises."""
        runtime = self._runtime
        self._rule = CanaryRule(await self._remembered(), runtime.clock(), runtime.wall())

        async def take(seen: Picture, forced: bool) -> None:  # noqa: FBT001 - the source's callback
            self._seen = seen
            await self._look(on_content, forced=forced)
            self._news.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(self._expire(on_content), name=f"canary of {self.name}")
            await self.key.run(take)

    async def _expire(self, on_content: OnContent) -> None:
        """Look when the time of a canary is up, whatever Consul does."""
        while True:
            self._news.clear()
            due = self._rule.due
            left_s = None if due is None else max(0.0, due - self._runtime.clock())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._news.wait()
                    continue
            await self._look(on_content, forced=False)

    async def _look(self, on_content: OnContent, *, forced: bool) -> None:
        """Ask the rule, and hand on what counts; once more if this node knows its name only now."""
        async with self._turn:
            while True:
                node, before, runtime = self._node(), self._rule.memory, self._runtime
                choice = self._rule.look(self._seen, node, runtime.clock(), runtime.wall())
                if self._rule.memory != before:
                    await self._remember(self._rule.memory)
                self._tell(choice)
                if choice.content is not None and (forced or choice.content != self._handed):
                    self._handed = choice.content
                    await on_content(choice.content, forced, choice.note)
                if self._node() == node:
                    return

    def _tell(self, choice: Choice) -> None:
        ended, began = choice.ended, choice.began
        if ended is not None:
            self._happened(ended.how, ended.id, ended.by, why=ended.why)
            why = f": {ended.why}" if ended.why else ""
            self._log(f"{self.name}: canary {ended.id[:8]} of {ended.by} {ended.how}{why}")
        if began is not None:
            until = self._runtime.rfc3339(self._rule.due or self._runtime.clock())
            self._happened("running", began.id, began.by, until=until)
            self._log(
                f"{self.name}: canary {began.id[:8]} of {began.by} runs here, until {until} at the latest"
            )

    def _happened(self, state: str, key: str, by: str, *, why: str = "", until: str | None = None) -> None:
        self._on_event(
            {"type": "canary", "state": state, "canary": key, "by": by, "why": why, "until": until}
        )

    async def _remembered(self) -> Memory | None:
        try:
            known = await asyncio.to_thread(self._store.canary)
            return None if known is None else Memory.of_json(known)
        except (StoreError, TypeError, ValueError) as error:
            self._log(f"{self.name}: what is known of a canary from before cannot be used: {error}")
            return None

    async def _remember(self, memory: Memory | None) -> None:
        try:
            await asyncio.to_thread(self._store.keep_canary, None if memory is None else asdict(memory))
        except StoreError as error:
            self._log(
                f"{self.name}: the canary is not written down, so a restart counts its time anew: {error}"
            )


def _short(moment: str) -> str:
    """Shorten an RFC 3339 time for people."""
    return moment[:19].replace("T", " ")
