"""`make run` shows a working balancer, ends in good order, and says why when it cannot start."""

import http.client
import json
import os
import re
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from schemas.desired import json_schema
from tests.support.backends import EchoServer
from tests.support.clients import ask
from tests.support.ports import HeldPort
from tests.support.process import Program
from tests.support.wait import wait_for

SCRIPT = Path(__file__).resolve().parents[2] / "tools/run_demo.py"


@pytest.fixture
def ports():
    """Four ports that nobody else takes: the listener's, the backends', the page's."""
    with ExitStack() as stack:
        yield [stack.enter_context(HeldPort()) for _ in range(4)]


class RunDemo(Program):
    """The demonstration on other ports than usual."""

    def __init__(self, ports):
        *served, page = (str(held.port) for held in ports)
        super().__init__([sys.executable, str(SCRIPT), "--ports", *served, "--http", page])

    def ready(self):
        """Say yes once it tells what to try."""
        return "Ctrl-C ends" in self.output


def test_balances_and_ends(ports):
    """Both backends answer, editors know the file, an edit is applied, and SIGTERM ends every process with status 0."""
    with RunDemo(ports) as program:
        answers = {ask(ports[0].address).split()[1] for _ in range(4)}
        assert answers == {str(held.port).encode() for held in ports[1:3]}

        config = Path(re.search(r"\$EDITOR (\S+)", program.output)[1])
        schema = re.match(r"# yaml-language-server: \$schema=(\S+)\n", config.read_text())[1]
        assert json.loads((config.parent / schema).read_text()) == json_schema(), (
            "editors find what they need"
        )
        config.write_text(config.read_text().replace("mode: rr ", "mode: sticky "))
        wait_for(lambda: '"generation": 2' in program.output or "generation=2" in program.output, "the edit")

        assert program.stop() == 0
        assert not config.exists()


def test_the_page_takes_the_token_that_is_printed(ports):
    """Whoever opens the page sees what runs, and may drain."""
    with RunDemo(ports) as program:
        host, port, token = re.search(
            r"The page: +http://([\d.]+):(\d+)/ +its token: +(\S+)", program.output
        ).groups()
        for headers, wanted in (({"Authorization": f"Bearer {token}"}, 200), ({}, 401)):
            connection = http.client.HTTPConnection(host, int(port))
            connection.request("GET", "/v1/status", headers=headers)
            answer = connection.getresponse()
            assert answer.status == wanted
            assert ("web" in json.loads(answer.read()).get("services", {})) == (wanted == 200)
            connection.close()


def test_says_which_port_is_taken(ports):
    """A port in use is named, and nothing is left running."""
    with EchoServer() as other, pytest.raises(AssertionError, match=f"port {other.port} cannot be used"):
        RunDemo([*ports[:2], other, ports[3]]).__enter__()


def test_ends_when_a_part_dies(ports):
    """A part that ends by itself ends the demonstration, with its name."""
    with RunDemo(ports) as program:
        answer = ask(ports[0].address).split()
        os.kill(int(answer[3]), signal.SIGKILL)
        assert program.wait() == 1
        assert f"run: backend {answer[1].decode()} ended with status -9" in program.output
