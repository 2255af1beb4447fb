"""Counts that all workers of a node see, in shared memory, without a lock.

Theory of operation:

1. The memory is a table of 64-bit integers, one column for each thing that is counted and one row for each worker.
   A worker writes only its own row, so no update is lost; who wants the node's count adds up the column.
   An aligned 64-bit store is one instruction on the machines that we run on: a reader sees the old or the new number.
2. Between a worker's look at a column and its own write, others may write. So a limit may be exceeded by what
   arrives at the other workers within those microseconds: at most one connection for each other worker.
3. The supervisor gives out rows and columns. A row is wiped when its process has ended, however it did: what a
   killed worker had counted is gone with its connections. A column is given out anew only when it is all zero.
4. The columns of a row that is not in use are zero; `rows in use` keeps readers from adding up all of them.
5. What else there is of a backend or a service (`part`: a pool's cells, who waits) has its column's number, in tables
   of which each row lies in one piece: a worker's cells fill its own pages, and wiping a row touches no other's.
   `present` says which rows are workers that take clients: one that drains counts, and has a claim to nothing.
6. Clients are counted in a fixed number of buckets (a count-min sketch, Cormode and Muthukrishnan 2005, of depth 2):
   a count is never too low, and too high only if both buckets of a client are shared with others who are there.
7. A client's rate is a time in each of its two buckets, which all workers write (the virtual scheduling form of the
   GCRA, as in core.admission). Two workers that admit the same client in the same microsecond may count one of both.
"""

from __future__ import annotations

import mmap
import os
from array import array
from typing import Final

from xxhash import xxh3_64_intdigest

COLUMNS: Final = 1 << 17
PARTS: Final = 3
HELD: Final = 0
"""Of a backend: idle pooled connections and dials of its pool."""
WAITING: Final = 0
"""Of a service: clients who wait for a place."""
CLIENTS: Final = 1
"""Of a service whose workers are balanced: all its clients."""
EVENTS: Final = 1
"""Of a backend: the clients of the last seconds, as `core.pool.Demand` remembers them."""
WANTED: Final = 2
"""Of a backend: how many idle connections a worker has use for."""
BUCKETS: Final = 1 << 16
HEADER_BYTES: Final = 4096
CELL_BYTES: Final = 8


def buckets_of(service: str, client: str) -> tuple[int, int]:
    """Return the two buckets of a client of a service; they are different ones."""
    digest = xxh3_64_intdigest(f"{service}\0{client}".encode())
    first = digest % BUCKETS
    return first, (first + 1 + (digest >> 32) % (BUCKETS - 1)) % BUCKETS


class CounterBoard:
    """The shared memory for so many workers at once, made anew without `fd`; pages that nobody writes cost nothing."""

    def __init__(self, rows: int, fd: int | None = None) -> None:
        self.rows = rows
        columns_end = HEADER_BYTES + COLUMNS * rows * CELL_BYTES
        clients_end = columns_end + BUCKETS * rows * CELL_BYTES
        rates_end = clients_end + BUCKETS * CELL_BYTES
        parts_end = rates_end + PARTS * COLUMNS * rows * CELL_BYTES
        size = parts_end + rows * CELL_BYTES
        if fd is None:
            fd = os.memfd_create("livelb-counters", os.MFD_CLOEXEC)
            os.ftruncate(fd, size)
        self.fd = fd
        self._map = mmap.mmap(fd, size)
        memory = memoryview(self._map)
        self.head = memory[:CELL_BYTES].cast("q")
        """One number: the rows in use are those below it."""
        self._cells = memory[HEADER_BYTES:columns_end].cast("q")
        self._clients = memory[columns_end:clients_end].cast("q")
        self.rates = memory[clients_end:rates_end].cast("d")
        """For each bucket, when its token bucket will be full again (monotonic seconds; the same in all processes)."""
        self._parts = memory[rates_end:parts_end].cast("q")
        self.present = memory[parts_end:size].cast("q")
        """For each row, 1 if its worker takes clients."""
        self._columns: dict[object, int] = {}
        self._retired: dict[object, int] = {}
        self._next = 0
        self._taken: set[int] = set()

    def column(self, number: int) -> memoryview:
        """Return the cells of a column, one for each row."""
        return self._cells[number * self.rows : (number + 1) * self.rows]

    def part(self, kind: int, number: int) -> memoryview:
        """Return the cells of `kind` (HELD, ...) of a column, one for each row."""
        size = COLUMNS * self.rows
        return self._parts[kind * size + number : (kind + 1) * size : COLUMNS]

    def bucket(self, number: int) -> memoryview:
        """Return the cells of a bucket of clients, one for each row."""
        return self._clients[number::BUCKETS]

    # -- the supervisor's part ------------------------------------------------------------------------

    def take_row(self) -> int | None:
        """Give out a row, the lowest that is free; None if all are taken."""
        row = next((row for row in range(self.rows) if row not in self._taken), None)
        if row is not None:
            self._taken.add(row)
            self.head[0] = max(self._taken) + 1
        return row

    def free_row(self, row: int) -> None:
        """Wipe a row, whose process has ended, and take it back."""
        if self._next:
            zeros = memoryview(bytes(CELL_BYTES * self._next)).cast("q")
            self._cells[row : self._next * self.rows : self.rows] = zeros
            for kind in range(PARTS):
                start = (kind * self.rows + row) * COLUMNS
                self._parts[start : start + self._next] = zeros
        # a row of buckets lies in one piece: wiping one makes the kernel give us no page of the others
        clients = memoryview(bytes(CELL_BYTES * BUCKETS)).cast("q")
        self._clients[row * BUCKETS : (row + 1) * BUCKETS] = clients
        self.present[row] = 0
        self._taken.discard(row)
        self.head[0] = max(self._taken, default=-1) + 1

    def assign(self, keys: set[object]) -> dict[object, int]:
        """Give each of `keys` its column, and retire those of all others.

        A key that had a column keeps it, also if it comes back while somebody still counts there. Beyond COLUMNS
        keys there is none to be had: those are left out, and are counted by each worker for itself.
        """
        for key in [key for key in self._columns if key not in keys]:
            self._retired[key] = self._columns.pop(key)
        for key in keys:
            if key in self._columns:
                continue
            number = self._retired.pop(key, None)
            if number is None:
                number = self._free_column()
            if number is not None:
                self._columns[key] = number
        return self._columns

    def total(self, key: object) -> int:
        """Return what all workers count for `key`; 0 without a column."""
        number = self._columns.get(key)
        return 0 if number is None else sum(self.column(number))

    def _free_column(self) -> int | None:
        if self._next < COLUMNS:
            self._next += 1
            return self._next - 1
        for key, number in self._retired.items():
            if not any(self.column(number)) and not any(
                any(self.part(kind, number)) for kind in range(PARTS)
            ):
                del self._retired[key]
                return number
        return None

    def close(self) -> None:
        """Let the file go; the memory itself goes with the process."""
        os.close(self.fd)


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
        return memoryview(array("q", bytes(CELL_BYTES * self.counters.rows)))

    def set_present(self, *, present: bool) -> None:
        """Say whether this worker takes clients."""
        self.counters.present[self.row] = present
