"""`make screenshots`: docs/images/*.png, from a real daemon under load, in a real Chromium and a real terminal.

The page, light and dark, and `lb-control top`. A node with three services, one backend that is drained and one
that is down, watched for as long as a sparkline is wide. With `--all` the other views and widths of the page are
written as well, to be looked at.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.controlplane.operations.commands import Control, Daemon
from tests.support.backends import LineServer
from tests.support.browser import Browser
from tests.support.dataplane import DataPlane
from tests.support.load import Load
from tests.support.ports import HeldPort
from tests.support.prefork import command
from tests.support.terminal import Terminal
from tools import terminal_picture

IMAGES: Final = Path(__file__).resolve().parents[1] / "docs/images"
WATCHED_S: Final = 62.0
TOKEN: Final = "for-the-screenshot"  # noqa: S105 - of a daemon that lives for a minute
CHECKS: Final = {"active": {"type": "tcp", "interval": "1s", "timeout": "500ms", "fall": 2}}
VIEWS: Final = ("services", "events", "history", "sources", "dataplanes")
SIZES: Final = {"wide": (1280, 960), "narrow": (360, 780)}
TERMINAL: Final = (126, 22)
"""Columns and lines."""
SETTLING_S: Final = 0.5
"""For colours that change gradually."""


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


@contextlib.contextmanager
def traffic(listeners: tuple[str, ...]) -> Iterator[None]:
    """Let clients come, now more and now fewer."""
    ends = threading.Event()
    chance = random.Random(7)

    def bursts() -> None:
        while not ends.is_set():
            with Load(chance.choice(listeners), rate=chance.choice([20, 60, 120]), flows=4):
                ends.wait(chance.uniform(1.0, 3.0))

    with contextlib.ExitStack() as stack:
        for listener, flows in zip(listeners, (40, 12, 6), strict=True):
            stack.enter_context(Load(listener, rate=12, flows=flows, interval_s=0.2))
        thread = threading.Thread(target=bursts)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()


def enter(browser: Browser, url: str) -> None:
    """Open the page, and give it the token."""
    browser.open(url)
    browser.wait_true("!document.getElementById('gate').hidden")
    browser.type("#gate-token", TOKEN + "\ue007")
    browser.wait_true("document.querySelectorAll('tr[data-backend]').length > 0")


@contextlib.contextmanager
def top(made: Node) -> Iterator[Terminal]:
    """Run `lb-control top` in a terminal."""
    width, height = TERMINAL
    argv = [command("lb-control"), "top"]
    with Terminal(argv, made.control.environment, width=width, height=height) as terminal:
        terminal.wait_text("backends")
        terminal.press("jjj")  # the troubled rows keep their colours
        yield terminal


def shoot_page(browser: Browser, to: Path, *, everything: bool) -> None:
    """Write the pictures of the page."""
    browser.screenshot(to / "dashboard.png")
    browser.prefer(dark=True)
    time.sleep(SETTLING_S)
    browser.screenshot(to / "dashboard-dark.png")
    if not everything:
        return
    for size, (width, height) in {**SIZES, "narrow": (SIZES["narrow"][0], 2000)}.items():
        browser.resize(width, height)
        for dark in (False, True):
            browser.prefer(dark=dark)
            for view in VIEWS:
                browser.script("return import('/state.js').then(({act}) => act.choose(arguments[0]))", view)
                time.sleep(1.5)
                name = f"{view}-{size}-{'dark' if dark else 'light'}.png"
                browser.screenshot(to / name)


def shoot_top(browser: Browser, terminal: Terminal, to: Path, directory: Path) -> None:
    """Write the picture of `lb-control top`."""
    terminal.wait_text("conn/s")
    page = directory / "top.html"
    page.write_text(terminal_picture.page(terminal.cells()))
    browser.open(page.as_uri())
    size = "const box = document.querySelector('pre').getBoundingClientRect(); return [box.width, box.height]"
    width, height = browser.script(size)
    browser.resize(math.ceil(width), math.ceil(height))
    browser.screenshot(to / "top.png")


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
        with top(made) as terminal, traffic(made.listeners):
            time.sleep(arguments.seconds)
            shoot_page(browser, arguments.to, everything=arguments.all)
            shoot_top(browser, terminal, arguments.to, Path(directory))


if __name__ == "__main__":
    main()
