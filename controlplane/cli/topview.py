"""What `top` shows: totals, what is wrong, and as many backends as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from rich.cells import cell_len
from rich.text import Text

from controlplane.cli import output, words
from controlplane.cli.words import PLAIN, RICH, Glyphs, figure, percent, shorten
from controlplane.core.rates import Row, share, total
from controlplane.core.trouble import age_s, serving, span, standing, troubles

STALE_S: Final = 3.0
"""An answer that is older is said to be."""
_ROOMY: Final = 100
"""Columns from which on there are two blanks between cells."""
_NAME: Final = 34
"""As much of a name as is shown before more columns are."""
_UNLIMITED: Final = 10_000
_LEAST_ROWS: Final = 3
_TALL: Final = 20

Sort = Callable[[Row], tuple[Any, ...]]
SORTS: Final[Mapping[str, Sort]] = {
    "trouble": lambda row: (words.RANK.get(standing(row.backend), 3),),
    "connections": lambda row: (-(row.connections or 0.0),),
    "bytes": lambda row: (-((row.bytes_in or 0.0) + (row.bytes_out or 0.0)),),
    "active": lambda row: (-row.backend["active"],),
    "name": lambda _row: (),
}
"""What `s` goes through; within one rank by service and id."""


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that a frame is made of."""

    report: Mapping[str, Any]
    """The last status of the node."""
    rows: Sequence[Row]
    """In the order in which they are shown."""
    now: datetime
    answered_s: float = 0.0
    """How old the report is."""
    error: str = ""
    """Why there is no newer one."""
    direct: bool = False
    """No daemon runs: the data planes were asked."""
    trail: Sequence[float] = ()
    sort: str = "trouble"
    chosen: tuple[str, str] | None = None
    first: int = 0
    """The first row that is shown."""
    message: str = ""
    glyphs: Glyphs = field(default=RICH)

    @property
    def stale(self) -> bool:
        """Whether this is old news."""
        return bool(self.error) or self.answered_s > STALE_S

    @property
    def old(self) -> bool:
        """Whether no figure in it is of now: nobody answers, or no data plane answers the daemon."""
        return self.stale or not any(each["reachable"] for each in self.report["dataplanes"])

    def index(self) -> int:
        """Where the chosen row is; 0 if it has gone."""
        return next((at for at, row in enumerate(self.rows) if row.place == self.chosen), 0)


def ordered(rows: Sequence[Row], sort: str) -> list[Row]:
    """Put rows in order."""
    return sorted(rows, key=lambda row: (*SORTS[sort](row), *row.place))


@dataclass(frozen=True, slots=True)
class _Column:
    """One column: `cell` makes its text and style."""

    title: str
    width: int
    """At least; for what is shortened, what it may be shortened to."""
    need: int
    """Which columns come first where there is room for few."""
    cell: Callable[[Row, Model], tuple[str, str]]
    right: bool = True
    grows: bool = False
    """Takes what room it has use for."""
    keep: bool = True
    """Shown although it says nothing at the moment."""

    def says_something(self, longest: int | None, glyphs: Glyphs) -> bool:
        """Tell whether it is worth its room; `longest` is its longest cell, if it grows."""
        return (self.keep or bool(longest)) and (bool(self.title) or bool(glyphs.bars))

    def least(self, longest: int, width: int) -> int:
        """Return how narrow it may be on a terminal of `width` columns."""
        if self.grows and self.keep:  # the name: before columns that one can do without
            return max(self.width, min(longest, _NAME)) if width >= _ROOMY else self.width
        return min(self.width, longest) if self.grows else self.width


def _rate(of: Callable[[Row], float | None]) -> Callable[[Row, Model], tuple[str, str]]:
    def cell(row: Row, _model: Model) -> tuple[str, str]:
        value = of(row)
        return figure(value), "" if value else "dim"

    return cell


_COLUMNS: Final = (
    _Column("backend", 14, 0, lambda row, _: ("/".join(row.place), "bold"), right=False, grows=True),
    _Column(
        "address", 14, 10, lambda row, _: words.address_cell(row.backend), right=False, grows=True, keep=False
    ),
    _Column("health", 7, 0, lambda row, _: words.health_cell(row.backend), right=False),
    _Column("for", 4, 3, lambda row, model: words.since_cell(row.backend, model.now)),
    _Column(
        "cause", 16, 6, lambda row, _: words.cause_cell(row.backend), right=False, grows=True, keep=False
    ),
    _Column("state", 9, 2, lambda row, _: words.state_cell(row.backend), right=False),
    _Column("wgt", 3, 11, lambda row, _: (str(row.backend["weight"]), "")),
    _Column("active", 6, 1, _rate(lambda row: row.backend["active"])),
    _Column("conn/s", 6, 1, _rate(lambda row: row.connections)),
    _Column("", 16, 7, lambda row, model: (words.spark(row.trail, 16, model.glyphs), "cyan")),
    _Column("in/s", 5, 4, _rate(lambda row: row.bytes_in)),
    _Column("out/s", 5, 4, _rate(lambda row: row.bytes_out)),
    _Column("hit", 4, 5, lambda row, _: (percent(row.hit_rate), "")),
    _Column("idle", 4, 9, _rate(lambda row: row.backend["pooled"])),
    _Column("p99 ms", 6, 8, _rate(lambda row: row.connect_p99_s and row.connect_p99_s * 1000)),
)


