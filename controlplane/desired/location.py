"""Where a daemon's lb.yaml lives: in a file, or in a key of Consul's that several nodes can follow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from controlplane.desired.file import FileSource
from controlplane.discovery.consul.settings import ConsulSettings
from controlplane.errors import ControlError

__all__ = ["FileHome", "Home", "KeyHome", "Watcher"]


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


class Home(Protocol):
    """One such place."""

    @property
    def name(self) -> str:
        """What status and history call it."""

    @property
    def word(self) -> str:
        """What it is."""

    @property
    def place(self) -> str:
        """What messages about its content call it, as a command would."""

    @property
    def folder(self) -> Path:
        """What relative paths in the content are relative to."""

    def watcher(self, on_content: OnContent, on_error: OnError) -> Watcher:
        """Make what watches it.

        Args:
            on_content: Takes its bytes, and whether somebody asked for them with `force`.
            on_error: Takes why it cannot be read; what was read before still holds.
        """


@dataclass(frozen=True, slots=True)
class FileHome:
    """A file."""

    path: Path

    @property
    def name(self) -> str:
        """`file PATH`."""
        return f"{self.word} {self.path}"

    @property
    def word(self) -> str:
        """A file."""
        return "file"

    @property
    def place(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def folder(self) -> Path:
        """The file's."""
        return self.path.parent

    def watcher(self, on_content: OnContent, on_error: OnError) -> Watcher:
        """Look at the file twice a second; that it cannot be read is told to `on_error`."""
        return FileSource(self.path, on_content=on_content, on_error=on_error)


@dataclass(frozen=True, slots=True)
class KeyHome:
    """A key in Consul's KV store."""

    name: str
    """With the prefix."""
    path: str
    """Without it."""
    consul: ConsulSettings
    folder: Path = Path()
    """Where the daemon was started, for a key has no folder that files could lie in."""

    @property
    def word(self) -> str:
        """A key."""
        return "key"

    @property
    def place(self) -> str:
        """The key with the prefix."""
        return self.name

    def watcher(
        self,
        on_content: OnContent,
        on_error: OnError,  # noqa: ARG002 - the same for every home; here `status` tells, and forgets by itself
    ) -> Watcher:
        """Wait for changes of the key."""
        from controlplane.discovery.consul.key import KeySource  # noqa: PLC0415 - nothing needs Consul otherwise

        return KeySource(self.path, self.consul, on_content=on_content)
