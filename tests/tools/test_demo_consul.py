"""`make demo-consul` shows what it promises, with a real Consul."""

import sys
from pathlib import Path

import pytest

from tests.support.process import Program

SCRIPT = Path(__file__).resolve().parents[2] / "tools/demo_consul.py"


@pytest.mark.needs("consul")
@pytest.mark.timeout(90)
def test_traffic_does_not_notice():
    """The demonstration goes through all its steps, and no client fails."""
    with Program([sys.executable, str(SCRIPT)]) as program:
        status = program.wait(60)
        assert status == 0, program.output
        assert " 0 failed." in program.output
        assert "knows nothing: 6 instances held (empty)" in program.output
