"""The shared memory as one worker uses it."""

from __future__ import annotations

from array import array

from dataplane.ipc.shared_counters import CounterBoard

__all__ = ["Board"]


class Board:
    """The shared memory as one worker uses it: its row, and a private column for what has none."""

    def __init__(self, counters: CounterBoard, row: int) -> None:
        self.counters = counters
        self.row = row
        self.head = counters.head

    def cells(self, column: int | None) -> memoryview:
        """Return a column's cells; without a column, cells that nobody else sees."""
        return self._private() if column is None else self.counters.column(column)

    def part(self, kind: int, column: int | None) -> memoryview:
        """Return the cells of `kind` (WAITING, HELD, ...) of a column's service or backend, or likewise."""
        return self._private() if column is None else self.counters.part(kind, column)

    def _private(self) -> memoryview:
        return memoryview(array("q", bytes(8 * self.counters.rows)))

    def set_present(self, *, present: bool) -> None:
        """Say whether this worker takes clients."""
        self.counters.present[self.row] = present
