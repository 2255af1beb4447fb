"""A bug of ours beside the connection path is told, and what has met it begins again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.backends import EchoServer
from tests.support.clients import dial, read_exactly
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

_BUGS = """
import os
from dataplane.net.prober import Prober
from dataplane.node.resolver import Resolver

def failing_once(kind, name):  # in the one process that checks and looks up
    sound = getattr(kind, name)

    def broken(self, *arguments):
        if os.path.exists(FLAG):
            setattr(kind, name, sound)
            raise ZeroDivisionError(f"a bug in {name}")
        return sound(self, *arguments)

    setattr(kind, name, broken)

failing_once(Prober, "_start_due")
failing_once(Resolver, "_names")
"""


@pytest.mark.parametrize("workers", ["1", "2"])
def test_checks_and_names_go_on(tmp_path: Path, workers: str) -> None:
    """Flows are untouched; a backend that dies afterwards is found to be down."""
    flag = tmp_path / "flag"
    (tmp_path / "sitecustomize.py").write_text(f"FLAG = {str(flag)!r}\n{_BUGS}")
    with (
        EchoServer() as server,
        HeldPort() as port,
        DataPlane(["--workers", workers], environment={"PYTHONPATH": str(tmp_path)}) as plane,
    ):
        check = {"type": "tcp", "interval": "50ms", "timeout": "1s", "rise": 1, "fall": 1}
        name = f"localhost:{server.address.rpartition(':')[2]}"
        service = {"listen": port.address, "backends": [name], "health": {"active": check}}
        plane.put_snapshot({"web": service})
        plane.wait_status(lambda now: now["services"]["web"]["backends"][0]["health"]["state"] == "up")
        with dial(port.address) as client:
            client.sendall(b"before")
            assert read_exactly(client, 6) == b"before"
            flag.touch()
            plane.put_snapshot({"web": {**service, "mode": "leastconn"}})  # which wakes the resolver
            for work in ("checking backends", "looking up names"):
                wait_for(lambda work=work: f"{work} failed, and begins again" in plane.output, work)
            assert "ZeroDivisionError: a bug in _start_due" in plane.output
            client.sendall(b"after")
            assert read_exactly(client, 5) == b"after"
            server.refuse()
            plane.wait_status(lambda now: now["services"]["web"]["backends"][0]["health"]["state"] == "down")
        assert plane.stop() == 0
