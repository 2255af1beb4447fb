"""The soak runs; how long is up to who starts it."""

import subprocess
import sys
from pathlib import Path

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
