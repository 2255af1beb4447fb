"""`--drain-detached`: whoever waits for the end of the main process need not wait for a drain."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from schemas.system.locks import is_free, lock_of
from tests.support.dataplane import DataPlane, unix_request
from tests.support.site import Site
from tests.support.wait import DEADLINE_S, wait_for


class Kept(DataPlane):
    """A data plane whose main process keeps another one, which does the work."""

    def started(self) -> int:
        """Return the pid of the one that does, of the start that was last."""
        lines = [json.loads(line) for line in self.output.splitlines() if '"started"' in line]
        return int(lines[-1]["pid"]) if lines else 0

    def ready(self) -> bool:
        """Tell whether that one serves the API."""
        return (
            bool(self.started())
            and self.socket.exists()
            and (self.get("/v1/info")["pid"] == self.started() != self.pid)
        )


@pytest.fixture
def site(workers: str) -> Iterator[Site]:
    """A data plane of each kind that is kept, with a client."""
    with ExitStack() as stack:
        yield Site(stack, "--workers", workers, "--drain-detached", kind=Kept)


def test_the_main_process_ends_while_the_other_one_drains(site: Site) -> None:
    """With SIGTERM it ends with 0 as soon as the name is free; the next one serves, and the flow goes on."""
    former = site.plane.started()
    assert site.plane.stop() == 0
    site.another().start()
    site.client().close()
    site.ask(site.flow)
    away = site.plane.runtime_dir / f"draining-test.{former}.sock"
    assert unix_request(away, "GET", "/v1/status")[1]["services"]["web"]["active"] == 1
    site.flow.close()
    wait_for(lambda: not away.exists(), "the former one to end")


def test_signals_reach_the_one_that_works(site: Site) -> None:
    """A reload of the main process is one of the data plane's."""
    site.plane.send_signal(signal.SIGHUP)
    wait_for(lambda: '"restarted"' in site.plane.output or '"reread"' in site.plane.output, "the reload")


def test_the_main_process_ends_as_the_other_one_does(site: Site) -> None:
    """A service manager sees a crash for what it is, and starts the next one."""
    os.kill(site.plane.started(), signal.SIGKILL)
    assert site.plane.wait() == -signal.SIGKILL


def test_nobody_is_lost_when_the_main_process_is_killed(site: Site) -> None:
    """The other one gives way as if it had been killed itself: who is in place is served, and the next one starts."""
    name = lock_of(site.plane.socket)
    site.plane.kill()
    wait_for(lambda: is_free(name), "the name to be free")
    site.another().start()
    site.client().close()
    site.ask(site.flow)


def test_the_service_manager_hears_of_the_main_process(site: Site) -> None:
    """READY names it; and the watchdog is the one's who works."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(site.plane.directory / "notify"))
        heard.settimeout(DEADLINE_S)
        site.plane.stop()
        site.plane._environment |= {
            "NOTIFY_SOCKET": str(site.plane.directory / "notify"),
            "WATCHDOG_USEC": "1000000",
        }
        # as a service manager does it: WATCHDOG_PID of the process itself
        site.plane.argv = ["/bin/sh", "-c", 'WATCHDOG_PID=$$ exec "$0" "$@"', *site.plane.argv]
        site.plane.start()
        said = {heard.recv(100) for _ in range(3)}
        assert f"READY=1\nMAINPID={site.plane.pid}".encode() in said
        assert b"WATCHDOG=1" in said
