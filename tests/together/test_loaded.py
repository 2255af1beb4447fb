"""What each kind of process loads: every package costs memory for as long as it runs, and time of each start."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("program", "unneeded"),
    [
        ("dataplane.start", {"asyncio", "click", "pathlib", "uvloop"}),
        (
            "dataplane.worker.fork_server",
            {"aiohttp", "click", "prometheus_client", "pydantic", "structlog", "yaml"},
        ),
        # the API's libraries come when clients are served
        (
            "dataplane.main",
            {
                "aiohttp",
                "colorama",
                "consul",
                "controlplane",
                "opentelemetry",
                "prometheus_client",
                "pygments",
                "rich",
            },
        ),
    ],
)
def test_a_process_loads_only_what_it_needs(program: str, unneeded: set[str]) -> None:
    """And not what is needed beside it, on other days, or by another process."""
    code = f"import sys, {program}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "dataplane" in loaded
    assert loaded & unneeded == set()
