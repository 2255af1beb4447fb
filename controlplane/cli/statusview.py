"""What `status` shows: what is wrong and what to type next, data planes, services, sources and overrides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from controlplane.cli import output
from controlplane.cli.words import (
    LEVELS,
    PLANES,
    RANK,
    SOURCES,
    address_cell,
    cause_cell,
    health_cell,
    label,
    since_cell,
    state_cell,
)
from controlplane.core import certificates
from controlplane.core.trouble import serving, standing, troubles

_STALE_S: Final = 3.0
_SHORT_HASH: Final = 12
_INDENT: Final = 2
_NAMED: Final = 3
"""Names shown of a match that has many."""
_NAME: Final = 32
"""A name that is longer has a line of its own, unless there is room besides for what is noted."""
_NOTE: Final = 24
"""Room for an address or a cause, which names leave where they can."""
_PLANES: Final = ("data plane", "pid", "workers", "skew", "gen", "hash", "seen", "state")
_WIDTHS: Final = {"health": 7, "for": -4, "state": 9, "weight": -6, "active": -6, "pooled": -6}
"""Of a backend's columns; negative: its cells stand at the right."""
_LABEL: Final = 14
_SHOWN: Final = 8
"""Instances that are named; their number is always whole."""
_WHY: Final = {
    "shrink": "too many vanished at once",
    "empty": "Consul shows none",
    "denied": "the token sees too little",
}


def view(
    report: dict[str, Any],
    width: int,
    now: datetime,
    *,
    direct: bool = False,
    part: bool = False,
    narrow: bool = False,
) -> Group:
    """Lay out what `status --json` prints; nothing is left out where there are few columns.

    `direct`: no daemon runs, the data planes were asked. `part`: some services are left out. `narrow`: break commands as
    well, for nothing can be longer than a line, as on a screen that is written again.
    """
    parts: list[RenderableType] = [
        _head(report, direct=direct),
        *_wrong(report, width, now, part=part, narrow=narrow),
        Text(),
    ]
    parts.append(_dataplanes(report))
    if report["services"]:
        parts += [Text(), *_services(report["services"], width, now)]
    if report.get("share"):
        parts += [Text(), _share(report["share"])]
    if report["sources"]:
        parts += [Text(), _sources(report["sources"])]
    if report["overrides"]:
        parts += [Text(), _overrides(report["overrides"])]
    return Group(*parts)


def _head(report: dict[str, Any], *, direct: bool) -> Text:
    agree = ("converged", "bold green") if report["converged"] else ("NOT CONVERGED", "bold red")
    line = Text(f"generation {report['generation']}  {report['hash'][:_SHORT_HASH]}  ")
    line.append(*agree)
    if direct:
        line.append("  no daemon runs: the data planes were asked", "yellow")
    return line


def _wrong(
    report: dict[str, Any], width: int, now: datetime, *, part: bool, narrow: bool
) -> Iterator[RenderableType]:
    """Say what is wrong, the worst first, and below each what to type next."""
    found = troubles(report, now)
    if not found:
        where = " in these services; others were not asked for" if part else ""
        yield Text(f"nothing needs attention{where}", style="green")
    for each in found:
        said = f"{each.text}; {each.advice}" if each.advice else each.text
        lines = Text(output.plain(said)).wrap(Console(), max(20, width - _LABEL))
        for number, line in enumerate(lines):
            word = "" if number else label(each.level, each.word)
            yield Text.assemble((f"{word:<{_LABEL}}", LEVELS[each.level]), line)
        if each.command is not None:
            command = Text(f"$ {output.plain(each.command)}", style="cyan")
            if narrow:
                yield Padding(command, (0, 0, 0, _LABEL))
            else:  # not broken into lines of ours: it is there to be copied
                yield Text(" " * _LABEL, no_wrap=True, overflow="ignore").append_text(command)


