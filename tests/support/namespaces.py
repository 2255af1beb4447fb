"""Programs in namespaces of their own: what root can change for one process and its children, and for nobody else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

__all__ = ["needs_namespaces", "with_hosts"]


def _reason() -> str:
    if os.geteuid() != 0:
        return "root is missing: only root makes namespaces"
    made = subprocess.run(["unshare", "--mount", "--net", "true"], capture_output=True, check=False)
    return "" if made.returncode == 0 else f"namespaces are missing: {made.stderr.decode().strip()}"


_REASON: Final = _reason()
needs_namespaces: Final = pytest.mark.skipif(bool(_REASON), reason=_REASON)


def with_hosts(argv: list[str], hosts: Path) -> list[str]:
    """Return a command line that runs `argv` with another /etc/hosts; its process is the one that is started."""
    script = 'mount --bind "$0" /etc/hosts && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, str(hosts), *argv]
