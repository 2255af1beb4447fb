"""Root's commands beside a service that runs as a user of its own: neither stands in the other's way."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.controlplane.operations.commands import Control, Daemon, document
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.users import SERVICE, as_service, needs_two_users, owner

pytestmark = needs_two_users

CONTROL = ("controlplane", "controlplane.cli.entry")


class ServiceDaemon(Daemon):
    """`lb-control run` as the service's user."""

    def __init__(self, control: Control, *arguments: object) -> None:
        super().__init__(control, *arguments)
        self.argv = [*as_service(*CONTROL), "run", *map(str, arguments)]
        os.chown(self.directory, SERVICE.pw_uid, SERVICE.pw_gid)


class ServicePlane(DataPlane):
    """`lb-dataplane` as the service's user."""

    def __init__(self, control: Control) -> None:
        super().__init__(name="a", runtime_dir=control.runtime_dir)
        self.argv = [*as_service("dataplane", "dataplane.cli"), *self.argv[1:]]
        self._environment |= control.environment
        os.chown(self.directory, SERVICE.pw_uid, SERVICE.pw_gid)


@pytest.fixture
def control() -> Iterator[Control]:
    """Root's commands in directories of the service's, as systemd makes them."""
    with tempfile.TemporaryDirectory(prefix="lb-test-") as made:
        control = Control(Path(made))
        control.directory.chmod(0o755)
        for directory in (control.runtime_dir, control.state_dir):
            directory.mkdir(mode=0o700)
            os.chown(directory, SERVICE.pw_uid, SERVICE.pw_gid)
        yield control


@pytest.fixture
def plane(control) -> Iterator[DataPlane]:
    """The service's data plane."""
    with ServicePlane(control) as plane:
        yield plane


def states(control):
    """Return what state `status` shows of each backend."""
    status = control("status", "--json").json()
    return {each["id"]: each["state"] for each in status["services"]["web"]["backends"]}


def test_root_applies_and_drains_before_the_daemon_runs(control, plane):
    """The daemon starts with what root applied, and keeps what root drained."""
    with HeldPort() as port:
        backends = [{"id": name, "address": f"127.0.0.1:{number}"} for number, name in enumerate("ab", 1)]
        done = control("apply", control.write(document(port.address, *backends)))
        assert (done.code, done.err) == (0, "")
        with ServiceDaemon(control) as daemon:
            assert control("history", "--json").json()[0]["by"] == "root"
            done = control("apply", control.write(document(port.address, *backends, mode="random")))
            assert (done.code, done.err) == (0, "")
            daemon.stop()
            assert "unknown" not in daemon.output
        assert control("drain", "web", "a").code == 0
        with ServiceDaemon(control):
            status = control("status", "--json").json()
            assert [each["name"] for each in status["sources"]] == []
            assert states(control) == {"a": "drain", "b": "enabled"}
    for path in control.state_dir.rglob("*"):
        assert owner(path) == SERVICE.pw_name, path


def test_root_was_the_daemon_and_the_data_plane_once(control):
    """The locks that root's processes leave behind do not keep the service out."""
    with Daemon(control), DataPlane(name="a", runtime_dir=control.runtime_dir):
        assert owner(control.runtime_dir / "dataplane-a.sock") == "root"
    with ServiceDaemon(control), ServicePlane(control) as plane:
        assert plane.get("/v1/info")["name"] == "a"


def test_the_state_was_made_unreadable(control, plane):
    """The daemon starts, says in `status` what it does not know and what to do, and serves what the history has."""
    with HeldPort() as port:
        control("apply", control.write(document(port.address, "127.0.0.1:1")))
        state = control.state_dir / "control" / "state.json"
        os.chown(state, 0, 0)
        with ServiceDaemon(control) as daemon:
            status = control("status", "--json").json()
            (source,) = [each for each in status["sources"] if each["name"] == "overrides"]
            assert source["state"] == "error"
            assert f"sudo chown nobody {state}" in source["last_error"]
            assert "Traceback" not in daemon.output
            assert list(states(control)) == ["127.0.0.1:1"]


@pytest.mark.parametrize("arguments", [["status"], ["history"], ["ready"], ["drain", "web", "a"]])
def test_somebody_elses_directories(control, arguments):
    """Who may not look into a directory is told whose it is, and nothing is taken for missing."""
    for directory in (control.runtime_dir, control.state_dir):
        os.chown(directory, 0, 0)
    with Daemon(control):
        control.command = as_service(*CONTROL)
        done = control(*arguments)
    assert done.code == 1
    assert done.out == ""
    assert f"{control.runtime_dir} belongs to root, not to nobody; use sudo" in done.err
    assert "Traceback" not in done.err
