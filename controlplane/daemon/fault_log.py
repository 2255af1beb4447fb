"""Lines in the daemon's log for what goes out of order, and for when it is in order again; nothing in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from controlplane.dataplanes.pusher import Pusher
from controlplane.errors import RefusedError

__all__ = ["Fault", "Noticing", "plane_faults", "source_faults"]

Fault: TypeAlias = tuple[str, str]
"""Its kind, and what there is to say; another text of the same kind is no news."""

_FAULTS: Final = frozenset({"error", "denied", "held"})


class Noticing:
    """Compares what is wrong now with what was wrong before; with `comings` it tells who comes and goes as well."""

    def __init__(self, log: Callable[[str], None], *, comings: bool = False) -> None:
        self._log = log
        self._comings = comings
        self._known: dict[str, str | None] = {}

    def take(self, now: Mapping[str, Fault | None]) -> None:
        """Tell what has changed.

        Args:
            now: What is wrong, by name; None: it is in order. A name that is missing has gone.
        """
        for name, fault in now.items():
            first, before = name not in self._known, self._known.get(name)
            self._known[name] = None if fault is None else fault[0]
            if fault is not None and fault[0] != before:
                self._log(f"{name}: {fault[1]}")
            elif fault is None and before is not None:
                self._log(f"{name}: in order again")
            elif first and self._comings:
                self._log(f"{name}: found")
        for name in self._known.keys() - now.keys():
            del self._known[name]
            if self._comings:
                self._log(f"{name}: gone")


def plane_faults(pushers: Iterable[Pusher]) -> dict[str, Fault | None]:
    """Return what is wrong with each data plane that was looked at."""
    return {
        f"data plane {each.endpoint.name}": None
        if each.error is None
        else ("refused" if isinstance(each.error, RefusedError) else "unreachable", str(each.error))
        for each in pushers
        if each.looked.is_set()
    }


def source_faults(sources: Iterable[Mapping[str, Any]]) -> dict[str, Fault | None]:
    """Return what is wrong with each source, from their rows in the status.

    One that is stale without an error has not answered yet, or an operator wants it so: that is nothing to log.
    """
    return {each["name"]: _fault(each) for each in sources}


def _fault(source: Mapping[str, Any]) -> Fault | None:
    state, error = source["state"], source.get("last_error")
    if state not in _FAULTS and not (state == "stale" and error):
        return None
    held = source.get("held")
    return state, error or (f"{held['count']} that it no longer lists are kept" if held else state)
