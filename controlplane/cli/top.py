"""The live view: backends, their load and rates, the troubled first; keys to drain and enable."""

from __future__ import annotations

import contextlib
import queue
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click

from controlplane.cli import output
from controlplane.cli.output import command
from controlplane.cli.screen import Screen, possible
from controlplane.cli.settings import Settings
from controlplane.cli.status import asked, chosen_argument
from controlplane.cli.topview import SORTS, Model, frame, ordered, plain_lines
from controlplane.cli.words import PLAIN, RICH
from controlplane.core.rates import Buckets, Look, Meter
from controlplane.core.report import answered
from controlplane.core.trouble import serves
from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import in_thread
from controlplane.errors import ControlError, DataPlaneError

T = TypeVar("T")

_PERIOD_S: Final = 1.0
_METRICS_S: Final = 2.0
_MESSAGE_S: Final = 5.0
"""How long the result of a key is shown."""
_KEYS: Final = {
    "quit": (b"q",),
    "up": (b"k", b"\x1b[A", b"\x1bOA"),
    "down": (b"j", b"\x1b[B", b"\x1bOB"),
    "page up": (b"\x1b[5~",),
    "page down": (b" ", b"\x1b[6~"),
    "home": (b"g", b"\x1b[H", b"\x1b[1~", b"\x1bOH"),
    "end": (b"G", b"\x1b[F", b"\x1b[4~", b"\x1bOF"),
    "sort": (b"s",),
    "drain": (b"d",),
    "enabled": (b"e",),
}
_ACTIONS: Final = {key: action for action, keys in _KEYS.items() for key in keys}


class Seen:
    """One answer: the status of the services that were chosen, times to connect, who gave it, and when."""

    def __init__(self, settings: Settings, chosen: Sequence[str]) -> None:
        self.report, self.direct = asked(settings, chosen)
        self.at = time.monotonic()
        texts = []
        with contextlib.suppress(ControlError):  # the status says already who is missing
            for client in settings.clients():
                with contextlib.suppress(DataPlaneError):
                    texts.append(client.text(requests.get("/metrics"), timeout_s=_METRICS_S))
        self.connects = connect_buckets(texts)

    def look(self) -> Look:
        """Return what rates are made of."""
        there = [each for each in self.report["dataplanes"] if each["reachable"]]
        age = sum(each["age_s"] for each in there) / len(there) if there else 0.0
        planes = frozenset((each["name"], each["instance"] or each["pid"]) for each in there)
        return Look(self.at - age, self.report["services"], self.connects, planes)


