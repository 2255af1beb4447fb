"""A port is open only where somebody accepts from it, whoever has held its socket before."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.support.site import Site
from tests.support.wait import wait_for


def test_a_port_is_closed_when_a_successor_has_stopped(site: Site) -> None:
    """The predecessor, which still drains, has let go of the sockets: nobody waits in a queue that nobody serves."""
    successor = site.take_over()
    site.client().close()
    assert successor.stop() == 0
    assert site.refused()
    site.ask(site.flow)


def test_a_port_is_closed_when_a_successor_was_killed(site: Site) -> None:
    """The same if it and its workers have no time to close anything."""
    successor = site.take_over()
    workers = [worker["pid"] for worker in successor.status()["workers"]]
    successor.kill()
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    wait_for(site.refused, "the port to be closed")
    site.ask(site.flow)


def test_a_port_is_closed_that_is_in_no_snapshot(site: Site) -> None:
    """Of a supervisor that was killed and comes back knowing nothing, as one without its --config does."""
    site.plane.kill()
    for saved in site.plane.state_dir.iterdir():
        saved.unlink()
    site.plane.start()
    wait_for(site.refused, "the port to be closed")


def test_what_was_configured_is_saved_by_whoever_takes_it_over(site: Site) -> None:
    """Its predecessor had it from elsewhere, and the next start may not."""
    for saved in site.plane.state_dir.iterdir():
        saved.unlink()
    successor = site.take_over()
    wait_for((site.plane.state_dir / "dataplane-test.json").exists, "the snapshot to be saved")
    successor.kill()
    site.plane.start()
    wait_for(lambda: site.plane.get("/v1/info")["generation"] == 1, "what ran to run again")
    site.client().close()


def test_a_successor_that_is_told_to_end_while_it_starts_takes_nothing(site: Site) -> None:
    """Whoever runs goes on: a port that was served is served."""
    site.plane.send_signal(signal.SIGSTOP)
    successor = site.another("--workers", "2", "--takeover")
    successor._spawn()
    wait_for(lambda: _catches(successor.pid, signal.SIGTERM), "the successor to hear signals")
    successor.send_signal(signal.SIGTERM)
    site.plane.send_signal(signal.SIGCONT)
    assert successor.wait(20) == 1
    assert "this process was told to end" in successor.output
    site.client().close()
    site.ask(site.flow)
    assert site.plane.get("/readyz") == {"status": "ok"}


def _catches(pid: int, number: signal.Signals) -> bool:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(fields["SigCgt"], 16) >> (number - 1) & 1)
