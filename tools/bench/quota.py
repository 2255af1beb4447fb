"""A share of a processor for a process or a thread, so that a load generator beside it is not the limit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal

from tools.bench.child import Failed

_PERIOD_US: Final = 20_000
"""A fifth of the kernel's default: whoever has used up its share waits for milliseconds, not for a tenth of a second."""
_FIELDS: Final = 4
_COLUMNS: Final = 3


class Quotas:
    """Groups of a CPU controller (cgroup v1), each with a share of one processor.

    Version 1, because there any thread may be in a group of its own; version 2 has no such groups across its domains.

    Args:
        stack: Gives back to the parent's group whoever is still in one of ours, and removes ours.

    Raises:
        Failed: There is no such controller, or we may not use it.
    """

    def __init__(self, stack: ExitStack) -> None:
        self._parent = _own_group()
        self._folder = self._parent / f"lb-bench-{os.getpid()}-{id(self):x}"
        self._count = 0
        try:
            self._folder.mkdir()
        except OSError as error:
            raise Failed(f"no CPU quotas here: {error.strerror} ({self._folder})") from error
        stack.callback(self._remove)

    def limit(self, number: int, kind: Literal["process", "thread"], share: float) -> None:
        """Let a process with all its threads, or one thread, have at most `share` of a processor.

        Raises:
            Failed: The kernel refuses.
        """
        group = self._folder / str(self._count)
        self._count += 1
        try:
            group.mkdir()
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(round(_PERIOD_US * share)))
            (group / ("cgroup.procs" if kind == "process" else "tasks")).write_text(str(number))
        except OSError as error:
            raise Failed(f"no CPU quota for {kind} {number}: {error.strerror}") from error

    def _remove(self) -> None:
        for group in [*self._folder.glob("[0-9]*"), self._folder]:
            with contextlib.suppress(OSError):  # a thread that ends meanwhile, or one that another call holds
                for task in (group / "tasks").read_text().split():
                    (self._parent / "tasks").write_text(task)
            with contextlib.suppress(OSError):
                group.rmdir()


def _own_group() -> Path:
    """Return the folder of our group of the CPU controller."""
    for mount in _mounts():
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            fields = line.split(":", _COLUMNS - 1)
            if "cpu" in fields[1].split(","):
                return mount / fields[2].lstrip("/")
    raise Failed("CPU quotas for single threads need cgroup version 1, which is not mounted here")


def _mounts() -> Iterator[Path]:
    for line in Path("/proc/mounts").read_text().splitlines():
        fields = line.split()
        if len(fields) >= _FIELDS and fields[2] == "cgroup" and "cpu" in fields[3].split(","):
            yield Path(fields[1])
