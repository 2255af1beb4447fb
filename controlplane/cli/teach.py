"""How `--help` of a command ends: with examples that can be copied."""

from __future__ import annotations

__all__ = ["examples"]


def examples(*lines: str) -> str:
    """Make a command's epilog.

    Args:
        lines: Each a command line as one types it, with a comment if that helps; at most 76 columns.
    """
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
