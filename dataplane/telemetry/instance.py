"""What tells this process from every other: a pid is one only here and for a while, in a container always the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["draw_instance"]

_BYTES: Final = 8
"""Two of a thousand million processes are the same with a chance of 3 %; what compares them sees a handful."""


def draw_instance(entropy: Callable[[int], bytes]) -> str:
    """Return an id that no other process has, and none before it had: 16 hexadecimal digits.

    Args:
        entropy: Returns so many random bytes, as `os.urandom` does.
    """
    return entropy(_BYTES).hex()
