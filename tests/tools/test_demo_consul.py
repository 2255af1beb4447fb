"""`make demo-consul` shows what it promises, with a real Consul."""

import sys

import pytest

from tests.support.process import Program


@pytest.mark.needs("consul")
@pytest.mark.timeout(90)
def test_traffic_does_not_notice():
    """The demonstration goes through all its steps, and no client fails."""
    with Program([sys.executable, "-m", "tools.demo_consul"]) as program:
        status = program.wait(60)
        assert status == 0, program.output
        assert " 0 failed." in program.output
        assert "knows nothing: 6 instances held (empty)" in program.output
