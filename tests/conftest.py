"""What every test may ask for, and what holds for all of them."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

from dataplane.build import BUILD, stale
from tests.support.clock import FakeClock
from tests.support.programs import PACKAGES, find, may_be_missing
from tests.support.wait import wait_for

PROCESSES_S = 120.0
"""For a test of real programs: a dozen commands of a third of a second each take 30 s where others have the cores too."""


def pytest_configure() -> None:
    """Have what tests start run the form that runs here, though somebody compiles meanwhile, without saying it each time."""
    if stale():
        os.environ["LIVELB_INTERPRETED"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests of real programs the time that a busy machine needs; the limit is there for what hangs."""
    for item in items:
        slow = {"integration", "faults", "cluster"} & set(item.path.parts)
        if slow and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(PROCESSES_S))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose program is missing, by the program's name; with CI=true, fail it."""
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if find(program) is None:
                message = f"{program} is missing; it comes with {PACKAGES.get(program, program)}"
                if os.environ.get("CI") == "true" and not may_be_missing(program):
                    pytest.fail(message, pytrace=False)
                pytest.skip(message)


@pytest.fixture
def clock() -> FakeClock:
    """A clock that only moves when it is told to."""
    return FakeClock()


@pytest.fixture
def no_blocking() -> Iterator[BlockBuster]:
    """Fail the test if anything blocks the running event loop: a file, a lock, a sleep, a blocking socket."""
    with blockbuster_ctx() as guard:
        yield guard


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if it leaves more file descriptors or threads behind than it found."""

    def state() -> tuple[dict[str, str], set[threading.Thread]]:
        descriptors = {}
        for entry in Path("/proc/self/fd").iterdir():
            try:
                descriptors[entry.name] = str(entry.readlink())
            except FileNotFoundError:  # the one that lists the directory
                continue
        return descriptors, set(threading.enumerate())

    descriptors_before, threads_before = state()
    yield

    def left() -> list[str]:
        descriptors, threads = state()
        more = descriptors.items() - descriptors_before.items()
        return [f"fd {number}: {target}" for number, target in more] + [
            thread.name for thread in threads - threads_before
        ]

    # what ends by itself may take a moment: a thread that has been told, a socket in a callback
    wait_for(lambda: not left(), f"nothing to be left behind, but there is {left()}", deadline_s=5)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in the last lines why tests were skipped, and how many for each reason."""
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", ()))
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count} skipped: {reason}", yellow=True)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Return why a test was skipped."""
    where = report.longrepr
    return where[2].removeprefix("Skipped: ") if isinstance(where, tuple) else str(where)


def pytest_report_header() -> list[str]:
    """Name the form that is tested and the programs that are missing, once, at the top."""
    missing = [program for program in PACKAGES if find(program) is None]
    why = ", since it was edited after it was compiled (make setup)" if stale() else ""
    return [
        f"connection path: {BUILD}{why}",
        f"python {sys.version.split()[0]}; missing programs: {', '.join(missing) or 'none'}",
    ]
