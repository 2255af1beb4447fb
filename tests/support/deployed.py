"""Machines on which files of `deploy/` are where they belong, and work there as they are.

`/etc` and `/usr/bin` are this machine's with changes that nobody else sees, and `/var/lib` is empty.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.support.machine import Machine, Service
from tests.support.prefork import command
from tests.support.wait import wait_for

DEPLOY: Final = Path(__file__).resolve().parents[2] / "deploy"
OURS: Final = ("lb-control", "lb-dataplane")
_SCRATCH: Final = "/run/changes"
"""On the machine's own /run."""


@contextlib.contextmanager
def deployed(name: str) -> Iterator[Machine]:
    """Switch a machine on inside the block; our programs are in its /usr/bin, and it has the user `lb`."""
    lines = []
    for place in ("/etc", "/usr/bin"):
        upper, work = f"{_SCRATCH}{place}/upper", f"{_SCRATCH}{place}/work"
        lines += [
            f"mkdir -p {upper} {work}",
            f"mount -t overlay overlay -o lowerdir={place},upperdir={upper},workdir={work} {place}",
        ]
    lines += ["mount -t tmpfs tmpfs /var/lib"]
    lines += [f"ln -s {command(program)} /usr/bin/{program}" for program in OURS]
    # With the rights that systemd would give it: root's.
    lines += ["echo lb:x:0:0::/var/lib/lb:/bin/sh >>/etc/passwd", "echo lb:x:0: >>/etc/group"]
    lines += ["mkdir -m 700 /run/lb /var/lib/lb", "mkdir /run/bird /run/exabgp"]
    with Machine(name) as machine:
        machine.run("sh", "-ec", "\n".join(lines))
        yield machine


def put(machine: Machine, place: str, content: str) -> None:
    """Write a file of a machine."""
    path = inside(machine, place)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def inside(machine: Machine, place: str) -> Path:
    """Return where a path of a machine is, for whoever is not on it."""
    return Path(f"/proc/{machine.init}/root{place}")


@contextlib.contextmanager
def serving(machine: Machine, lb_yaml: str) -> Iterator[Service]:
    """Run a data plane of a machine, with its file where it belongs; it is ready in the block."""
    put(machine, "/etc/lb/lb.yaml", lb_yaml)
    with Service(machine, ["/usr/bin/lb-dataplane", "--config", "/etc/lb/lb.yaml"]) as plane:
        wait_for(lambda: inside(machine, "/run/lb/dataplane-main.sock").exists(), "the data plane's socket")
        yield plane