def _layout(model: Model, width: int) -> list[tuple[_Column, int]]:
    """Choose the columns that there is room for, and how wide each is."""
    gap = 2 if width >= _ROOMY else 1
    longest = {
        at: max((cell_len(column.cell(row, model)[0]) for row in model.rows), default=0)
        for at, column in enumerate(_COLUMNS)
        if column.grows
    }
    room, need = width - 1, attrgetter("need")
    widths: dict[int, int] = {}
    for _, group in groupby(sorted(_COLUMNS, key=need), key=need):
        least = {}
        for column in group:
            at = _COLUMNS.index(column)
            if column.says_something(longest.get(at), model.glyphs):
                least[at] = column.least(longest.get(at, 0), width)
        needed = sum(least.values()) + gap * len(least)
        if needed > room:
            break
        widths |= least
        room -= needed
    growing = [at for at, most in longest.items() if widths.get(at, most) < most]
    while room and growing:  # one column each in turn, so that the long ones suffer alike
        for at in growing[:room]:
            widths[at] += 1
            room -= 1
        growing = [at for at in growing if widths[at] < longest[at]]
    return [(_COLUMNS[at], widths[at]) for at in sorted(widths)]


def _cells(layout: Sequence[tuple[_Column, int]], gap: int, row: Row | None, model: Model) -> Text:
    line = Text()
    for column, width in layout:
        text, style = (column.title, "") if row is None else column.cell(row, model)
        text = shorten(output.plain(text), width, model.glyphs)
        pad = " " * (width - cell_len(text))
        line.append(" " * gap if line.plain else " ")
        line.append(pad + text if column.right else text + pad, style)
    return line


