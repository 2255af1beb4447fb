"""What somebody wants to run: a checked lb.yaml, as text, as JSON and as values."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from controlplane.desired import document as lb_yaml

if TYPE_CHECKING:
    from schemas.desired import ConsulQuery, Desired

__all__ = ["Proposal"]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A valid desired state."""

    document: dict[str, Any]
    """As written, in JSON, with absolute paths of files: what the history keeps and the daemon is sent."""
    desired: Desired

    @classmethod
    def of_text(cls, raw: bytes, source: str, folder: Path) -> Proposal:
        """Check the text of an lb.yaml.

        Args:
            raw: YAML or JSON.
            source: What messages call it.
            folder: What relative paths of files in it are relative to.

        Raises:
            InputError: It is invalid.
        """
        return cls(*lb_yaml.load(raw, source, folder))

    @classmethod
    def of_file(cls, path: Path) -> Proposal:
        """Read and check what a command was given: a file, a pipe, or standard input for `-`.

        Raises:
            InputError: It cannot be read or is invalid.
        """
        given = lb_yaml.read_given(path)
        return cls.of_text(given.raw, given.source, given.folder)

    @classmethod
    def of_document(cls, document: dict[str, Any], source: str, folder: Path) -> Proposal:
        """Check an lb.yaml that is JSON already; see `of_text`.

        Raises:
            InputError: It is invalid.
        """
        return cls.of_text(json.dumps(document).encode(), source, folder)

    def queries(self) -> dict[str, ConsulQuery]:
        """Return what has to be asked of Consul, by service."""
        return {
            name: each.discover.consul
            for name, each in self.desired.services.items()
            if each.discover is not None
        }
