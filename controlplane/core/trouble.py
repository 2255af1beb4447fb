"""What somebody should look at in a node's status: one line each, the worst first, with what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from controlplane.core.certificates import concerns
from controlplane.core.harm import harms

Level: TypeAlias = Literal["bad", "warn", "note"]
"""Clients are or may be hit; something is not as it should be; somebody wanted it so."""

_ORDER: Final = {"bad": 0, "warn": 1, "note": 2}
_NAMED: Final = 3
"""Backends that one line names; their number is always whole."""
_USABLE: Final = frozenset({"up", "unknown"})
_SOURCES: Final[dict[str, Level]] = {"stale": "warn", "held": "warn", "denied": "bad", "error": "bad"}
_FILE: Final = "file "
"""How the name of a watched file's source begins."""
_UNSHOWN: Final = "bearer token"
"""Part of what a data plane says to whoever shows none, or a wrong one."""
_STATES: Final = {"enabled": "enable", "drain": "drain", "disabled": "disable"}
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing to look at."""

    level: Level
    word: str
    """What it is, in one or two words."""
    text: str
    """What is wrong, where, why and for how long."""
    command: str | None = None
    """What to type next; None: nothing helps but to wait, or to repair something elsewhere."""
    advice: str = ""
    """What to do in words, for where there is room."""


def age_s(stamp: str | None, now: datetime) -> float | None:
    """Tell how long ago an RFC 3339 time was, in seconds and not below 0; None: it is none."""
    try:
        return max(0.0, (now - datetime.fromisoformat(stamp or "")).total_seconds())
    except (TypeError, ValueError):
        return None


def span(seconds: float) -> str:
    """Write a time in its largest whole unit: `12s`, `5m`, `3h`, `9d`."""
    size, unit = next((each for each in _UNITS if seconds >= each[0]), (1, "s"))
    return f"{int(seconds // size)}{unit}"


def serves(backend: Mapping[str, Any]) -> bool:
    """Tell whether a backend takes new connections by its own state: enabled, with a weight, not known as bad."""
    return standing(backend) in _USABLE


def why(backend: Mapping[str, Any]) -> str:
    """Say why a backend is not healthy, and if so that it can be reached; nothing of one that is healthy."""
    health = backend["health"]
    cause = str(health["cause"] or "")
    if health["state"] in _USABLE or not cause:
        return ""
    return f"{cause}, but reachable" if health.get("reachable") else cause


def serving(service: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the backends that get new connections: in panic also those that are only reachable."""
    backends = [each for each in service["backends"] if not each.get("removed")]
    healthy = [each for each in backends if serves(each)]
    if not service.get("panic"):
        return healthy
    # With nobody healthy, health is ignored in all tiers, else in the one that serves.
    return [
        each
        for each in backends
        if serves(each)
        or (
            standing(each) != "out"
            and each["health"].get("reachable", True)
            and (not healthy or each.get("tier") == service.get("tier"))
        )
    ]


def standing(backend: Mapping[str, Any]) -> str:
    """Say in one word where a backend stands: its health, or `out` if an operator took it out."""
    if backend.get("removed") or backend["state"] != "enabled" or backend["weight"] == 0:
        return "out"
    return str(backend["health"]["state"])


def troubles(report: Mapping[str, Any], now: datetime) -> list[Trouble]:
    """List what is not as it should be in the status of a node, as `status --json` prints it; `now` has a zone.

    The worst first; within a level what clients met, data planes, then sources, services by name, overrides.
    """
    found = [
        *_met(report),
        *_contested(report),
        *_taken_out(report, now),
        *_config(report, now),
        *_unserved(report),
        *_undivided(report),
    ]
    found += _planes(report, now)
    found += _sources(report, now)
    found += _nodes(report)
    for name, service in report["services"].items():
        found += _service(name, service, report, now)
        found += [Trouble(*each) for each in concerns(name, service, now)]
    found += _overrides(report["overrides"], now)
    return sorted(found, key=lambda each: _ORDER[each.level])


