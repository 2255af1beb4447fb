"""Whether the clients of a canary fare worse: its nodes against the others in the same window, and against themselves before.

Theory of operation
-------------------
1. For each service four things are compared: the share of new connections that failed, times to the first byte, ejections, and
   the share of backends that are usable.
2. There are two references. The *others* are the nodes without the canary in the same window: whatever hits all nodes alike, a
   backend that dies say, is in both. *Before* is what the canary's nodes have counted since they started: a node that was
   always worse is no worse than it was. Something is worse only if it is worse than each reference that has enough to
   compare with.
3. Shares are compared by Fisher's exact test, one-sided (R. A. Fisher, The Design of Experiments, 1935): the chance that a
   canary which is like the reference has so many failures or more. It needs no large numbers: three failures in a hundred
   against none in three hundred are no proof (1.5 %). Worse is what has a chance below `ALPHA` *and* differs by at least
   `LEAST_MORE_FAILURES`, for with a million connections the smallest difference is significant. Either side needs `LEAST_CONNECTIONS`.
4. Times come in classes. The bound that nine in ten of the reference's connections keep is taken from the reference, and the
   shares of those that are slower are compared in the same way (`LEAST_MORE_SLOW`).
5. Ejections are rare events over node-seconds: given how many there were on both sides, their number on one side is
   binomial (J. Przyborowski and H. Wilenski, Biometrika 31, 1940).
6. Usable backends are no sample: a share that is lower by `LEAST_FEWER_USABLE` at the end of the window is worse.
7. A look before the end may only condemn, and only with a chance below `EARLY_ALPHA`: looking twelve times with `ALPHA` would be
   twelve chances of being wrong.
8. A service that no reference has is new: it is worse if `ALONE_FAILING` of its connections fail.
9. Too little traffic is no failure, and is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from controlplane.core.node_record import FirstByte, Outcomes

ALPHA: Final = 0.001
EARLY_ALPHA: Final = 1e-6
LEAST_CONNECTIONS: Final = 50
"""On each side of a comparison."""
LEAST_MORE_FAILURES: Final = 0.002
LEAST_MORE_SLOW: Final = 0.1
LEAST_FEWER_USABLE: Final = 0.1
ALONE_FAILING: Final = 0.5
KEPT_BY: Final = 0.9
"""The share of the reference's connections that keep the bound of what is slow."""
METRICS: Final = ("failed", "first byte", "ejections", "usable")
_SHOWN: Final = 3
"""How many things that are worse are named in a line."""


