"""`lb-control node drain` and `enable` with real data planes: nobody is cut before their time, and all is as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.backends import LineServer
from tests.support.clients import dial, say, wait_cut
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort

SOON = ("--settle", "0s", "--quiet", "200ms")


@pytest.fixture
def control(tmp_path_factory) -> Control:
    """Commands in directories of their own."""
    return Control(tmp_path_factory.mktemp("c"))


@pytest.fixture(params=["1", "2"], ids=["alone", "workers"])
def plane(request, control) -> Iterator[DataPlane]:
    """A data plane, with and without workers."""
    with DataPlane(["--workers", request.param], name="a", runtime_dir=control.runtime_dir) as plane:
        yield plane


@pytest.fixture
def address() -> Iterator[str]:
    """An address to listen on."""
    with HeldPort() as port:
        yield port.address


def test_the_last_connection_ends_by_itself(control, plane, address):
    """It is not cut, and the command returns when it has gone; new clients are served until the end."""
    with LineServer("one") as one:
        control.write(document(address, one.address, drain={"timeout": "1h"}))
        assert control("apply", control.file).code == 0
        client, done = dial(address), []
        assert say(client) == "one"
        draining = threading.Thread(target=lambda: done.append(control("node", "drain", "--wait", *SOON)))
        draining.start()
        plane.wait_status(lambda _: "draining by" in control("node").out)
        assert control("ready").code == 1
        with dial(address) as late:
            assert say(late) == "one"
        assert say(client) == "one"
        client.close()
        draining.join()
        assert done[0].code == 0
        assert "1 connection: web 1" in done[0].out
        assert "may be switched off" in done[0].out
        assert control("node", "enable").code == 0
        assert control("ready").code == 0


def test_what_is_left_is_cut_at_the_drain_timeout(control, plane, address):
    """Of its service; that is told, and the node may be switched off all the same."""
    with LineServer("one") as one:
        control.write(document(address, one.address, drain={"timeout": "300ms", "close": "0s"}))
        assert control("apply", control.file).code == 0
        with dial(address) as client:
            assert say(client) == "one"
            done = control("node", "drain", "--wait", *SOON)
            assert (done.code, done.err) == (0, "")
            assert "cut at their drain timeout: web 1" in done.out
            wait_cut(client)


def test_enabling_gives_back_what_was(control, plane, address):
    """Deadlines are gone, and an operator's words for backends are as they were, with their dates."""
    with LineServer("one") as one, LineServer("two") as two:
        backends = [{"id": each.name, "address": each.address} for each in (one, two)]
        control.write(document(address, *backends, drain={"timeout": "3s", "close": "0s"}))
        assert control("apply", control.file).code == 0
        assert control("drain", "web", "two").code == 0
        before = control("status", "--json").json()["overrides"]
        with dial(address) as client:
            assert say(client) == "one"
            late = control("node", "drain", "--wait", *SOON, "--timeout", "600ms")
            assert late.code == 1
            assert "still draining: still connected: 1 connection: web 1" in late.err
            assert control("node", "enable").code == 0
            assert control("status", "--json").json()["overrides"] == before
            assert plane.backend("web", "two")["state"] == "drain"
            assert control("node").out == "ready\n"
            # Its deadline would have been three seconds after the drain began.
            client.settimeout(4)
            with pytest.raises(TimeoutError):
                client.recv(1)
            assert say(client) == "one"


def test_it_outlives_everything(control, address):
    """Data plane and daemon end and begin again: the node is not ready, until somebody enables it."""
    control.write(document(address))
    arguments = ["--config", str(control.file)]
    with DataPlane(arguments, name="a", runtime_dir=control.runtime_dir) as plane:
        assert control("node", "drain", *SOON).code == 0
        assert plane.stop() == 0
        plane.start()
        assert "takes this node out, withdrawn for" in control("status").out
        with Daemon(control):
            assert "withdrawn: by" in control("ready").err
            assert "takes this node out, withdrawn for" in control("status").out
            assert control("status", "--json").json()["drain"]["phase"] == "withdrawn"
            assert control("node", "enable").code == 0
            assert control("ready").code == 0
            assert control("status", "--json").json()["drain"] is None
