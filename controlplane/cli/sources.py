"""How the sources of the desired state fare, for people: one line each, and below it what is out of order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from controlplane.cli import output, words

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["details", "sources_table"]

_SHOWN: Final = 8
"""Instances that are named; their number is always whole."""
_WHY: Final = {
    "shrink": "too many vanished at once",
    "empty": "Consul shows none",
    "denied": "the token sees too little",
}


def sources_table(sources: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Lay all sources out, below the list of troubles."""
    rows = [
        (each["name"], each["state"], output.when(each["since"]), "\n".join(details(_shorter(each))))
        for each in sources
    ]
    styles = {"state": lambda state: words.SOURCES.get(state, "")}
    return output.table(("source", "state", "since", "note"), rows, styles=styles)


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
