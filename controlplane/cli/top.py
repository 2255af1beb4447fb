"""The live view: backends, their load and rates; keys to drain and enable."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import click

from controlplane import calls
from controlplane.cli import output
from controlplane.core.rates import Buckets, Look, Row, rows
from controlplane.errors import ControlError, DataPlaneError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from controlplane.cli.settings import Settings

__all__ = ["Selection", "connect_buckets", "key_action", "top", "view"]

_PERIOD_S: Final = 1.0
_METRICS_S: Final = 2.0
_ACTIONS: Final = {
    b"q": "quit",
    b"\x03": "quit",
    b"\x1b[A": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"j": "down",
    b"d": "drain",
    b"e": "enabled",
}
_KILO: Final = 1024.0


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen row, and what the last key came to."""

    index: int = 0
    message: str = "arrows or j k: choose   d: drain   e: enable   q: quit"

    def moved(self, action: str, count: int) -> Selection:
        """Move up or down within `count` rows."""
        step = {"up": -1, "down": 1}.get(action, 0)
        return replace(self, index=min(max(self.index + step, 0), max(count - 1, 0)))


def key_action(pressed: bytes) -> str | None:
    """Tell what a key means; None: nothing."""
    return _ACTIONS.get(pressed)


@click.command()
@click.pass_obj
def top(settings: Settings) -> None:
    """Watch services and backends live; drain and enable by key."""
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise click.UsageError("needs a terminal; scripts use `status --json`")
    from rich.live import Live  # noqa: PLC0415 - 50 ms that only this view is worth

    selection = Selection()
    before = after = _look(settings)
    with _keys(), Live(console=output.console(), screen=True, auto_refresh=False) as live:
        while True:
            shown = rows(before, after)
            selection = selection.moved("", len(shown))
            live.update(view(shown, selection), refresh=True)
            ready, _, _ = select.select(
                [sys.stdin], [], [], max(0.0, after.at + _PERIOD_S - time.monotonic())
            )
            if not ready:
                try:
                    before, after = after, _look(settings)
                except ControlError as error:  # it may come back: the view stays, and says so
                    selection = replace(selection, message=output.plain(error))
                    after = replace(after, at=time.monotonic())
                continue
            action = key_action(os.read(sys.stdin.fileno(), 8))
            if action == "quit":
                return
            selection = _act(settings, action, shown, selection)


def _act(settings: Settings, action: str | None, shown: Sequence[Row], selection: Selection) -> Selection:
    if action in {"up", "down"}:
        return selection.moved(action, len(shown))
    if action is None or not shown:
        return selection
    row = shown[selection.index]
    try:
        settings.gateway().patch(row.service, row.id, {"state": action})
    except ControlError as error:
        return replace(selection, message=output.plain(error))
    return replace(selection, message=output.plain(f"{row.service}/{row.id}: {action}"))


def _look(settings: Settings) -> Look:
    status = settings.gateway().status()
    texts = []
    for client in settings.clients():
        with contextlib.suppress(DataPlaneError):  # the status says already who does not answer
            texts.append(client.text(calls.get("/metrics"), timeout_s=_METRICS_S))
    return Look(time.monotonic(), status["services"], connect_buckets(texts))


def connect_buckets(texts: Sequence[str]) -> dict[tuple[str, str], Buckets]:
    """Read the times to connect out of the data planes' metrics, and add them up.

    Args:
        texts: One scrape of each data plane.

    Returns:
        Cumulative buckets by service and backend id.
    """
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - only this view needs it

    sums: dict[tuple[str, str], dict[float, float]] = {}
    for text in texts:
        for family in text_string_to_metric_families(text):
            if family.name != "lb_connect_seconds":
                continue
            for sample in family.samples:
                if sample.name.endswith("_bucket"):
                    buckets = sums.setdefault((sample.labels["service"], sample.labels["backend"]), {})
                    bound = float(sample.labels["le"])
                    buckets[bound] = buckets.get(bound, 0.0) + sample.value
    return {place: sorted(buckets.items()) for place, buckets in sums.items()}


@contextlib.contextmanager
def _keys() -> Iterator[None]:
    """Take keys one by one and unseen; the terminal is as before afterwards."""
    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def view(shown: Sequence[Row], selection: Selection) -> RenderableType:
    """Lay the rows out for 80 columns."""
    from rich.console import Group  # noqa: PLC0415 - 50 ms that only this view is worth
    from rich.text import Text  # noqa: PLC0415 - the same

    cells = [
        (
            ">" if index == selection.index else "",
            f"{row.service}/{row.id}",
            row.state,
            row.health,
            row.active,
            f"{row.connections:.1f}",
            _size(row.bytes_in),
            _size(row.bytes_out),
            "" if row.hit_rate is None else f"{row.hit_rate:.0%}",
            "" if row.connect_p99_s is None else f"{row.connect_p99_s * 1000:.3g}",
        )
        for index, row in enumerate(shown)
    ]
    titles = ("", "backend", "state", "health", "act", "conn/s", "in/s", "out/s", "hit", "p99 ms")
    return Group(output.table(titles, cells, right=titles[4:]), Text(selection.message))


def _size(count: float) -> str:
    for unit in ("", "k", "M"):
        if count < _KILO:
            return f"{count:.3g}{unit}"
        count /= _KILO
    return f"{count:.3g}G"
