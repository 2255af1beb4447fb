"""What each kind of process loads: every package costs memory for as long as it runs, and time of each start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
                "structlog",
                "yaml",
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


@pytest.mark.parametrize("words", ["ready --timeout 1s", "status", "drain web web-1"])
def test_a_command_loads_only_what_it_needs(words: str, tmp_path: Path) -> None:
    """Keepalived asks every second: nothing that reads documents, or that only a table or the daemon needs."""
    code = f"""
import sys
sys.argv = ["lb-control", "--runtime-dir", {str(tmp_path)!r}, *{words.split()!r}]
from controlplane.cli import main
try:
    main()
except SystemExit:
    print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "controlplane" in loaded
    assert loaded & {"aiohttp", "consul", "pydantic", "prometheus_client", "rich", "yaml"} == set()