def frame(model: Model, width: int, height: int) -> tuple[list[Text], int, int]:
    """Lay everything out: at most `height` lines, the first row that is shown, and how many rows there is room for."""
    head = [_title(model, width), _totals(model, width)]
    room = height - len(head) - 3  # the titles of the columns, the chosen row in full, the keys
    head += _wrong(model, width, max(0, min(5, room - _LEAST_ROWS, height // 5)))
    if height >= _TALL:
        head.append(Text())
    place = max(0, height - len(head) - 3)
    at = model.index()
    first = max(0, min(model.first, at, len(model.rows) - place))
    first = max(first, at - place + 1)
    layout = _layout(model, width)
    gap = 2 if width >= _ROOMY else 1
    lines = [*head, _styled(Text(" ") + _cells(layout, gap, None, model), width, "dim")]
    for number, row in enumerate(model.rows[first : first + place], first):
        lines.append(_row(_cells(layout, gap, row, model), width, chosen=number == at, old=model.old))
    lines += [Text()] * (height - 2 - len(lines))
    lines += [_detail(model, width), _keys(model, width, first, place)]
    return lines[:height], first, place


def plain_lines(model: Model) -> Iterator[Text]:
    """Lay everything out once, for a file or a pipe: every row, and no name shortened."""
    yield from (_title(model, _UNLIMITED, clock=False), _totals(model, _UNLIMITED))
    yield from _wrong(model, _UNLIMITED, _UNLIMITED)
    layout = _layout(replace(model, glyphs=PLAIN), _UNLIMITED)
    yield Text()
    for row in (None, *model.rows):
        line = _cells(layout, 2, row, replace(model, glyphs=PLAIN))
        line.rstrip()
        yield line


def _styled(line: Text, width: int, style: str) -> Text:
    """Style a line to the edge, whatever its cells have."""
    line.stylize(style)
    line.append(" " * (width - line.cell_len), style)
    return line


def _row(cells: Text, width: int, *, chosen: bool, old: bool) -> Text:
    if chosen:
        return _styled(Text(">" + cells.plain), width, "reverse")
    if old:
        return Text(" " + cells.plain, style="dim")
    return Text(" ") + cells


def _title(model: Model, width: int, *, clock: bool = True) -> Text:
    report = model.report
    planes, workers = len(report["dataplanes"]), sum(len(each["workers"]) for each in report["dataplanes"])
    agree, style = ("converged", "green") if report["converged"] else ("not converged", "bold red")
    parts = [
        ("livelb", "bold"),
        (f"generation {report['generation']} {report['hash'][:8]}", ""),
        (agree, style),
        ("no daemon: asking directly" if model.direct else "", "yellow"),
        (f"{output.counted(planes, 'data plane')}, {output.counted(workers, 'worker')}", ""),
    ]
    line = _joined(parts, width)
    if model.stale:
        at = datetime.fromtimestamp(model.now.timestamp() - model.answered_s, UTC).strftime("%H:%M:%S")
        why = f": {output.plain(model.error)}" if model.error else ""
        text = f" NO ANSWER since {at} UTC, {span(model.answered_s)}{why}"
        return _styled(Text(shorten(text, width, model.glyphs)), width, "reverse red")
    end = model.now.strftime("%H:%M:%S UTC") if clock else ""
    space = width - line.cell_len - len(end)
    if end and space > 1:
        line.append(" " * space + end, "dim")
    return line


def _joined(parts: Iterable[tuple[str, str]], width: int) -> Text:
    """Put parts side by side, but for those that there is no room for."""
    line = Text()
    for text, style in parts:
        gap = "  " if line.plain else ""
        if text and line.cell_len + len(gap + text) <= width:
            line.append(gap)
            line.append(text, style)
    return line


def _totals(model: Model, width: int) -> Text:
    services = model.report["services"].values()
    backends = [row.backend for row in model.rows if not row.backend.get("removed")]
    good = sum(len(serving(service)) for service in services)
    glyphs = model.glyphs
    hits = share(total(row.hits for row in model.rows), total(row.misses for row in model.rows))
    tone = "green" if good == len(backends) else "yellow" if good else "bold red"
    queued = sum(each.get("queued", 0) for each in services)
    parts = [
        (f"{good} of {len(backends)} serving", tone if backends else ""),
        (f"{sum(each['active'] for each in services)} active", ""),
        (f"{queued} waiting" if queued else "", "yellow"),
        (f"{figure(total(row.connections for row in model.rows))} conn/s", ""),
        (f"{figure(total(row.bytes_in for row in model.rows))}B/s in", ""),
        (f"{figure(total(row.bytes_out for row in model.rows))}B/s out", ""),
        (f"hit {percent(hits)}", ""),
    ]
    line = _joined(parts, width)
    room = min(60, width - line.cell_len - 2)
    if glyphs.bars and width < _UNLIMITED and room > len(glyphs.bars):
        line.append("  " + words.spark(model.trail, room, glyphs), "cyan")
    return line


def _wrong(model: Model, width: int, most: int) -> list[Text]:
    """Say what is wrong, the worst first, one line each."""
    found = troubles(model.report, model.now)
    shown = found if len(found) <= most else found[: max(0, most - 1)]
    lines = []
    for each in shown:
        line = Text(f"{words.label(each.level, each.word):<13} ", style=words.LEVELS[each.level])
        line.append(shorten(output.plain(each.text), width - line.cell_len, model.glyphs), "default not bold")
        lines.append(line)
    if len(shown) < len(found) and most:
        text = f"{'and':<13} {len(found) - len(shown)} more: lb-control status names them all"
        lines.append(Text(shorten(text, width, model.glyphs), style="dim"))
    return lines


def _detail(model: Model, width: int) -> Text:
    """Tell of the chosen row what its columns have no room for."""
    if not model.rows:
        return Text("no backends", style="dim")
    row = model.rows[model.index()]
    backend, health = row.backend, row.backend["health"]
    since = age_s(health.get("since"), model.now)
    facts = [
        health["state"]
        + ("" if since is None else f" for {span(since)}")
        + (f" ({health['cause']})" if health["cause"] else ""),
        words.address_cell(backend)[0],
        *(f"{key} {word['value']} by an operator" for key, word in backend.get("overridden", {}).items()),
        f"weight {backend['weight']}",
        f"tier {backend['tier']}" if backend.get("tier") else "",
        f"{backend['pooled']} idle in the pool",
    ]
    text = "  ".join(["/".join(row.place), *filter(None, facts)])
    return Text(shorten(output.plain(text), width, model.glyphs), style="bold")


def _keys(model: Model, width: int, first: int, place: int) -> Text:
    if model.message:
        return Text(shorten(output.plain(model.message), width, model.glyphs), style="bold cyan")
    count = len(model.rows)
    shown = (
        f"{first + 1}-{min(first + place, count)} of {count}"
        if count > place
        else output.counted(count, "backend")
    )
    keys = f"j k: choose  d: drain  e: enable  s: sort ({model.sort})  q: quit"
    line = Text(shorten(keys, width, model.glyphs), style="dim")
    if line.cell_len + len(shown) + 2 <= width:
        line.append(" " * (width - line.cell_len - len(shown)) + shown)
    return line
