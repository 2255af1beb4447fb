"""tools/test-pythons: which Pythons it takes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def commands(tmp_path):
    """A folder with all commands that there are."""
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name))
    return tmp_path


def pythons(commands):
    """Run it with these commands only."""
    argv = [commands / "bash", ROOT / "tools/test-pythons"]
    return subprocess.run(argv, env={"PATH": str(commands)}, check=False, capture_output=True, text=True)


def test_one_python(commands):
    """There is nothing to do, and that is no failure."""
    done = pythons(commands)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("is the only one here; nothing more to run\n")


def test_pythons_that_cannot_be_used(commands):
    """One that is too old is passed over, and so is one that only pretends; of one that lacks something that is said."""
    for name, words in (("python3.12", "exit 127"), ("python3.13", "echo 3.10"), ("python3.14", "echo 3.14")):
        (commands / name).write_text(f"#!{commands}/bash\n{words}\n")
        (commands / name).chmod(0o755)
    done = pythons(commands)
    assert done.returncode == 0
    assert done.stdout == "Python 3.14:\n"
    assert done.stderr.endswith(
        "Python 3.14: what the tests need cannot be installed there; they are not run\n"
    )
