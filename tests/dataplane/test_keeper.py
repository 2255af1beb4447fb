"""What a data plane has to do with the process that a service manager knows."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from dataplane.keeper import Kept


@pytest.fixture
def pipes(monkeypatch):
    """A keeper's ends of both pipes; the data plane's are named in its environment."""
    its_input, our_output = os.pipe()
    our_input, its_output = os.pipe()
    monkeypatch.setenv("LB_KEEPER", f"7 {its_input} {its_output}")
    yield our_input, our_output
    for end in (our_input, our_output):
        with contextlib.suppress(OSError):  # the test has closed it
            os.close(end)


async def test_without_a_keeper():
    """This process is the one that the service manager knows, and nobody has to be let go."""
    kept = Kept(asyncio.get_running_loop(), lambda: None)
    assert kept.main_pid == os.getpid()
    kept.let_go()


async def test_a_keeper_is_let_go_once(pipes):
    """It hears one word, and then the end."""
    kept = Kept(asyncio.get_running_loop(), lambda: None)
    assert (kept.main_pid, "LB_KEEPER" in os.environ) == (7, False)
    kept.let_go()
    kept.let_go()
    assert (os.read(pipes[0], 9), os.read(pipes[0], 9)) == (b"x", b"")


async def test_a_keeper_that_is_killed(pipes):
    """It is told, once."""
    lost = asyncio.Event()
    kept = Kept(asyncio.get_running_loop(), lost.set)
    os.close(pipes[1])
    await lost.wait()
    kept.let_go()
    assert os.read(pipes[0], 9) == b""