class Background:
    """Does what may take long in threads, so that keys are always answered; they call `wake` when it is done."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._done: queue.SimpleQueue[tuple[Future[Any], Callable[[Any], None]]] = queue.SimpleQueue()

    def do(self, work: Callable[[], T], then: Callable[[T | ControlError], None]) -> None:
        """Start `work`; `finish` calls `then` with its result, or raises what is not for an operator."""

        def done(future: Future[T]) -> None:
            self._done.put((future, then))
            self._wake()

        in_thread(work).add_done_callback(done)

    def finish(self) -> None:
        """Tell of everything that is done."""
        while not self._done.empty():
            future, then = self._done.get_nowait()
            error = future.exception()
            then(error if isinstance(error, ControlError) else future.result())


class Top:
    """The state of the view, from which frames are made, and what keys do to it."""

    def __init__(self, settings: Settings, seen: Seen, background: Background, *, unicode: bool) -> None:
        self._settings = settings
        self._background = background
        self._meter = Meter()
        self._answered = seen.at
        self._place = 1
        self._message_until = 0.0
        self._asking: tuple[str, str] | None = None
        """The backend that will be drained if the next key is `y`."""
        self.model = Model(seen.report, (), datetime.now(UTC), glyphs=RICH if unicode else PLAIN)
        self.saw(seen)

    def saw(self, seen: Seen | ControlError) -> None:
        """Take the newest answer in, or why there is none; what was known stays."""
        if isinstance(seen, ControlError):
            self.model = replace(self.model, error=str(seen))
            return
        self._answered = seen.at
        self._meter.take(seen.look())
        rows = ordered(self._meter.rows, self.model.sort)
        chosen = self.model.chosen
        if rows and chosen not in {row.place for row in rows}:
            chosen = rows[min(self.model.index(), len(rows) - 1)].place
        self.model = replace(
            self.model,
            report=seen.report,
            rows=rows,
            error="",
            direct=seen.direct,
            trail=tuple(self._meter.trail),
            chosen=chosen,
        )

    def lines(self, width: int, height: int) -> Sequence[Any]:
        """Return the frame as it is now."""
        now = time.monotonic()
        message = self.model.message if now < self._message_until else ""
        self.model = replace(
            self.model, now=datetime.now(UTC), answered_s=now - self._answered, message=message
        )
        lines, first, self._place = frame(self.model, width, height)
        self.model = replace(self.model, first=first)
        return lines

    def press(self, key: bytes) -> bool:
        """Do what a key says; True: it says to end."""
        action = _ACTIONS.get(key)
        if self._asking is not None:
            place, self._asking = self._asking, None
            self._say("")
            if key == b"y":
                self._patch(place, "drain")
            return action == "quit"
        if action == "sort":
            names = list(SORTS)
            sort = names[(names.index(self.model.sort) + 1) % len(names)]
            self.model = replace(self.model, sort=sort, rows=ordered(self.model.rows, sort))
        elif action in {"drain", "enabled"} and self.model.rows:
            place = self.model.rows[self.model.index()].place
            if action == "drain":
                self._ask(place)
            else:
                self._patch(place, "enabled")
        elif action is not None:
            self._move(action)
        return action == "quit"

    def _move(self, action: str) -> None:
        rows = self.model.rows
        page, most = max(1, self._place - 1), len(rows)
        step = {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -most, "end": most}
        at = min(max(self.model.index() + step.get(action, 0), 0), most - 1)
        if rows:
            self.model = replace(self.model, chosen=rows[at].place)

    def _ask(self, place: tuple[str, str]) -> None:
        """Say whom a drain would hit, and wait for a `y`."""
        service, key = place
        backends = self.model.report["services"][service]["backends"]
        others = sum(serves(each) for each in backends if each["id"] != key)
        active = next((each["active"] for each in backends if each["id"] == key), 0)
        left = (
            f"{others} {'other serves' if others == 1 else 'others serve'}" if others else "NO OTHER SERVES"
        )
        self._asking = place
        ask = f"drain? {active} active may finish, {left}.  y: yes  else: no"
        self._say(ask, for_s=float("inf"))

    def _patch(self, place: tuple[str, str], state: str) -> None:
        name = "/".join(place)
        self._say(f"{name}: {state} ...", for_s=float("inf"))

        def told(result: Any) -> None:
            if isinstance(result, ControlError):
                self._say(str(result))
                return
            rows = [each for each in result["dataplanes"] if each["result"] != "ok"]
            failed = [f"{each['name']}: {each['error']}" for each in rows]
            self._say(f"{name}: {'; '.join([state, *failed, *result['warnings']])}")

        self._background.do(lambda: self._settings.gateway().patch(*place, {"state": state}), told)

    def _say(self, message: str, *, for_s: float = _MESSAGE_S) -> None:
        self._message_until = time.monotonic() + for_s
        self.model = replace(self.model, message=message)


@command(
    "lb-control top",
    "lb-control top web 'api-*'     # only these services",
    "lb-control top | cat          # once, without a terminal",
)
@chosen_argument
@click.pass_obj
def top(settings: Settings, chosen: tuple[str, ...]) -> None:
    """Watch services and backends live; drain and enable by key.

    \b
    up down j k, PgUp PgDn, g G   choose a backend
    s                             sort: trouble, connections, bytes, active, name
    d e                           drain (asks first), enable
    q                             quit

    Rates are per second, of the last few seconds; `hit` is the share of connections that the pool
    served, `p99 ms` the time to connect. A state with a star is an operator's word. With SERVICE, a name or
    a pattern, only services like it are shown.

    Without a terminal (in a pipe, with TERM=dumb) it shows everything once, after a second in which
    rates are measured. Exit 0; 1 if neither the daemon nor any data plane answers at the start, or no service is
    like that.
    """  # noqa: D301 - click's mark before lines that stay as they are
    console = output.console()
    seen = Seen(settings, chosen)
    nobody = seen.direct and not answered(seen.report)
    if nobody or not possible(console):
        _once(settings, chosen, seen)
        if nobody:
            sys.exit(1)
        return
    with contextlib.suppress(KeyboardInterrupt), Screen(console) as screen:
        _live(settings, chosen, seen, screen, unicode=not console.options.ascii_only)


def _once(settings: Settings, chosen: Sequence[str], seen: Seen) -> None:
    view = Top(settings, seen, Background(lambda: None), unicode=False)
    time.sleep(_PERIOD_S)
    view.saw(Seen(settings, chosen))
    for line in plain_lines(replace(view.model, now=datetime.now(UTC))):
        click.echo(line.plain)


def _live(settings: Settings, chosen: Sequence[str], seen: Seen, screen: Screen, *, unicode: bool) -> None:
    background = Background(screen.wake)
    view = Top(settings, seen, background, unicode=unicode)
    due, asking = seen.at + _PERIOD_S, False

    def told(result: Seen | ControlError) -> None:
        nonlocal asking
        asking = False
        view.saw(result)

    while True:
        if not asking and time.monotonic() >= due:
            due, asking = time.monotonic() + _PERIOD_S, True
            background.do(lambda: Seen(settings, chosen), told)
        screen.show(view.lines(*screen.size))
        keys = screen.wait(_PERIOD_S if asking else due - time.monotonic())
        background.finish()
        if keys is None or any(view.press(key) for key in keys):
            return


def connect_buckets(texts: Sequence[str]) -> dict[tuple[str, str], Buckets]:
    """Add up the times to connect in the data planes' metrics: cumulative buckets by service and backend id."""
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
