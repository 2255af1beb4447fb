"""How the nodes of a cluster look on a terminal: what is wrong first, with what to do; then a line for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group
from rich.text import Text

from controlplane.cli import output
from controlplane.core.trouble import age_s, span

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHORT: Final = 12
_PRESENCE: Final = {"live": "green", "gone": "bold red", "left": "dim", "unreadable": "bold red"}
_READY: Final = {"yes": "green", "no": "bold red"}
_STATE: Final = {"ok": "green", "behind": "bold red", "disagrees": "bold red", "canary": "yellow"}


def view(report: Mapping[str, Any], now: datetime) -> RenderableType:
    """Lay out what `nodes --json` prints."""
    parts: list[RenderableType] = [Text(output.plain(_head(report)))]
    parts += [Text(output.plain(line), style="bold red") for line in _wrong(report, now)]
    parts += [Text(output.plain(line), style="dim") for line in _noted(report, now)]
    if report["nodes"]:
        parts += ["", _table(report, now)]
    return Group(*parts)


def _head(report: Mapping[str, Any]) -> str:
    name = f"cluster {report['cluster']}"
    if not report["known"]:
        return f"{name}: nothing is known of its nodes yet: {report['error'] or 'Consul has not answered'}"
    live = [each for each in report["nodes"] if each["presence"] == "live"]
    if not report["nodes"]:
        return f"{name}: no node has ever joined it; a node joins when its lb.yaml says cluster.name: {report['cluster']}"
    here = f", seen from {report['node']}" if report["node"] else ""
    agree = "all live ones run the same" if report["converged"] else "not all run the same"
    return f"{name}: {len(live)} of {output.counted(len(report['nodes']), 'node')} live{here}; {agree}"


def _wrong(report: Mapping[str, Any], now: datetime) -> Iterator[str]:
    """Yield what somebody should look at, and where."""
    if report["known"] and report["error"]:
        since = age_s(report["error_since"], now)
        lasts = "" if since is None else f", for {span(since)}"
        age = span(report["age_s"])
        yield f"this picture is {age} old: {report['error']}{lasts}; what runs goes on without Consul"
    for each in report["nodes"]:
        name, record = each["name"], each["record"]
        if each["presence"] == "unreadable":
            key = f"livelb/{report['cluster']}/nodes/{name}"
            yield f"{name}: its record cannot be read: {each['problem']}; see: consul kv get {key}"
        elif each["presence"] == "gone":
            yield (
                f"{name}: gone {_since(each['since'], now)}: its daemon was killed, the machine is off, or it does not "
                "reach Consul; its data planes may still serve"
            )
        elif each["presence"] == "live":
            if each["behind"]:
                yield f"{name}: behind: {each['behind']}"
            yield from (f"{name}: disagrees in {what}" for what in each["disagrees"])
            if not record["ready"] and record["drain"] is None:
                yield f"{name}: not ready {_since(record['since'], now)}: {record['reason'] or 'no reason given'}"


def _noted(report: Mapping[str, Any], now: datetime) -> Iterator[str]:
    """Yield what somebody wanted so."""
    for each in report["nodes"]:
        name, record = each["name"], each["record"]
        if each["presence"] == "left":
            yield f"{name}: left {_since(each['since'], now)}: its daemon has ended in good order"
        elif each["presence"] == "live":
            if record["drain"] is not None:
                drain = record["drain"]
                yield f"{name}: drained by {drain['by']} {_since(drain['since'], now)}: {drain['phase']}"
            if record["canary"] is not None:
                yield f"{name}: runs canary {record['canary'][:_SHORT]}"


def _since(moment: str | None, now: datetime) -> str:
    age = age_s(moment, now)
    return "since an unknown time" if age is None else f"since {output.when(moment)} UTC ({span(age)} ago)"


def _table(report: Mapping[str, Any], now: datetime) -> RenderableType:
    rows = [_row(each, now) for each in report["nodes"]]
    return output.table(
        ("node", "is", "runs", "ready", "for", "clients", "lb.yaml", "version"),
        rows,
        right=("clients", "for"),
        styles={"is": _PRESENCE, "ready": _READY, "runs": _STATE},
    )


def _row(each: Mapping[str, Any], now: datetime) -> tuple[str, ...]:
    record = each["record"]
    if record is None:
        return each["name"], each["presence"], "-", "-", "-", "-", "-", "-"
    content = (record["content"] or "-")[:_SHORT]
    if each["presence"] != "live":
        age = age_s(each["since"], now)
        gone = "-" if age is None else span(age)
        return each["name"], each["presence"], "-", "-", gone, "-", content, record["livelb"]
    age = age_s(record["since"], now)
    runs = "behind" if each["behind"] else "disagrees" if each["disagrees"] else "ok"
    if record["canary"] is not None and runs == "ok":
        runs = "canary"
    return (
        each["name"],
        each["presence"],
        runs,
        "yes" if record["ready"] else "no",
        "-" if age is None else span(age),
        str(record["active"]),
        content,
        record["livelb"],
    )
