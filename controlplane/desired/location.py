"""Where a daemon's lb.yaml lives: in a file, or in a key of Consul's that several nodes can follow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from controlplane.desired.file import FileSource
from controlplane.discovery.consul.settings import ConsulSettings
from controlplane.errors import ControlError

__all__ = ["Home", "Key", "Watcher", "file_home"]


class Watcher(Protocol):
    """Hands on every new content."""

    def force(self) -> None:
        """Read now, and hand the content on even if it is the same."""

    def status(self) -> dict[str, Any]:
        """Return how the watching fares, in the words of every source; empty: nothing to tell."""

    async def run(self) -> None:
        """Watch until cancelled."""


OnContent = Callable[[bytes, bool], Awaitable[None]]
OnError = Callable[[ControlError], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Home:
    """One such place."""

    word: str
    """What it is: `file` or `key`."""
    name: str
    """What status and history call it."""
    place: str
    """What messages about its content call it, as a command would."""
    folder: Path
    """What relative paths in the content are relative to."""
    watcher: Callable[[OnContent, OnError], Watcher]
    """Makes what watches it.

    Of its arguments the first takes the bytes, and whether somebody asked for them with `force`; the second, why it cannot be
    read, unless the watcher's `status` tells: what was read before still holds.
    """


def file_home(path: Path) -> Home:
    """Return the home that is a file."""

    def watcher(on_content: OnContent, on_error: OnError) -> Watcher:
        return FileSource(path, on_content=on_content, on_error=on_error)

    return Home("file", f"file {path}", str(path), path.parent, watcher)


@dataclass(frozen=True, slots=True)
class Key:
    """A key in Consul's KV store."""

    name: str
    """With the prefix."""
    path: str
    """Without it."""
    consul: ConsulSettings

    def home(self) -> Home:
        """Return it as a home; a key has no folder, so files are looked for where the daemon was started."""

        def watcher(on_content: OnContent, _on_error: OnError) -> Watcher:
            from controlplane.discovery.consul.key import KeySource  # noqa: PLC0415 - nothing needs Consul otherwise

            return KeySource(self.path, self.consul, on_content=on_content)

        return Home("key", self.name, self.name, Path(), watcher)