def _dataplanes(report: dict[str, Any]) -> RenderableType:
    rows, workers = [], max((len(each["workers"]) for each in report["dataplanes"]), default=0)
    for each in report["dataplanes"]:
        age = each["age_s"]
        seen = "now" if age < _STALE_S else f"{age:.0f} s ago"
        # What is wrong stands in the list of troubles, whole.
        state = (
            "gone"
            if each["gone_since"]
            else "see above"
            if each["error"]
            else "ok"
            if each["reachable"]
            else "unreachable"
        )
        known = each["generation"] is not None
        skewed = each["skew"] is not None and len(each["workers"]) > 1
        rows.append(
            {
                "data plane": each["name"],
                "pid": each["pid"] or "",
                "workers": len(each["workers"]) or "",
                "skew": f"{each['skew']:.2f}" if skewed else "",
                "gen": each["generation"] if known else "?",
                "hash": (each["hash"] or "")[:8],
                "seen": seen if known else "never",
                "state": state,
            }
        )
    rows += [
        {"data plane": each["name"], "pid": each["pid"], "seen": "now", "state": "draining"}
        for each in report["draining"]
    ]
    titles = [title for title in _PLANES if title != "skew" or workers > 1]
    cells = [[row.get(title, "") for title in titles] for row in rows]
    return output.table(titles, cells, right=("pid", "workers", "skew", "gen"), styles={"state": PLANES})


def _services(services: Mapping[str, Any], width: int, now: datetime) -> Iterator[Text]:
    """Write all services in one set of columns, the troubled first, with the titles once."""
    names = [
        cell_len(output.plain(each["id"])) for service in services.values() for each in service["backends"]
    ]
    # Names that are longer stand on lines of their own, and do not push the figures out of everybody's sight.
    room = width - _INDENT - sum(2 + abs(each) for each in _WIDTHS.values())
    widest = min(room, max(_NAME, room - _NOTE))
    column = max([len("backend"), *(each for each in names if each <= widest)])
    titles = [(title, "") for title in _WIDTHS]
    yield _cells(Text(f"{' ' * _INDENT}{'backend':<{column}}", style="dim"), titles)
    ranked = sorted(services.items(), key=lambda item: (_service_rank(item[1]), item[0]))
    for name, service in ranked:
        yield _service_line(name, service)
        yield from _certificate_lines(service, now)
        for backend in sorted(service["backends"], key=lambda each: (_rank(each), each["id"])):
            yield from _backend_lines(backend, column, width, now)


def _rank(backend: Mapping[str, Any]) -> int:
    return RANK.get(standing(backend), 0)


def _service_rank(service: Mapping[str, Any]) -> int:
    """Rank down and ejected backends, and none at all, before what is as it should be."""
    return 0 if service.get("panic") else min(map(_rank, service["backends"]), default=0) // 2


def _service_line(name: str, service: Mapping[str, Any]) -> Text:
    listeners = ", ".join(
        each["address"] + ("" if each["state"] == "accepting" else f" ({each['state']})")
        for each in service["listeners"]
    )
    backends = [each for each in service["backends"] if not each.get("removed")]
    good = len(serving(service))
    tone = "green" if good == len(backends) else "yellow"
    line = Text(output.plain(name), style="bold")
    routed = _routed(service.get("match") or {})
    line.append(
        output.plain(f"  {service['mode']}  {listeners}{routed}  {service['active']} active"), "not bold"
    )
    line.append(f"  {good} of {len(backends)} serving", f"not bold {tone if good else 'red'}")
    if service.get("queued"):
        line.append(f"  {service['queued']} waiting", "not bold yellow")
    if service.get("tier"):
        line.append(f"  tier {service['tier']} serves", "not bold yellow")
    if service.get("panic"):
        line.append("  PANIC", "red")
    return line


def _routed(match: Mapping[str, Any]) -> str:
    """Say which clients a service takes of those of its listeners; nothing, if it takes all."""
    said = [
        f"{word} {', '.join(match[key][:_NAMED])}{', ...' if len(match[key]) > _NAMED else ''}"
        for key, word in (("sni", "for"), ("alpn", "offering"), ("source", "from"))
        if match.get(key)
    ]
    return "".join(f" {one}" for one in said)


def _certificate_lines(service: Mapping[str, Any], now: datetime) -> Iterator[Text]:
    for each in service.get("certificates", ()):
        line = Text(f"{' ' * _INDENT}certificate {output.plain(certificates.names(each))}", style="dim")
        left = certificates.left_s(each, now)
        tone = "red" if left < certificates.URGENT_S else "yellow" if left < certificates.SOON_S else "green"
        line.append(f"  {certificates.ends(each, now)}", f"not dim {tone}")
        if each["not_renewed"]:
            line.append("  NOT RENEWED", "not dim yellow")
        yield line.append(output.plain(f"  {each['key_type']}  {each['place']}"))


