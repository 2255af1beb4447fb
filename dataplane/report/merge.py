"""One truth of many workers: status and metrics summed, and what ended workers had counted kept.

`Services` are what `status.Reporter` makes of a node, by service name. A worker's come in parts (worker.process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from dataplane.ipc.messages import Families
    from schemas.status import BackendStatus, RecentStatus, ServiceStatus

__all__ = ["FamilySum", "add_report", "add_totals", "totals_of", "whole_services", "worst"]

Services = dict[str, "ServiceStatus"]


def whole_services(parts: Iterable[tuple[str, Any, list[BackendStatus]]]) -> Services:
    """Put the parts of a worker's report together."""
    services: Services = {}
    for name, status, backends in parts:
        if status is not None:
            status["backends"] = []
            services[name] = status
        services[name]["backends"].extend(backends)
    return services


def add_report(into: Services, report: Services, *, accepting: bool) -> None:
    """Add what one worker reports to what the supervisor knows.

    Args:
        into: Configuration and active health of every service, and the sums so far; changed in place.
        report: The worker's.
        accepting: Whether the worker's listeners count: those of one that drains are closed.
    """
    for name, theirs in report.items():
        ours = into.get(name)
        if ours is None:  # removed, and still with connections there
            into[name] = deepcopy(theirs)
            if not accepting:
                into[name]["listeners"] = []
            continue
        ours["active"] += theirs["active"]
        ours["queued"] += theirs["queued"]
        ours["panic"] = ours["panic"] or (accepting and theirs["panic"])
        _add_service_totals(ours, theirs)
        _add_recent(ours["recent"], theirs["recent"])
        _add_listeners(ours, theirs, accepting=accepting)
        _add_backends(ours, theirs, accepting=accepting)


def _add_recent(ours: RecentStatus, theirs: RecentStatus) -> None:
    ours["window_s"] = max(ours["window_s"], theirs["window_s"])
    ours["connections"] += theirs["connections"]
    _add_counts(ours["refused"], theirs["refused"])
    _add_counts(ours["cut"], theirs["cut"])


def _add_listeners(ours: ServiceStatus, theirs: ServiceStatus, *, accepting: bool) -> None:
    for listener in theirs["listeners"]:
        same = next((one for one in ours["listeners"] if one["address"] == listener["address"]), None)
        if same is not None:
            same["accepted"] += listener["accepted"]
            if accepting and listener["state"] != "accepting":  # its queue waits, whoever accepts from others
                same["state"] = listener["state"]
        elif accepting:
            ours["listeners"].append({**listener})


def _add_backends(ours: ServiceStatus, theirs: ServiceStatus, *, accepting: bool) -> None:
    known = {backend["id"]: backend for backend in ours["backends"]}
    for backend in theirs["backends"]:
        mine = known.get(backend["id"])
        if mine is None:  # removed, and still with connections there
            ours["backends"].append(deepcopy(backend))
            continue
        mine["active"] += backend["active"]
        mine["pooled"] += backend["pooled"]
        _add_backend_totals(mine, backend)
        if accepting:
            _add_ejection(mine, backend)


def _add_ejection(mine: BackendStatus, theirs: BackendStatus) -> None:
    """Show a backend as ejected if any worker has ejected it, since the first did; `down` says more."""
    if theirs["health"]["state"] != "ejected" or mine["health"]["state"] == "down":
        return
    if mine["health"]["state"] != "ejected" or theirs["health"]["since"] < mine["health"]["since"]:
        mine["health"] = {**theirs["health"]}


def totals_of(report: Services) -> Services:
    """Keep of a report what outlives its worker: the totals."""
    kept = deepcopy(report)
    for service in kept.values():
        service["active"] = service["queued"] = 0
        service["panic"] = False
        service["recent"] = {"window_s": 0.0, "connections": 0, "refused": {}, "cut": {}}
        for backend in service["backends"]:
            backend["active"] = backend["pooled"] = 0
    return kept


def add_totals(into: Services, past: Services) -> None:
    """Add the totals of workers that have ended, where the service and the backend still exist."""
    for name, theirs in past.items():
        ours = into.get(name)
        if ours is None:
            continue
        _add_service_totals(ours, theirs)
        accepted = {listener["address"]: listener["accepted"] for listener in theirs["listeners"]}
        for listener in ours["listeners"]:
            listener["accepted"] += accepted.get(listener["address"], 0)
        known = {backend["id"]: backend for backend in theirs["backends"]}
        for backend in ours["backends"]:
            if backend["id"] in known:
                _add_backend_totals(backend, known[backend["id"]])


def _add_service_totals(ours: ServiceStatus, theirs: ServiceStatus) -> None:
    mine, more = ours["totals"], theirs["totals"]
    mine["connections"] += more["connections"]
    mine["bytes_in"] += more["bytes_in"]
    mine["bytes_out"] += more["bytes_out"]
    mine["retries"] += more["retries"]
    _add_counts(mine["closed"], more["closed"])