@dataclass(frozen=True, slots=True)
class Window:
    """What one node counted, from the beginning of the canary to now."""

    node: str
    began: Mapping[str, Outcomes]
    """By service; cumulative."""
    now: Mapping[str, Outcomes]
    uptime_s: float
    """For how long it had counted when the canary began."""
    restarted: bool = False
    """Its counters began anew in between."""

    def counted(self, service: str) -> Outcomes | None:
        """Return what the window adds; None: there is no such service now."""
        now, began = self.now.get(service), self.began.get(service)
        if now is None or began is None or self.restarted:
            return now
        return Outcomes(
            _more(now.connections, began.connections),
            _more(now.failures, began.failures),
            _more(now.ejections, began.ejections),
            now.usable,
            now.backends,
            _more_times(now.first_byte_ms, began.first_byte_ms),
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """One thing of one service on one side."""

    shown: str
    """For people: `0.12% of 812`; `-`: there is nothing."""
    worse_than: bool | None = None
    """Of a reference: whether the canary is worse than that; None: not enough to compare with."""


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of one service."""

    service: str
    metric: str
    canary: str
    others: Cell
    before: Cell
    is_worse: bool

    def report(self) -> dict[str, object]:
        """Return it as `--json` prints it."""
        return {
            "service": self.service,
            "metric": self.metric,
            "canary": self.canary,
            "others": self.others.shown,
            "before": self.before.shown,
            "worse_than_others": self.others.worse_than,
            "worse_than_before": self.before.worse_than,
            "worse": self.is_worse,
        }


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look at a canary comes to."""

    is_worse: bool
    is_judged: bool
    """Whether there was enough traffic to judge anything at all."""
    connections: int
    """New ones on the canary's nodes, of all services."""
    rows: tuple[Row, ...] = field(default=())

    @property
    def why(self) -> str:
        """The evidence in a line."""
        worse = [
            f"{each.service}: {each.metric} {each.canary}, others {each.others.shown}, before {each.before.shown}"
            for each in self.rows
            if each.is_worse
        ]
        if worse:
            more = f"; and {len(worse) - _SHOWN} more" if len(worse) > _SHOWN else ""
            return "; ".join(worse[:_SHOWN]) + more
        if not self.is_judged:
            return f"too little traffic to judge: {self.connections} new connections on its nodes"
        failed = [
            f"{each.service}: {each.metric} {each.canary}, others {each.others.shown}"
            for each in self.rows
            if each.metric == METRICS[0] and each.canary != "-"
        ]
        more = f"; and {len(failed) - _SHOWN} more" if len(failed) > _SHOWN else ""
        return "; ".join(failed[:_SHOWN]) + more


def judge(
    canary: Sequence[Window], others: Sequence[Window], window_s: float, *, early: bool = False
) -> Verdict:
    """Compare.

    Args:
        canary: The nodes that run it.
        others: The live nodes that do not.
        window_s: How long it is since the canary began.
        early: The window is not over.
    """
    services = sorted({name for each in canary for name in each.now})
    rows: list[Row] = []
    connections, is_judged = 0, False
    for service in services:
        mine = _sum(each.counted(service) for each in canary)
        theirs = _sum(each.counted(service) for each in others)
        past = _sum(each.began.get(service) for each in canary)
        assert mine is not None  # noqa: S101 - its name is from there
        connections += mine.connections
        is_judged = is_judged or mine.connections >= LEAST_CONNECTIONS
        exposed = (
            len(canary) * window_s,
            len(others) * window_s,
            sum(each.uptime_s for each in canary),
        )
        rows += _rows(service, (mine, theirs, past), exposed, early=early)
    return Verdict(any(each.is_worse for each in rows), is_judged, connections, tuple(rows))


_Sides = tuple[Outcomes, Outcomes | None, Outcomes | None]
"""The canary, the others, before."""


def _rows(service: str, sides: _Sides, exposed: tuple[float, float, float], *, early: bool) -> list[Row]:
    alpha = EARLY_ALPHA if early else ALPHA
    mine, theirs, past = sides

    def row(
        metric: str, show: Callable[[Outcomes], str], worse: Callable[[Outcomes, float], bool | None]
    ) -> Row:
        def cell(side: Outcomes | None, seconds: float) -> Cell:
            return Cell("-") if side is None else Cell(show(side), worse(side, seconds))

        others, before = cell(theirs, exposed[1]), cell(past, exposed[2])
        answers = [each.worse_than for each in (others, before) if each.worse_than is not None]
        return Row(service, metric, show(mine), others, before, is_worse=bool(answers) and all(answers))

    failed = row(METRICS[0], _failed, lambda side, _: _fails_more(mine, side, alpha))
    if failed.others.worse_than is None and failed.before.worse_than is None:
        alone = mine.connections >= LEAST_CONNECTIONS and _share(mine) >= ALONE_FAILING
        failed = Row(service, METRICS[0], failed.canary, failed.others, failed.before, is_worse=alone)
    return [
        failed,
        row(METRICS[1], _slowness, lambda side, _: _is_slower(mine, side, alpha)),
        row(
            METRICS[2],
            lambda side: str(side.ejections),
            lambda side, seconds: _ejects_more(
                (mine.ejections, exposed[0]), (side.ejections, seconds), alpha
            ),
        ),
        row(METRICS[3], _usable, lambda side, _: None if early else _has_fewer(mine, side)),
    ]


# --- the four comparisons; None: there is not enough to compare


def _fails_more(mine: Outcomes, side: Outcomes, alpha: float) -> bool | None:
    if min(mine.connections, side.connections) < LEAST_CONNECTIONS:
        return None
    if _share(mine) - _share(side) < LEAST_MORE_FAILURES:
        return False
    return chance_of_more(mine.failures, mine.connections, side.failures, side.connections) < alpha


def _is_slower(mine: Outcomes, side: Outcomes, alpha: float) -> bool | None:
    if min(mine.first_byte_ms.count, side.first_byte_ms.count) < LEAST_CONNECTIONS:
        return None
    bound = _kept_bound(side.first_byte_ms)
    slow, all_mine = _slower_than(mine.first_byte_ms, bound)
    slow_there, all_theirs = _slower_than(side.first_byte_ms, bound)
    if not all_mine or not all_theirs or slow / all_mine - slow_there / all_theirs < LEAST_MORE_SLOW:
        return False
    return chance_of_more(slow, all_mine, slow_there, all_theirs) < alpha


def _ejects_more(mine: tuple[int, float], side: tuple[int, float], alpha: float) -> bool | None:
    (count, seconds), (other_count, other_seconds) = mine, side
    if seconds <= 0 or other_seconds <= 0:
        return None
    share, total = seconds / (seconds + other_seconds), count + other_count
    chance = sum(
        math.exp(_log_choose(total, k) + k * math.log(share) + (total - k) * math.log1p(-share))
        for k in range(count, total + 1)
    )
    return chance < alpha


def _has_fewer(mine: Outcomes, side: Outcomes) -> bool | None:
    if not mine.backends or not side.backends:
        return None
    return side.usable / side.backends - mine.usable / mine.backends >= LEAST_FEWER_USABLE


def chance_of_more(failures: int, of: int, other_failures: int, other_of: int) -> float:
    """Return the chance (0..1) of so many failures or more, if both sides were alike: Fisher's exact test, one-sided."""
    total, failed = of + other_of, failures + other_failures
    first, last = max(failures, failed - other_of, 0), min(failed, of)
    norm = _log_choose(total, of)
    chance = 0.0
    for count in range(first, last + 1):
        term = math.exp(_log_choose(failed, count) + _log_choose(total - failed, of - count) - norm)
        chance += term
        if term < chance * 1e-12 and count > failed * of / total:  # behind the peak they only get smaller
            break
    return min(1.0, chance)


# --- numbers


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _share(side: Outcomes) -> float:
    return side.failures / side.connections if side.connections else 0.0


def _more(now: int, began: int) -> int:
    return now - began if now >= began else now


def _more_times(now: FirstByte, began: FirstByte) -> FirstByte:
    if now.count < began.count:
        return now
    buckets = {bound: _more(count, began.buckets.get(bound, 0)) for bound, count in now.buckets.items()}
    return FirstByte(now.count - began.count, max(0.0, now.sum - began.sum), buckets)


def _sum(sides: Iterable[Outcomes | None]) -> Outcomes | None:
    known = [each for each in sides if each is not None]
    return sum(known[1:], known[0]) if known else None


def _bounds(times: FirstByte) -> list[tuple[float, int]]:
    return sorted((float(bound), count) for bound, count in times.buckets.items() if _is_number(bound))


def _is_number(text: str) -> bool:
    try:
        return not math.isnan(float(text))
    except ValueError:
        return False


def _kept_bound(times: FirstByte) -> float:
    """Return the bound in milliseconds that nine in ten keep."""
    bounds, kept = _bounds(times), 0
    total = sum(count for _, count in bounds)
    for bound, count in bounds:
        kept += count
        if kept >= KEPT_BY * total:
            return bound
    return math.inf


def _slower_than(times: FirstByte, bound: float) -> tuple[int, int]:
    """Return how many are slower, and of how many."""
    bounds = _bounds(times)
    return sum(count for at, count in bounds if at > bound), sum(count for _, count in bounds)


def _failed(side: Outcomes) -> str:
    return f"{_share(side) * 100:.3g}% of {side.connections}" if side.connections else "-"


def _slowness(side: Outcomes) -> str:
    if not side.first_byte_ms.count:
        return "-"
    bound = _kept_bound(side.first_byte_ms)
    mean = side.first_byte_ms.sum / side.first_byte_ms.count
    p90 = "" if math.isinf(bound) else f", 90% in {bound:g} ms"
    return f"mean {mean:.3g} ms{p90}"


def _usable(side: Outcomes) -> str:
    return f"{side.usable} of {side.backends}"
