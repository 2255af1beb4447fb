"""The soak runs; how long is up to who starts it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.namespaces import needs_namespaces

ROOT = Path(__file__).resolve().parents[2]


def test_soak_passes():
    """A second of changes under load loses nothing."""
    done = subprocess.run(
        [sys.executable, "tools/soak.py", "--seconds", "1", "--workers", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "none failed" in done.stdout


@needs_namespaces
@pytest.mark.needs("consul")
@pytest.mark.needs("bird")
@pytest.mark.needs("exabgp")
@pytest.mark.timeout(180)
def test_soak_of_a_cluster_passes():
    """One round of a cluster's soak finds nobody who failed without a reason."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.soak_cluster", "--seconds", "0.1", "--only", "kill"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok   kill" in done.stdout
