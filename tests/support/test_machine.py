"""Machines made of namespaces: what they are, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.backends import LineServer
from tests.support.clients import ask
from tests.support.machine import Machine, Service, cable, state
from tests.support.namespaces import needs_namespaces
from tests.support.wait import wait_for

pytestmark = [needs_namespaces]


def test_own_name_processes_and_network():
    """A machine sees its own processes, name and network, and nobody else's."""
    with Machine("alone") as machine:
        assert machine.run("hostname") == "alone\n"
        assert machine.run("sh", "-c", "echo $$ && exec ls /sys/class/net /proc").splitlines().count("1") == 1
        assert machine.run("ip", "-oneline", "link").count("\n") == 1


def test_joined_by_a_cable():
    """What is served on one machine is reached from the other, and from nowhere else."""
    with Machine("one") as one, Machine("two") as two:
        cable(one, "eth0", two, "eth0")
        one.ip("address add 10.9.8.1/24 dev eth0", "link set eth0 up")
        two.ip("address add 10.9.8.2/24 dev eth0", "link set eth0 up")
        with one.entered():
            server = LineServer("one", host="10.9.8.1", port=7000).start()
        try:
            with two.entered():
                assert ask(server.address, b"hello\n") == b"one:hello\n"
        finally:
            server.close()


@pytest.mark.parametrize("frozen", [False, True])
def test_power_cut(frozen):
    """When a machine is switched off, what ran on it is gone, though it was stopped; it can be switched on again."""
    with Machine("cut") as machine:
        program = Service(machine, ["sleep", "1000"]).start()
        pid = program.pid
        if frozen:
            machine.freeze()
            assert state(pid) == "T"
        machine.off()
        assert state(pid) == ""
        program.close()
        machine.on()
        assert machine.run("echo", "back") == "back\n"


def test_frozen_and_thawed():
    """What is frozen goes on where it was, and can be ended."""
    with Machine("cold") as machine, Service(machine, ["sleep", "1000"]) as program:
        machine.freeze()
        assert state(program.pid) == "T"
        machine.thaw()
        wait_for(lambda: state(program.pid) == "S", "it to go on")
        program.send_signal(signal.SIGTERM)
        assert program.wait() != 0


@pytest.mark.parametrize("frozen", [False, True])
def test_nothing_is_left_of_a_test_that_is_killed(frozen, tmp_path):
    """Killed with no chance to clean up, a test takes its machines with it, also those that were frozen."""
    told = tmp_path / "pids"
    script = (
        "import time; from pathlib import Path; from tests.support.machine import Machine, Service\n"
        "with Machine('left') as machine, Service(machine, ['sleep', '1000']) as program:\n"
        f"    machine.freeze() if {frozen} else None\n"
        f"    Path({str(tmp_path)!r}, 'beside').write_text(f'{{machine.init}} {{program.pid}}')\n"
        f"    Path({str(tmp_path)!r}, 'beside').rename({str(told)!r})\n"
        "    time.sleep(1000)\n"
    )
    test = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).resolve().parents[2])
    wait_for(told.exists, "the machine to be on")
    pids = [int(text) for text in told.read_text().split()]
    assert all(state(pid) for pid in pids)
    os.kill(test.pid, signal.SIGKILL)
    test.wait()
    wait_for(lambda: not any(state(pid) for pid in pids), "its processes to be gone")
