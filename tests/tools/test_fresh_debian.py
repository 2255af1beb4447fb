"""tools/fresh-debian: what it refuses; the rest needs minutes and a mirror."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools/fresh-debian"


@pytest.mark.parametrize("arguments", [[], ["11", "run"], ["12"], ["13", "tset"]])
def test_usage(arguments):
    """What is no release and no command says what is, before anything is made."""
    done = subprocess.run([SCRIPT, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage: tools/fresh-debian 12|13 run|test|shell" in done.stderr


def test_it_is_a_script():
    """Bash can read all of it."""
    subprocess.run(["bash", "-n", SCRIPT], check=True)