def _add_backend_totals(ours: BackendStatus, theirs: BackendStatus) -> None:
    mine, more = ours["totals"], theirs["totals"]
    mine["connections"] += more["connections"]
    mine["connect_failures"] += more["connect_failures"]
    mine["bytes_in"] += more["bytes_in"]
    mine["bytes_out"] += more["bytes_out"]
    mine["ejections"] += more["ejections"]
    mine["pool"]["hits"] += more["pool"]["hits"]
    mine["pool"]["misses"] += more["pool"]["misses"]
    _add_counts(mine["pool"]["discarded"], more["pool"]["discarded"])


def _add_counts(into: dict[str, int], more: Mapping[str, int]) -> None:
    for key, count in more.items():
        into[key] = into.get(key, 0) + count


# -- metrics ------------------------------------------------------------------------------------------

_Labels = tuple[tuple[str, str], ...]
_MONOTONIC: Final = frozenset({"counter", "histogram"})
_HEALTH: Final = "lb_backend_health"
_JOINED: Final[dict[str, Callable[[float, float], float]]] = {
    "lb_backend_draining": max,
    "lb_backend_reachable": min,
    "lb_backend_usable": min,
    "lb_backends_serving": min,
    "lb_backend_weight": max,
    "lb_backends_usable": min,
    "lb_generation": min,
    "lb_listener_accepting": min,
    "lb_loop_lag_seconds": max,
    "lb_panic": max,
    "lb_snapshot_info": max,
    "lb_table_info": max,
    "lb_uptime_seconds": max,
}
"""Gauges that are no sums: how two workers' values become one."""
_LOAD: Final = frozenset({"lb_loop_lag_seconds"})
"""Those among them that still mean something in a worker that drains: nobody tells it of health and changes."""


class FamilySum:
    """Metric families of several workers as one."""

    def __init__(self) -> None:
        self._families: dict[str, tuple[str, str, dict[tuple[str, _Labels], float]]] = {}

    def add(self, families: Families, *, ended: bool = False, leaving: bool = False) -> None:
        """Add a worker's; of one that has ended, only what is monotonic; of one that drains, also its load."""
        for kind, name, help_, samples in families:
            if ended and kind not in _MONOTONIC:
                continue
            if leaving and (name in _JOINED or name == _HEALTH) and name not in _LOAD:
                continue
            _, _, sums = self._families.setdefault(name, (kind, help_, {}))
            join = _JOINED.get(name)
            for sample, labels, value in samples:
                key = (sample, tuple(labels.items()))
                before = sums.get(key)
                if before is None:
                    sums[key] = value
                elif name == _HEALTH:
                    sums[key] = _join_health(labels["state"], before, value)
                else:
                    sums[key] = join(before, value) if join else before + value

    def fill(self, families: Families) -> None:
        """Add those samples of which nobody has told anything."""
        for kind, name, help_, samples in families:
            _, _, sums = self._families.setdefault(name, (kind, help_, {}))
            for sample, labels, value in samples:
                sums.setdefault((sample, tuple(labels.items())), value)

    def set(self, name: str, help_: str, values: Iterable[tuple[dict[str, str], float]]) -> None:
        """Replace a gauge by what the supervisor knows better."""
        self._families[name] = (
            "gauge",
            help_,
            {(name, tuple(labels.items())): value for labels, value in values},
        )

    def count(self, name: str, help_: str, values: Iterable[tuple[dict[str, str], float]]) -> None:
        """Add the supervisor's own part of a counter; `name` is without `_total`."""
        sample = f"{name}_total"
        self.add([("counter", name, help_, [(sample, labels, value) for labels, value in values])])

    def families(self, exists: Callable[[Mapping[str, str]], bool] = lambda _: True) -> Families:
        """Return what travels, without series about whose labels `exists` says no."""
        result: Families = []
        for name, (kind, help_, sums) in self._families.items():
            samples = [
                (sample, dict(labels), value)
                for (sample, labels), value in sums.items()
                if exists(dict(labels))
            ]
            result.append((kind, name, help_, samples))
        return result


def worst(members: Iterable[Families], used: str, limit: str) -> tuple[float, float]:
    """Return two gauges of the member that is nearest to its limit: each has one of its own.

    Args:
        members: What each tells.
        used: The gauge of what is used.
        limit: The gauge of what can be.
    """
    pairs = []
    for families in members:
        values = {
            name: samples[0][2] for _, name, _, samples in families if name in {used, limit} and samples
        }
        if len(values) == 2:  # noqa: PLR2004 - a pair
            pairs.append((values[used], values[limit]))
    return max(pairs, key=lambda pair: pair[0] / max(1.0, pair[1]), default=(0.0, 0.0))


def _join_health(state: str, one: float, other: float) -> float:
    """Join the gauge of one health state: ejected if anywhere, anything else only if everywhere."""
    return max(one, other) if state == "ejected" else min(one, other)
