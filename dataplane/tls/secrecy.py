"""Keeps the memory of a process that has keys to itself."""

from __future__ import annotations

import ctypes
from typing import Final

_PR_SET_DUMPABLE: Final = 4  # prctl(2)


def keep_memory_secret() -> None:
    """Have the kernel write no core dump of this process, and let nobody but root look into it.

    Its files in /proc are root's from then on, and a debugger needs CAP_SYS_PTRACE, also one of the same user. What it forks is
    so as well; what it executes is not. Where the kernel does not allow it, nothing is different.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
