"""The shared memory as one worker uses it."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from dataplane.ipc.shared_counters import CLIENTS, WAITING

if TYPE_CHECKING:
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
        if column is None:
            return memoryview(array("q", bytes(8 * self.counters.rows)))
        return self.counters.column(column)

    def waiting(self, column: int | None) -> memoryview:
        """Return the cells of those who wait for a service; without a column, cells that nobody else sees."""
        return self.cells(None) if column is None else self.counters.part(WAITING, column)

    def clients(self, column: int | None) -> memoryview:
        """Return the cells of each worker's clients of a service; without a column, cells that nobody else sees."""
        return self.cells(None) if column is None else self.counters.part(CLIENTS, column)

    def set_present(self, *, present: bool) -> None:
        """Say whether this worker takes clients."""
        self.counters.present[self.row] = present