def _backend_lines(backend: Mapping[str, Any], column: int, width: int, now: datetime) -> Iterator[Text]:
    cells = [health_cell(backend), since_cell(backend, now), state_cell(backend)]
    cells += [(str(backend[key]), "") for key in ("weight", "active", "pooled")]
    name, indent = output.plain(backend["id"]), " " * _INDENT
    if cell_len(name) > column:
        yield Text(indent + name)
        name = ""
    line = _cells(Text(indent + name + " " * (column - cell_len(name))), cells)
    note = _note(backend)
    if note and line.cell_len + 2 + note.cell_len <= width:
        line.append("  ").append_text(note)
        note = Text()
    yield line
    if note:
        yield Text(indent * 2).append_text(note)


def _note(backend: Mapping[str, Any]) -> Text:
    """Say where it is, unless its name does, and why it is not up."""
    (address, dim), (cause, style) = address_cell(backend), cause_cell(backend)
    note = Text(output.plain(address), style=dim)
    note.append("  " if address and cause else "")
    return note.append(output.plain(cause), f"not dim {style}")


def _cells(line: Text, cells: Iterable[tuple[str, str]]) -> Text:
    """Add a backend's cells, each a text and its style."""
    for (text, style), width in zip(cells, _WIDTHS.values(), strict=True):
        line.append("  ")
        line.append(text.rjust(-width) if width < 0 else text.ljust(width), style)
    return line


def _overrides(overrides: Iterable[Mapping[str, Any]]) -> RenderableType:
    rows = [
        (
            f"{each['service']}/{each['id']}",
            f"{each['field']} {each['value']}",
            each["by"] or "?",
            output.when(each["since"]),
        )
        for each in overrides
    ]
    return output.table(("override", "says", "by", "since"), rows)


def _share(share: Mapping[str, Any]) -> RenderableType:
    """Lay out the limits that all nodes share: as they are written, by how many they are divided, what this node has."""
    nodes = share["nodes"] or "not known yet"
    rows = [
        (f"{service} {name}", _number(each["limit"]), nodes, _number(each["here"]))
        for service, limits in share["limits"].items()
        for name, each in limits.items()
    ]
    return output.table(
        ("limit of all nodes", "together", "nodes", "here"), rows, right=("together", "nodes", "here")
    )


def _number(value: float) -> str:
    return str(int(value) if value == int(value) else value)


def _sources(sources: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Lay all sources out, below the list of troubles."""
    rows = [
        (each["name"], each["state"], output.when(each["since"]), "\n".join(details(_shorter(each))))
        for each in sources
    ]
    return output.table(("source", "state", "since", "note"), rows, styles={"state": SOURCES})


def _shorter(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out what the list of troubles says already: why the source is not in order."""
    if source["state"] == "ok" or source.get("held"):
        return source
    told = next((key for key in ("last_error", "note") if source.get(key)), None)
    return source if told is None else {**source, told: "see above"}


def details(source: Mapping[str, Any]) -> Iterator[str]:
    """Yield what there is to know of one source, the most urgent first."""
    yield from (source[key] for key in ("last_error", "note") if source.get(key))
    if source.get("held"):
        yield _held(source["held"])
    if source.get("source") == "saved":
        yield "not confirmed yet: what was known before the daemon started"
    if "counts" in source:
        counts = [f"{number} {name}" for name, number in source["counts"].items() if number]
        yield f"{', '.join(counts) or 'no instances'}, for {', '.join(source['services'])}"
    if "index" in source:
        age = source["age_s"]
        yield f"index {source['index']}, " + (
            "never answered" if age is None else f"answered {age:.0f} s ago"
        )
    for word in ("rejected", "warnings"):
        yield from _remarks(word, source.get(word, ()))
    if "registered" in source:
        yield f"registered: {', '.join(source['registered']) or 'nothing'}"
    for each in source.get("left_out", ()):
        yield f"not registered: {each['service']} on {each['address']}: {each['why']}"


def _remarks(word: str, remarks: Sequence[Mapping[str, str]]) -> Iterator[str]:
    for remark in remarks[:_SHOWN]:
        yield f"{word.removesuffix('s')} {remark['id']}: {remark['why']}"
    if (more := len(remarks) - _SHOWN) > 0:
        yield f"{more} more {word}"


def _held(held: Mapping[str, Any]) -> str:
    shown = ", ".join(held["missing"][:_SHOWN])
    more = held["count"] - len(held["missing"][:_SHOWN])
    ends = (
        "until somebody says --force" if held["ends_in_s"] is None else f"for {held['ends_in_s']:.0f} s more"
    )
    return (
        f"held {ends}: {held['count']} missing ({_WHY.get(held['why'], held['why'])}): "
        f"{shown}{f' and {more} more' if more > 0 else ''}"
    )
