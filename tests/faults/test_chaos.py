"""Everything at once: rude clients, rude backends and changes; afterwards nothing is left of any of it."""

from __future__ import annotations

import random
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.dataplane.net.through import through
from tests.support.backends import (
    BannerServer,
    EarlyAnswerer,
    EchoServer,
    HalfCloser,
    LineServer,
    Resetter,
    Source,
)
from tests.support.clients import ask, dial, reset
from tests.support.dataplane import DataPlane
from tests.support.ports import HeldPort
from tests.support.wait import wait_for

CLIENTS = 240
SNAPSHOTS = 40


def rude_client(address, rng):
    """Connect, do something between polite and rude, and leave somehow."""
    try:
        with dial(address, timeout_s=rng.choice([0.05, 0.5])) as sock:
            for _ in range(rng.randrange(4)):
                what = rng.randrange(5)
                if what == 0:
                    sock.sendall(b"x" * rng.choice([1, 1000, 200_000]))
                elif what == 1:
                    sock.recv(rng.choice([1, 65536]))
                elif what == 2:
                    sock.sendall(b"line\n")
                elif what == 3:
                    sock.shutdown(socket.SHUT_WR)
                else:
                    time.sleep(rng.random() * 0.02)
            if rng.randrange(3) == 0:
                reset(sock)
    except OSError:
        pass  # whatever it met, it is gone now


def crowd(address, seed):
    """Start clients in some threads; return the threads."""

    def work(number):
        rng = random.Random(f"{seed} {number}")
        for _ in range(CLIENTS // 8):
            rude_client(address, rng)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    return threads


def descriptors(pid):
    """Count the open descriptors of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.parametrize("mode", ["off", "preconnect", "reuse"])
def test_nothing_is_left(mode):
    """After the storm: no connection, no descriptor, no error of ours, every client accounted for, and service."""
    rng = random.Random(mode)
    with ExitStack() as stack:
        kinds = [
            LineServer("line"),
            BannerServer("banner"),
            EchoServer(),
            HalfCloser(answer=b"x" * 100_000),
            EarlyAnswerer(),
            Resetter(after=1000),
            Resetter(after=0),
            Source(data=b"y" * 300_000),
        ]
        backends = [stack.enter_context(kind).address for kind in kinds] + [
            stack.enter_context(HeldPort()).address
        ]
        plane = stack.enter_context(DataPlane())
        service = stack.enter_context(through(plane, *backends))
        before = descriptors(plane.pid)
        threads = crowd(service.address, mode)
        for _ in range(SNAPSHOTS):
            chosen = rng.sample(backends, rng.randrange(1, len(backends)))
            service.configure(
                *({"address": one, "tier": rng.randrange(2), "weight": rng.randrange(3)} for one in chosen),
                mode=rng.choice(["rr", "sticky", "leastconn", "p2c", "random"]),
                pool={"mode": mode, "min_idle": rng.randrange(3), "max_idle": 5, "idle_timeout": "200ms"},
                timeouts={"idle": rng.choice(["100ms", "10s"]), "half_closed": "300ms", "lifetime": "2s"},
                limits={
                    "connections": rng.choice([0, 5]),
                    "per_backend": rng.choice([0, 2]),
                    "per_client": rng.choice([0, 6]),
                    "queue": rng.choice([0, 3]),
                    "queue_timeout": "100ms",
                },
                drain={"timeout": rng.choice(["50ms", "10s"]), "close": "50ms"},
                health={
                    "active": {"type": rng.choice(["none", "tcp"]), "interval": "100ms"},
                    "passive": {
                        "failures": rng.randrange(4),
                        "ejection": "100ms",
                        "max_ejection": "1s",
                        "resets": rng.choice(["off", "unprovoked", "any"]),
                    },
                },
            )
            time.sleep(rng.random() * 0.03)
        for thread in threads:
            thread.join()
        one = stack.enter_context(LineServer("after"))
        service.configure(one.address)

        status = service.wait(lambda now: now["active"] == 0 and len(now["backends"]) == 1)
        totals = status["totals"]
        assert sum(totals["closed"].values()) == totals["connections"] == CLIENTS
        assert "local_error" not in totals["closed"]
        assert status["queued"] == 0
        assert not plane.metrics().value("lb_pool_idle", service=service.name)
        wait_for(lambda: descriptors(plane.pid) <= before, "every descriptor to be closed")
        assert "Traceback" not in plane.output
        assert '"level": "error"' not in plane.output
        assert {ask(service.address) for _ in range(5)} == {b"after:hello\n"}
