"""What people are told of the certificates of services: until when they hold, and what somebody should see to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

SOON_S: Final = 7 * 86400
"""Whatever renews certificates has done so before: certbot does it a month ahead."""
URGENT_S: Final = 86400
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_NAMED: Final = 2
"""Names of a certificate that one line has; their number is always whole."""


class Concern(NamedTuple):
    """Something to see to."""

    level: Literal["bad", "warn"]
    word: str
    text: str


def left_s(certificate: Mapping[str, Any], now: datetime) -> float:
    """Return how long a certificate of a status still holds, in seconds; below 0: since when it does not."""
    return (datetime.fromisoformat(certificate["ends"]) - now).total_seconds()


def ends(certificate: Mapping[str, Any], now: datetime) -> str:
    """Say when it ends: `ends in 29d`, `ended 3h ago`."""
    left = left_s(certificate, now)
    size, unit = next((each for each in _UNITS if abs(left) >= each[0]), _UNITS[-1])
    span = f"{int(abs(left) // size)}{unit}"
    return f"ends in {span}" if left > 0 else f"ended {span} ago"


def names(certificate: Mapping[str, Any]) -> str:
    """Name whom it is for: some names, and how many more."""
    found = certificate["names"]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more or "no name"


def concerns(service: str, status: Mapping[str, Any], now: datetime) -> Iterator[Concern]:
    """Tell what is not as it should be with the certificates of a service: `now` has a zone."""
    for each in status.get("certificates", ()):
        what = f"{service}: {each['cert']} ({names(each)})"
        left = left_s(each, now)
        if left <= 0:
            yield Concern(
                "bad", "certificate", f"{what} {ends(each, now)}: whoever verifies it does not connect"
            )
        elif left < SOON_S:
            yield Concern(
                "bad" if left < URGENT_S else "warn",
                "certificate",
                f"{what} {ends(each, now)}, and nobody has renewed it",
            )
        if each["not_renewed"]:
            yield Concern(
                "warn", "not renewed", f"{what}: what is in its files is not in use: {each['not_renewed']}"
            )
        if each["key_readable_by_all"]:
            yield Concern(
                "warn", "key", f"{what}: everybody on its machine may read its key; take that from others"
            )


def join(one: Iterable[Mapping[str, Any]], other: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return of each place the worse of what two data planes show: trouble, then what ends first."""
    found = {each["place"]: dict(each) for each in one}
    for each in other:
        known = found.get(each["place"])
        if known is None or _rank(each) < _rank(known):
            found[each["place"]] = dict(each)
    return list(found.values())


def _rank(certificate: Mapping[str, Any]) -> tuple[bool, datetime]:
    return not certificate["not_renewed"], datetime.fromisoformat(certificate["ends"])
