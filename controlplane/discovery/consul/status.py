"""What status says of a discovery: one word for it, and everything behind the word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from controlplane.core.instances import MAX_SHOWN, Condition, Remark
from controlplane.discovery.consul.pool import Pool
from controlplane.discovery.consul.watch import Runtime, WatchHealth

_COUNTED: Final = (*(condition.value for condition in Condition), "rejected")


def note_state(pool: Pool, now: float) -> tuple[str, float]:
    """Return a pool's state and since when it is in it, in monotonic seconds; the pool remembers."""
    state, since = _state(pool)
    if state != pool.state[0]:
        pool.state = (state, now if since is None else since)
    return pool.state


def pool_status(pool: Pool, runtime: Runtime) -> dict[str, Any]:
    """Return the status of one selection, as JSON, and the balancer's services that use it."""
    now = runtime.clock()
    state, since = note_state(pool, now)
    healths = [watch.health for watch in pool.watches]
    chosen = healths[pool.chosen] if healths else None
    seen = [track.seen for track in pool.tracks]
    flapping = [
        Remark(name, "flaps: kept down") for track in pool.tracks for name in track.wanted.flapping(now)
    ]
    return {
        "name": pool.selection.name(),
        "services": sorted(pool.services),
        "state": state,
        "since": runtime.rfc3339(since),
        "last_error": _last_error(pool),
        "index": chosen.index if chosen else 0,
        "age_s": _age_s(pool, healths, runtime),
        "source": "consul" if pool.saved_at is None else "saved",
        "datacenter": pool.selection.datacenters[pool.chosen] or None,
        "counts": _sums([item.counts() for item in seen], _COUNTED),
        "rejected": _remarks(remark for item in seen for remark in item.rejected),
        "warnings": _remarks(
            [*pool.divided, *flapping, *(remark for item in seen for remark in item.warnings)]
        ),
        "held": _held(pool, runtime),
        "headers": chosen.headers if chosen else {},
        "polls": sum(item.polls for item in healths),
        "wakes": sum(item.wakes for item in healths),
        "resets": sum(item.resets for item in healths),
        "errors": _sums(
            [item.errors for item in healths], sorted({k for item in healths for k in item.errors})
        ),
    }


def _state(pool: Pool) -> tuple[str, float | None]:
    """Return what an operator should look at first, and since when it is so if that was before it was known.

    Returns:
        One of `ok`, `stale`, `held`, `denied`, `error`; monotonic seconds, or None for now.
    """
    errors = [watch.health.error for watch in pool.watches if watch.health.error is not None]
    held = {track.guard.held.why for track in pool.tracks if track.guard.held is not None}
    if "denied" in held or any(error.kind == "denied" for error in errors):
        return "denied", None
    if held or pool.kept_since is not None:
        return "held", None
    if _emptiness(pool) is not None:
        return "error", None
    silent_since = min((pulse.since for pulse in pool.pulses if pulse.since is not None), default=None)
    if errors:
        is_error = pool.backends is None or any(error.is_operators for error in errors)
        return ("error", None) if is_error else ("stale", silent_since)
    answered = bool(pool.watches) and all(watch.health.answered_at is not None for watch in pool.watches)
    return "ok" if answered and silent_since is None and pool.saved_at is None else "stale", silent_since


def _last_error(pool: Pool) -> str | None:
    found = []
    for name, watch, pulse in zip(pool.selection.datacenters, pool.watches, pool.pulses, strict=False):
        error = watch.health.error or pulse.error
        if error is not None:
            found.append(f"{name}: {error}" if len(pool.watches) > 1 else str(error))
    return "; ".join(found) or _emptiness(pool)


def doubt(pool: Pool, *, released: bool = False) -> str | None:
    """Say why the backends are unknown, or not what Consul shows; None: they are. `released`: as if nothing were held."""
    if (told := _last_error(pool)) is not None:
        return told
    if not all(track.heard for track in pool.tracks):
        return "Consul has not answered"
    if released:
        return None
    missing = sum(len(track.guard.held.missing) for track in pool.tracks if track.guard.held is not None)
    return f"{missing} that Consul no longer lists are kept; --force lets them go" if missing else None


def _emptiness(pool: Pool) -> str | None:
    """Say that Consul has answered, and that there was never an instance to use: its name may be wrong."""
    if pool.backends is not None or not all(track.heard for track in pool.tracks):
        return None
    query, seen = pool.selection.query, [track.seen for track in pool.tracks]
    counts = {
        name: number for name, number in _sums([each.counts() for each in seen], _COUNTED).items() if number
    }
    narrowed = " with these tags, or this filter" if query.tags or query.filter else ""
    if counts:
        unusable = ", ".join(f"{number} {name}" for name, number in counts.items())
        return f"Consul lists no instance of {query.service or query.prepared} that can be used{narrowed}: {unusable}"
    if query.prepared:
        return f"Consul's prepared query {query.prepared} finds no instance"
    return (
        f"Consul lists no instance of {query.service}{narrowed}; is the name right? They are listed by: "
        "consul catalog services"
    )


def _age_s(pool: Pool, healths: Sequence[WatchHealth], runtime: Runtime) -> float | None:
    """Return the age of the oldest answer that still counts, in seconds; None if there is none."""
    if pool.saved_at is not None:
        return round(max(0.0, runtime.wall() - pool.saved_at), 3)
    answered = [item.answered_at for item in healths if item.answered_at is not None]
    return round(runtime.clock() - min(answered), 3) if answered else None


def _held(pool: Pool, runtime: Runtime) -> dict[str, Any] | None:
    """Return what is kept against Consul's word, and why."""
    held = next((track.guard.held for track in pool.tracks if track.guard.held is not None), None)
    if held is not None:
        ends_in_s = None if held.until is None else round(max(0.0, held.until - runtime.clock()), 3)
        why, missing, seen, since = held.why, list(held.missing), held.seen, held.since
    elif pool.kept_since is not None:
        ends_in_s = None
        why, missing, seen, since = "empty", [item.id for item in pool.backends or ()], 0, pool.kept_since
    else:
        return None
    return {
        "why": why,
        "missing": missing[:MAX_SHOWN],
        "count": len(missing),
        "seen": seen,
        "since": runtime.rfc3339(since),
        "ends_in_s": ends_in_s,
    }


def _remarks(remarks: Iterable[Remark]) -> list[dict[str, str]]:
    return [{"id": remark.id, "why": remark.why} for remark in list(remarks)[:MAX_SHOWN]]


def _sums(counts: Iterable[dict[str, int]], names: Sequence[str]) -> dict[str, int]:
    total = sum(map(Counter, counts), Counter[str]())
    return {name: total[name] for name in names}
