"""`python tools/screenshot.py`: docs/images/dashboard.png, from a real daemon under load in a real Chromium.

A node with three services, one backend that is drained and one that is down, watched for as long as a sparkline
is wide. With `--all` the other views, widths and the dark colours are written as well, to be looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.controlplane.commands import Control, Daemon
from tests.support.backends import LineServer
from tests.support.browser import Browser
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort

__all__ = ["main"]

IMAGES: Final = Path(__file__).resolve().parents[1] / "docs/images"
WATCHED_S: Final = 62.0
TOKEN: Final = "for-the-screenshot"  # noqa: S105 - of a daemon that lives for a minute
CHECKS: Final = {"active": {"type": "tcp", "interval": "1s", "timeout": "500ms", "fall": 2}}
VIEWS: Final = ("services", "events", "history", "sources", "dataplanes")
SIZES: Final = {"wide": (1280, 960), "narrow": (360, 780)}


@dataclass(frozen=True)
class Node:
    """What the pictures are taken of."""

    control: Control
    url: str
    listeners: tuple[str, ...]


def document(listeners: tuple[str, ...], servers: dict[str, list[LineServer]]) -> dict[str, Any]:
    """Write the node's lb.yaml."""
    modes: dict[str, dict[str, Any]] = {
        "cache": {"mode": "p2c", "pool": {"mode": "reuse"}},
        "mail": {"mode": "sticky"},
        "web": {"mode": "leastconn"},
    }
    services = {}
    for (name, options), listen in zip(modes.items(), listeners, strict=True):
        backends = [
            {"id": f"{name}-{number}", "address": server.address, "weight": 1 + number % 2}
            for number, server in enumerate(servers[name], 1)
        ]
        services[name] = {"listen": listen, "backends": backends, "health": CHECKS, **options}
    return {"version": 1, "services": services}


@contextlib.contextmanager
def node(directory: Path) -> Iterator[Node]:
    """Run the node."""
    control = Control(directory)
    token = directory / "token"
    token.write_text(TOKEN)
    with contextlib.ExitStack() as stack:
        ports = [stack.enter_context(HeldPort()) for _ in range(4)]
        counts = {"cache": 4, "mail": 2, "web": 4}
        servers = {
            name: [stack.enter_context(LineServer(f"{name}-{number}")) for number in range(count)]
            for name, count in counts.items()
        }
        listeners = tuple(port.address for port in ports[:3])
        stack.enter_context(DataPlane(["--workers", "2"], name="edge-1", runtime_dir=control.runtime_dir))
        wanted = document(listeners, servers)
        wanted["services"]["web"]["backends"][0]["weight"] = 1
        control.write(wanted)
        arguments = ["--http", ports[3].address, "--http-token-file", token]
        stack.enter_context(Daemon(control, control.file, *arguments))
        control.wait_status(lambda status: status["converged"] and status["generation"] == 1)
        wanted["services"]["web"]["backends"][0]["weight"] = 3
        wanted["services"]["mail"]["backends"].append({"id": "mail-3", "address": servers["mail"][0].address})
        control.write(wanted)
        control.wait_status(lambda status: status["converged"] and status["generation"] == 2)  # noqa: PLR2004
        control("drain", "cache", "cache-4")
        servers["cache"][1].stop()
        yield Node(control, f"http://{ports[3].address}/", listeners)


def work(listeners: tuple[str, ...], seconds: float) -> None:
    """Let clients come, now more and now fewer."""
    end = time.monotonic() + seconds
    chance = random.Random(7)
    with contextlib.ExitStack() as stack:
        for listener, flows in zip(listeners, (40, 12, 6), strict=True):
            stack.enter_context(Load(listener, rate=12, flows=flows, interval_s=0.2))
        while time.monotonic() < end:
            listener = chance.choice(listeners)
            with Load(listener, rate=chance.choice([20, 60, 120]), flows=4):
                time.sleep(chance.uniform(1.0, 3.0))


def enter(browser: Browser, url: str) -> None:
    """Open the page, and give it the token."""
    browser.open(url)
    browser.wait_true("!document.getElementById('gate').hidden")
    browser.type("#gate-token", TOKEN + "\ue007")
    browser.wait_true("document.querySelectorAll('tr[data-backend]').length > 0")


def shoot(browser: Browser, to: Path, *, everything: bool) -> None:
    """Write the pictures."""
    browser.screenshot(to / "dashboard.png")
    if not everything:
        return
    for size, (width, height) in {**SIZES, "narrow": (SIZES["narrow"][0], 2000)}.items():
        browser.resize(width, height)
        for dark in (False, True):
            browser.prefer(dark=dark)
            for view in VIEWS:
                browser.script("location.hash = arguments[0]", view)
                time.sleep(1.5)
                name = f"{view}-{size}-{'dark' if dark else 'light'}.png"
                browser.screenshot(to / name)


def main() -> None:
    """Make the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=IMAGES, help="where to write them")
    parser.add_argument("--all", action="store_true", help="every view, light and dark, wide and narrow")
    parser.add_argument("--seconds", type=float, default=WATCHED_S, help="how long to watch before")
    arguments = parser.parse_args()
    width, height = SIZES["wide"]
    with (
        tempfile.TemporaryDirectory(prefix="lb-shot-") as directory,
        node(Path(directory)) as made,
        Browser(width=width, height=height) as browser,
    ):
        enter(browser, made.url)
        work(made.listeners, arguments.seconds)
        shoot(browser, arguments.to, everything=arguments.all)


if __name__ == "__main__":
    main()
