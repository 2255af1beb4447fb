"""`make screenshots`: the command makes every picture of docs/images, of something."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tools.screenshot import IMAGES

ROOT = Path(__file__).resolve().parents[2]


def colours(png: bytes) -> int:
    """Count how many different scan lines a PNG has; a blank one has one."""
    width, _, depth, kind = struct.unpack(">IIBB", png[16:26])
    assert (depth, kind) in {(8, 2), (8, 6)}
    data, at = b"", 8
    while at < len(png):
        size, name = struct.unpack(">I4s", png[at : at + 8])
        data += png[at + 8 : at + 8 + size] if name == b"IDAT" else b""
        at += size + 12
    raw, stride = zlib.decompress(data), width * (3 if kind == 2 else 4) + 1
    return len({raw[begin : begin + stride] for begin in range(0, len(raw), stride)})


@pytest.mark.needs("chromium", "chromedriver", "setsid")
@pytest.mark.timeout(120)
def test_every_picture_is_made_again(tmp_path):
    """What the documentation shows is what the command writes, and none of it is blank."""
    argv = [sys.executable, "-m", "tools.screenshot", "--to", str(tmp_path), "--seconds", "1"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode == 0, done.stderr
    made = {each.name: each.read_bytes() for each in tmp_path.iterdir()}
    assert made.keys() == {"dashboard.png", "dashboard-dark.png", "top.png"}
    assert made.keys() == {each.name for each in IMAGES.iterdir()}
    assert all(colours(each) > 100 for each in made.values())


def test_documentation_shows_them():
    """README names the page's picture and that of top."""
    readme = (ROOT / "README.md").read_text()
    assert "docs/images/dashboard.png" in readme
    assert "docs/images/top.png" in readme
