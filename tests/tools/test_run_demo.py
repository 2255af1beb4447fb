"""`make run` shows a working balancer, ends in good order, and says why when it cannot start."""

import os
import re
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.backends import EchoServer
from tests.support.clients import ask
from tests.support.ports import HeldPort
from tests.support.process import Program
from tests.support.wait import wait_for

SCRIPT = Path(__file__).resolve().parents[2] / "tools/run_demo.py"


@pytest.fixture
def ports():
    """Three ports that nobody else takes."""
    with ExitStack() as stack:
        yield [stack.enter_context(HeldPort()) for _ in range(3)]


class RunDemo(Program):
    """The demonstration on other ports than usual."""

    def __init__(self, ports):
        super().__init__([sys.executable, str(SCRIPT), "--ports", *(str(held.port) for held in ports)])

    def ready(self):
        """Say yes once it tells what to try."""
        return "Ctrl-C ends" in self.output


def test_balances_and_ends(ports):
    """Both backends answer, an edit is applied, and SIGTERM ends every process with status 0."""
    with RunDemo(ports) as program:
        answers = {ask(ports[0].address).split()[1] for _ in range(4)}
        assert answers == {str(held.port).encode() for held in ports[1:]}

        config = Path(re.search(r"\$EDITOR (\S+)", program.output)[1])
        config.write_text(config.read_text().replace("mode: rr ", "mode: sticky "))
        wait_for(lambda: '"generation": 2' in program.output or "generation=2" in program.output, "the edit")

        assert program.stop() == 0
        assert not config.exists()


def test_says_which_port_is_taken(ports):
    """A port in use is named, and nothing is left running."""
    with EchoServer() as other, pytest.raises(AssertionError, match=f"port {other.port} cannot be used"):
        RunDemo([*ports[:2], other]).__enter__()


def test_ends_when_a_part_dies(ports):
    """A part that ends by itself ends the demonstration, with its name."""
    with RunDemo(ports) as program:
        answer = ask(ports[0].address).split()
        os.kill(int(answer[3]), signal.SIGKILL)
        assert program.wait() == 1
        assert f"run: backend {answer[1].decode()} ended with status -9" in program.output