def _line(text: str) -> str:
    """Put a message of several lines on one."""
    return ": ".join(line.strip().removesuffix(":") for line in text.splitlines())


def _since(stamp: str | None, now: datetime) -> str:
    age = age_s(stamp, now)
    return "" if age is None else f" for {span(age)}"


def _met(report: Mapping[str, Any]) -> Iterator[Trouble]:
    """Tell what clients met in the last minute: states are what we believe, this is what was so."""
    for name, service in report["services"].items():
        for each in harms(service.get("recent", {})):
            word = "not served" if each.how == "refused" else "cut off"
            level: Level = "bad" if each.is_bad else "warn"
            command = _find_out(name, service, each.first)
            yield Trouble(level, word, each.text(name), command, each.advice)


def _find_out(name: str, service: Mapping[str, Any], reason: str) -> str | None:
    """Write the command that finds out why clients met a close reason."""
    if reason.startswith("connect_"):
        known = [each for each in service["backends"] if serves(each)] or service["backends"]
        failures = [each.get("totals", {}).get("connect_failures", 0) for each in known]
        return _try(known[failures.index(max(failures))]["address"]) if known else None
    if reason == "no_backend":
        return _explain(name)
    return "ss -s; sysctl net.ipv4.ip_local_port_range" if reason == "local_error" else None


def _explain(name: str) -> str:
    return _shell("lb-control", "explain", name, "--client", "192.0.2.1")


def _taken_out(report: Mapping[str, Any], now: datetime) -> Iterator[Trouble]:
    """Tell that an operator takes this node out: who wonders where its clients are finds it here."""
    drain = report.get("drain")
    if not drain:
        return
    back = "lb-control node enable"
    if drain["error"]:
        text = (
            f"this node is not ready, since it is not known whether somebody takes it out: {drain['error']}"
        )
        yield Trouble("bad", "not ready", text, back)
        return
    lowered = drain["phase"] == "lowered"
    what = (
        "routers and VRRP are asked to prefer other nodes"
        if lowered
        else "not ready: new clients go elsewhere"
    )
    text = f"{drain['by']} takes this node out, {drain['phase']}{_since(drain['since'], now)}: {what}"
    yield Trouble("note", drain["phase"], text, back)


def _contested(report: Mapping[str, Any]) -> Iterator[Trouble]:
    contested = report.get("contested")
    if not contested:
        return
    told, by = contested["said_by"], contested["by"]
    often = f"{contested['times']} times in {span(contested['for_s'])}"
    text = (
        f"somebody else pushes to the same data planes, and each push cuts clients: {told}; what was accepted here was "
        f"pushed again {often}, and may be once more in {span(contested['next_in_s'])}"
    )
    command = f"ps -fp {by['pid']}" if by and contested["here"] else None
    yield Trouble("bad", "contested", text, command, "end one of the two, or give both the same file")


def _config(report: Mapping[str, Any], now: datetime) -> Iterator[Trouble]:
    if error := report["config_error"]:
        text = f"not taken{_since(error['since'], now)}, what ran before goes on: {_line(error['message'])}"
        path = str(error["path"])
        # Without details the content is valid: something else stands in its way, which only a plan finds.
        try_it = "validate" if error["details"] else "plan"
        command = None if path.startswith("consul-kv:") else _shell("lb-control", try_it, path)
        yield Trouble("bad", "config error", text, command)


def _unserved(report: Mapping[str, Any]) -> Iterator[Trouble]:
    for each in report.get("unserved", ()):
        yield Trouble("bad", "not served", f"service {each['service']} is not served: {each['why']}")


def _undivided(report: Mapping[str, Any]) -> Iterator[Trouble]:
    share = report.get("share")
    if share and share["nodes"] is None:
        text = (
            f"this node takes the limits of all nodes for its own, of {', '.join(sorted(share['limits']))}: "
            "it has never known how many nodes there are"
        )
        yield Trouble("warn", "not divided", text, "lb-control nodes")


