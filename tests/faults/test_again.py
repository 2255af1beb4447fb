"""A process that drains gives its name away: the next one of that name serves at once, and nobody is lost."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.controlplane.operations.commands import Control, Daemon
from tests.support.clients import dial
from tests.support.dataplane import DataPlane, unix_request
from tests.support.site import Site
from tests.support.wait import wait_for


def draining(site: Site, pid: int) -> dict[str, Any]:
    """Return the status of a process that drains."""
    status, body = unix_request(site.plane.runtime_dir / f"draining-test.{pid}.sock", "GET", "/v1/status")
    assert status == 200
    answer: dict[str, Any] = body
    return answer


def end(site: Site) -> DataPlane:
    """Have the data plane begin to drain, and wait until it has given its name away; return it."""
    site.plane.send_signal(signal.SIGTERM)
    site.plane.wait_draining()
    return site.plane


@pytest.fixture
def control(site: Site) -> Control:
    """Return what operates on the data planes."""
    return Control(site.plane.directory)


def test_the_next_process_serves_while_the_former_one_drains(site: Site, control: Control) -> None:
    """It has the name, the addresses, the metrics' address and what ran; the former one's flow goes on, and is shown."""
    former = end(site)
    site.plane = site.another().start()
    site.client().close()
    assert site.plane.get("/v1/info")["generation"] == 1
    site.ask(site.flow)
    shown = draining(site, former.pid)
    assert shown["pid"] == former.pid
    assert shown["draining_since"]
    assert shown["services"]["web"]["active"] == 1
    report = control("status", "--json").json()
    assert report["converged"]
    assert [(each["name"], each["pid"]) for each in report["dataplanes"]] == [("test", site.plane.pid)]
    assert [(each["pid"], each["connections"]) for each in report["draining"]] == [(former.pid, 1)]
    site.flow.close()
    assert former.wait() == 0
    assert {path.name for path in site.plane.runtime_dir.glob("d*")} == {
        "dataplane-test.sock",
        "dataplane-test.sock.lock",
    }
    assert site.plane.get("/readyz") == {"status": "ok"}


def test_a_process_that_drains_changes_nothing(site: Site, control: Control) -> None:
    """What it is told to run is refused: it would take the addresses, and save over what its successor has saved."""
    former = end(site)
    report = control("status", "--json").json()
    assert (report["dataplanes"], [each["pid"] for each in report["draining"]]) == ([], [former.pid])
    assert control("ready").code == 1
    status, body = former.request("PUT", "/v1/snapshot", {"version": 1, "generation": 9, "services": {}})
    assert (status, body["code"]) == (503, "stopping")
    assert former.request("GET", "/readyz")[0] == 503


def test_a_former_process_that_was_killed_leaves_nothing_in_the_way(site: Site) -> None:
    """The next one removes its socket and its lock."""
    former = end(site)
    former.kill()
    site.another().start()
    assert not list(site.plane.runtime_dir.glob("draining-*"))


def test_a_second_signal_leaves_nothing_behind(site: Site) -> None:
    """What is left is cut, and no socket tells of a process that has ended."""
    former = end(site)
    former.send_signal(signal.SIGTERM)
    assert former.wait() == 1
    assert {path.name for path in former.runtime_dir.glob("d*")} == {"dataplane-test.sock.lock"}


def test_whoever_was_taken_over_is_shown_as_well(site: Site) -> None:
    """It has a socket of its own until its last flow has ended."""
    former = site.plane
    site.plane = site.another("--workers", "2", "--takeover").start()
    wait_for(lambda: '"draining"' in former.output, "the former process to move away")
    assert draining(site, former.pid)["services"]["web"]["active"] == 1
    site.flow.close()
    assert former.wait() == 0
    assert not list(site.plane.runtime_dir.glob("draining-*"))


def test_a_client_in_the_queue_is_served_before_the_name_is_free(site: Site) -> None:
    """Whoever had connected before is the former process's, and is not reset."""
    pids = {site.plane.pid, *(worker["pid"] for worker in site.plane.status()["workers"])}
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    waiting = [dial(site.port.address) for _ in range(5)]
    site.plane.send_signal(signal.SIGTERM)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: '"draining"' in site.plane.output, "the name to be free")
    for client in waiting:
        with client:
            site.ask(client)


def test_the_daemon_sees_one_leave_and_the_next_come(site: Site, control: Control) -> None:
    """It shows the former process as draining, and converges with the next one at once."""
    with Daemon(control):
        former = end(site)
        site.plane = site.another().start()
        control.wait_status(
            lambda now: (
                now["converged"]
                and [each["pid"] for each in now["dataplanes"]] == [site.plane.pid]
                and [each["pid"] for each in now["draining"]] == [former.pid]
            )
        )
        assert "draining" in control("status").out
        assert control("ready").code == 0
