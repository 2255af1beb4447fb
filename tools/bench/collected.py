"""A data plane whose garbage collector is watched: `python -m tools.bench.collected FILE HOW OPTIONS...`.

SIGUSR2 makes it write what happened since the last one into FILE, as JSON, and how long a full collection takes now.
HOW is `tuned` (as `lb-dataplane` does it), `unfrozen` (its thresholds without `gc.freeze`) or `default` (Python's own).
"""

from __future__ import annotations

import gc
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from dataplane.node import slices

_GENERATIONS: Final = 3


def _unfrozen() -> None:
    gc.collect()
    gc.set_threshold(slices.YOUNG, slices.MIDDLE, slices.FULL)


HOWS: Final = {"tuned": slices.tune_collector, "unfrozen": _unfrozen, "default": lambda: None}


class Watch:
    """Times each collection.

    Args:
        file: Where `report` writes.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._pauses: list[list[float]] = [[] for _ in range(_GENERATIONS)]
        self._began = self._since = time.monotonic()

    def on_collection(self, phase: str, info: dict[str, Any]) -> None:
        """Take note of a beginning or an end (`gc.callbacks`)."""
        now = time.perf_counter()
        if phase == "start":
            self._began = now
        else:
            self._pauses[info["generation"]].append(now - self._began)

    def report(self, *_: object) -> None:
        """Write seconds since the last report, all pauses by generation, the seconds of a full collection now, and if it collects."""
        pauses, seconds = self._pauses, time.monotonic() - self._since
        self._pauses = [[] for _ in range(_GENERATIONS)]
        start = time.perf_counter()
        gc.collect()
        full_s = time.perf_counter() - start
        self._pauses = [[] for _ in range(_GENERATIONS)]
        self._since = time.monotonic()
        unfinished = self._file.with_suffix(".part")
        unfinished.write_text(
            json.dumps({"seconds": seconds, "pauses": pauses, "full_s": full_s, "collects": gc.isenabled()})
        )
        unfinished.replace(self._file)


def main() -> None:
    """Run a data plane with the rest of the command line."""
    file, how, *options = sys.argv[1:]
    watch = Watch(Path(file))
    gc.callbacks.append(watch.on_collection)
    signal.signal(signal.SIGUSR2, watch.report)
    slices.tune_collector = HOWS[how]  # before those that import it by name do so
    from dataplane.cli import main as run  # noqa: PLC0415 - see above

    sys.argv = ["lb-dataplane", *options]
    run()


if __name__ == "__main__":
    main()