def _planes(report: Mapping[str, Any], now: datetime) -> Iterator[Trouble]:
    planes = report["dataplanes"]
    if not planes:
        yield Trouble(
            "bad", "nothing runs", "no data plane: nothing is served", "lb-dataplane --workers auto"
        )
    explained = bool(report.get("contested"))
    for each in planes:
        if each.get("gone_since"):
            explained = True
            text = (
                f"data plane {each['name']}{_since(each['gone_since'], now)}: its process has ended, and left its "
                "socket; remove that if it is not to come back under this name"
            )
            yield Trouble("bad", "gone", text, _shell("rm", each["socket"]))
        elif not each["reachable"]:
            explained = True
            known = each["generation"] is not None
            old = f"; its figures are {span(each['age_s'])} old" if known else "; it has never answered"
            text = f"data plane {each['name']}: {_line(each['error'] or 'does not answer')}{old}"
            yield Trouble("bad", "unreachable", text, _find(each))
        elif each["error"]:
            explained = True
            yield Trouble(
                "bad", "refused", f"data plane {each['name']}: {_line(each['error'])}", "lb-control history"
            )
    for each in report.get("draining", ()):
        left = "1 connection" if each["connections"] == 1 else f"{each['connections']} connections"
        text = f"process {each['pid']} has been data plane {each['name']}, and drains{_since(each['since'], now)}: {left} left"
        yield Trouble("note", "draining", text)
    if any(each["reachable"] for each in planes) and not (report["services"] or report.get("unserved", ())):
        yield Trouble(
            "warn", "no service", "no service is configured: nothing listens", "lb-control apply FILE"
        )
    if planes and not explained and not report["converged"]:
        text = f"not every worker runs generation {report['generation']} yet"
        yield Trouble("warn", "not converged", text, "lb-control status --watch")


def _find(plane: Mapping[str, Any]) -> str | None:
    """Write the command that finds out why a data plane cannot be asked."""
    url = str(plane["socket"])
    if "://" not in url:
        # Not by the pid that it told: that of a container's first process is 1, which is another one here.
        return f"ss -xlp | {_shell('grep', '-F', url)}"
    if _UNSHOWN in str(plane["error"]):
        return _shell("lb-control", "--dataplane", url, "--token-file", "FILE", "status")
    # Its process is on another machine.
    parts = urlsplit(url)
    return _try(parts.netloc) if parts.port else None


def _sources(report: Mapping[str, Any], now: datetime) -> Iterator[Trouble]:
    unserved = {each["service"] for each in report.get("unserved", ())}
    for each in report["sources"]:
        told = report["config_error"] and each["name"].startswith(_FILE)
        told = told or unserved.issuperset(each.get("services") or [None])
        if each["state"] == "ok" or told:
            continue
        held = each.get("held")
        if held:
            end = "" if held["ends_in_s"] is None else f" for {span(held['ends_in_s'])} more"
            what = f"{held['count']} that it no longer lists are kept{end}"
            command = "lb-control apply FILE --force"
        else:
            what, command = each.get("last_error") or each.get("note") or each["state"], None
            if each["state"] == "stale" and each["name"].startswith(_FILE):
                command = _shell("lb-control", "apply", each["name"].removeprefix(_FILE))
        level = _SOURCES.get(each["state"], "warn")
        yield Trouble(level, each["state"], f"{each['name']}{_since(each['since'], now)}: {what}", command)


def _nodes(report: Mapping[str, Any]) -> Iterator[Trouble]:
    for each in report["sources"]:
        troubled = each.get("troubled")
        if troubled:
            more = f" and {len(troubled) - _NAMED} more" if len(troubled) > _NAMED else ""
            text = f"of the cluster {each['cluster']}, {', '.join(troubled[:_NAMED])}{more}"
            yield Trouble("warn", "nodes", text, "lb-control nodes")


def _service(
    name: str, service: Mapping[str, Any], report: Mapping[str, Any], now: datetime
) -> Iterator[Trouble]:
    backends = [each for each in service["backends"] if not each.get("removed")]
    explain = _explain(name)
    if not backends:
        yield Trouble("warn", "empty", f"{name} has no backends: its clients are refused")
    elif service.get("panic"):
        usable = sum(map(serves, backends)) or "none"
        text = (
            f"{name}: {usable} of {len(backends)} backends healthy, so health is ignored:"
            f" {len(serving(service))} that can be reached serve; the checks may be wrong"
        )
        yield Trouble("bad", "panic", text, explain)
    elif not any(map(serves, backends)):
        yield Trouble(
            "bad", "no backend", f"{name}: none of {len(backends)} is usable: clients are refused", explain
        )
    for state in ("down", "ejected"):
        bad = [each for each in backends if each["health"]["state"] == state]
        if bad:
            yield _unhealthy(name, state, bad, len(backends), now)
    for each in service["listeners"]:
        if each["state"] != "accepting":
            command = _limits(report["dataplanes"]) if each["state"] == "paused" else None
            yield Trouble(
                "warn", each["state"], f"{name}: the listener {each['address']} is {each['state']}", command
            )


def _limits(planes: Sequence[Mapping[str, Any]]) -> str | None:
    """Write the command that shows how many descriptors those may open that accept: the workers, on this machine."""
    local = [each for each in planes if each["reachable"] and "://" not in str(each["socket"])]
    # The first process of a container sees other pids than we do.
    pids = [worker["pid"] for each in local if each["pid"] != 1 for worker in each["workers"]]
    return " ".join(["grep 'open files'", *(f"/proc/{pid}/limits" for pid in pids)]) if pids else None


def _unhealthy(name: str, state: str, bad: Sequence[Mapping[str, Any]], of: int, now: datetime) -> Trouble:
    # The newest is what changed last, and so what somebody is here for.
    shown = sorted(bad, key=lambda each: str(each["health"].get("since")), reverse=True)[:_NAMED]
    causes = {why(each) for each in bad}
    alike = len(causes) == 1
    names = ", ".join(each["id"] if alike else f"{each['id']} ({why(each)})" for each in shown)
    more = f" and {len(bad) - len(shown)} more" if len(bad) > len(shown) else ""
    cause = f": {causes.pop()}" if alike and causes != {""} else ""
    text = f"{name}: {len(bad)} of {of}: {names}{more}{_since(shown[0]['health'].get('since'), now)}{cause}"
    return Trouble("bad" if state == "down" else "warn", state, text, _try(shown[0]["address"]))


def _try(address: str) -> str:
    """Write the command that tries the address of a backend by hand."""
    if address.startswith("unix:"):
        return _shell("nc", "-zvU", address.removeprefix("unix:"))
    host, _, port = address.rpartition(":")
    return _shell("nc", "-zvw", "3", host.strip("[]"), port)


def _overrides(overrides: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[Trouble]:
    if not overrides:
        return
    shown = []
    for each in overrides[:_NAMED]:
        field = "" if each["field"] == "state" else f"{each['field']} "
        shown.append(f"{each['service']}/{each['id']} {field}{each['value']}")
    more = f" and {len(overrides) - len(shown)} more" if len(overrides) > len(shown) else ""
    first = overrides[0]
    by = f" by {first['by']}" if first["by"] else ""
    text = f"{', '.join(shown)}{more}{by}{_since(first['since'], now)}"
    yield Trouble("note", "override", text, _back(first))


def _back(override: Mapping[str, Any]) -> str | None:
    """Write the command that takes an override back; None if it is not known what to return to."""
    place, configured = (override["service"], override["id"]), override.get("configured")
    if override["field"] == "weight":
        return None if configured is None else _shell("lb-control", "weight", *place, str(configured))
    word = _STATES.get(configured or ("enabled" if override["value"] != "enabled" else ""))
    return None if word is None else _shell("lb-control", word, *place)


def _shell(*words: str) -> str:
    # Names come from discovery as well: what is pasted must be what is shown.
    return shlex.join(words)
