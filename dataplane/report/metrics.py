"""Metrics, made of figures: a row for each family, whether they are of one process or of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from operator import attrgetter
from typing import Any, Final, NamedTuple

from dataplane.core.health import HealthState
from dataplane.core.reasons import CloseReason, DiscardCause
from dataplane.net.counters import LATENCY_BOUNDS_S, SESSION_BOUNDS_S
from dataplane.report.figures import Family, Figures, Numbers, Sample
from dataplane.report.tls_row import TlsRow, tls_row

Samples = list[Sample]
"""What comes after the family's name, labels besides the subject's, and the value."""


class Runs(NamedTuple):
    """What runs."""

    generation: int
    hash: str
    saved: bool
    """Whether a restart would find it."""
    uptime_s: float


class _Subject(NamedTuple):
    """A thing that families have samples of; all backends of a large service are one."""

    labels: dict[str, str]
    figures: Any
    views: list[tuple[Any, int]]
    """What is seen of it, or of how many backends; nothing if all who know of it drain."""


Value = Callable[[_Subject], "float | Samples | None"]
"""What a family says of a subject: a number, several, or nothing."""
_Rows = tuple[tuple[str, str, str, "str | Value"], ...]
"""Families: kind, name without `_total`, help, and the name of a figure or what makes the value."""
COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"


def _samples(kind: str, name: str, take: str | Value, subjects: Iterable[_Subject]) -> Iterator[Sample]:
    name = f"{name}_total" if kind == COUNTER else name
    for subject in subjects:
        value = getattr(subject.figures, take) if isinstance(take, str) else take(subject)
        if isinstance(value, list):
            for suffix, labels, number in value:
                yield name + suffix, {**subject.labels, **labels}, number
        elif value is not None:
            yield name, subject.labels, value


def families(figures: Figures, runs: Runs) -> list[Family]:
    """Return all families; their samples are made when they are taken."""
    services = [
        _Subject({"service": name}, one, [] if one.view.silent else [(one.view, 1)])
        for name, one in figures.services.items()
    ]
    listeners = [
        _Subject({"service": name, "address": address}, one, [])
        for (name, address), one in figures.listeners.items()
    ]
    crowds = [
        _Subject({"service": name, "backend": "_all"}, one, list(Counter(one.view.values()).items()))
        for name, one in figures.crowds.items()
    ]
    each = [
        _Subject({"service": name, "backend": id_}, one, [] if one.view.silent else [(one.view, 1)])
        for (name, id_), one in figures.backends.items()
    ]
    told = (
        (_RUNS, [_Subject({}, runs, [])]),
        (_PROCESS, [_Subject({}, figures.process, [])]),
        (_LISTENER, listeners),
        (_SERVICE, services),
        (_BACKEND, [*crowds, *each]),
        (_SINGLE_BACKEND, each),
    )
    return [
        (kind, name, help_, _samples(kind, name, take, subjects))
        for rows, subjects in told
        for kind, name, help_, take in rows
    ]


def _seen(name: str) -> Value:
    """Return what sums what is seen of a subject, and says nothing where nobody sees anything."""
    value = attrgetter(name)
    return lambda one: sum(value(view) * count for view, count in one.views) if one.views else None


def _histogram(name: str, bounds: tuple[float, ...]) -> Value:
    return lambda one: _buckets(getattr(one.figures, name), bounds)


def _buckets(numbers: Numbers, bounds: tuple[float, ...]) -> Samples:
    if not numbers:
        return []
    *counts, total = numbers
    below = list(accumulate(counts))
    buckets = zip([*map(str, bounds), "+Inf"], below, strict=True)
    ends: Samples = [("_count", {}, below[-1]), ("_sum", {}, total)]
    return [*(("_bucket", {"le": bound}, count) for bound, count in buckets), *ends]


def _each(label: str, words: Iterable[str], counts: Iterable[float]) -> Samples:
    return [("", {label: str(word)}, count) for word, count in zip(words, counts, strict=True)]


def _closed(one: _Subject) -> Samples:
    return _each("reason", CloseReason, one.figures.closed)


def _discarded(one: _Subject) -> Samples:
    return _each("cause", DiscardCause, one.figures.discarded)


def _health(one: _Subject) -> Samples:
    seen: Counter[str] = Counter()
    for view, count in one.views:
        seen[view.health] += count
    return _each("state", HealthState, (seen[state] for state in HealthState)) if one.views else []


def _table(one: _Subject) -> Samples:
    hashes = [view.table_hash for view, _ in one.views if view.table_hash is not None]
    return [("", {"table_hash": table_hash}, 1) for table_hash in hashes]


def _certificates(name: str) -> Value:
    """Return what says something of each certificate of a service."""
    value = attrgetter(name)
    return lambda one: [
        ("", {"place": each.place, "cert": each.cert}, value(each))
        for view, _ in one.views
        for each in view.certificates
    ]


def _snapshot(one: _Subject) -> Samples:
    return [("", {"hash": one.figures.hash}, 1)]


def _accepting(one: _Subject) -> float | None:
    state = one.figures.state
    return None if state in {None, "closing"} else state == "accepting"


def _tls(samples: Callable[[TlsRow], Samples]) -> Value:
    """Return what says something of TLS, and nothing where there was none."""

    def value(one: _Subject) -> Samples:
        row = tls_row(one.figures.tls)
        return [] if row is None else samples(row)

    return value


_TLS_VERSIONS: Final = _tls(lambda row: _each("version", row.versions, row.versions.values()))
_TLS_RESUMED: Final = _tls(lambda row: [("", {}, row.resumed)])
_TLS_SECONDS: Final = _tls(lambda row: _buckets(row.seconds, LATENCY_BOUNDS_S))
_TLS_CAUSES: Final = _tls(lambda row: _each("cause", row.causes, row.causes.values()))


def _tls_causes_seen(one: _Subject) -> Samples:
    """Return those that there were: a service has few of them, and its backends together would have thousands of zeros."""
    row = tls_row(one.figures.tls)
    return [] if row is None else [("", {"cause": cause}, n) for cause, n in row.causes.items() if n]


_RUNS: Final[_Rows] = (
    (GAUGE, "lb_generation", "Generation of the snapshot that runs", "generation"),
    (GAUGE, "lb_snapshot_info", "Hash of the snapshot that runs", _snapshot),
    (
        GAUGE,
        "lb_snapshot_saved",
        "1 unless the snapshot that runs could not be saved, so that a restart would find another",
        "saved",
    ),
    (GAUGE, "lb_uptime_seconds", "Since the process began", "uptime_s"),
)
_PROCESS: Final[_Rows] = (
    (GAUGE, "lb_loop_lag_seconds", "How late the last timer tick was", "lag_s"),
    (
        GAUGE,
        "lb_descriptors_watched",
        "Descriptors in the relay's epoll; of several workers, of the one nearest to its limit",
        "watched",
    ),
    (
        GAUGE,
        "lb_descriptors_limit",
        "Descriptors at which accepting pauses; of several workers, in the same one",
        "limit",
    ),
    (COUNTER, "lb_log_lines_dropped", "Log lines that a slow reader or a full disk cost", "dropped_lines"),
    (COUNTER, "lb_spans_exported", "Spans that the collector has taken", "exported_spans"),
    (COUNTER, "lb_spans_dropped", "Spans that the collector cost", "dropped_spans"),
)
_LISTENER: Final[_Rows] = (
    (GAUGE, "lb_listener_accepting", "1 unless accepting is paused", _accepting),
    (COUNTER, "lb_listener_accepted", "Clients accepted", "accepted"),
)
_SERVICE: Final[_Rows] = (
    (COUNTER, "lb_connections", "Clients accepted", "connections"),
    (GAUGE, "lb_connections_active", "Clients admitted and not gone", "active"),
    (GAUGE, "lb_connections_queued", "Clients waiting for a place", "queued"),
    (COUNTER, "lb_connections_closed", "Clients gone, by close reason", _closed),
    (COUNTER, "lb_bytes_in", "Bytes from clients", "bytes_in"),
    (COUNTER, "lb_bytes_out", "Bytes to clients", "bytes_out"),
    (COUNTER, "lb_connections_handed_over", "Clients that another worker got", "handed_over"),
    (COUNTER, "lb_retries", "Connection attempts at a further backend", "retries"),
    (HISTOGRAM, "lb_session_seconds", "From accept to close", _histogram("session", SESSION_BOUNDS_S)),
    (HISTOGRAM, "lb_queue_seconds", "Wait for a place", _histogram("queue", LATENCY_BOUNDS_S)),
    (GAUGE, "lb_panic", "1 while health is ignored", _seen("panic")),
    (GAUGE, "lb_backends_usable", "Backends that are healthy, enabled and weighted", _seen("usable")),
    (
        GAUGE,
        "lb_backends_serving",
        "Backends that get new connections: the usable ones, in panic the reachable ones",
        _seen("serving"),
    ),
    (GAUGE, "lb_table_info", "Hash of the sticky table", _table),
    (
        GAUGE,
        "lb_certificate_expires_seconds",
        "When the certificate in use ends, as Unix time; of several workers, the first",
        _certificates("not_after"),
    ),
    (
        GAUGE,
        "lb_certificate_not_renewed",
        "1 while its files have changed and cannot be used, so that the one before is",
        _certificates("is_stale"),
    ),
    (COUNTER, "lb_tls_handshakes", "TLS handshakes with clients, by version", _TLS_VERSIONS),
    (
        COUNTER,
        "lb_tls_handshakes_resumed",
        "TLS handshakes that went on with an earlier session",
        _TLS_RESUMED,
    ),
    (COUNTER, "lb_tls_handshake_failures", "TLS handshakes with clients that failed, by cause", _TLS_CAUSES),
    (HISTOGRAM, "lb_tls_handshake_seconds", "TLS handshakes with clients that succeeded", _TLS_SECONDS),
)
_BACKEND: Final[_Rows] = (
    (COUNTER, "lb_backend_connections", "Clients' connections that reached it", "connections"),
    (COUNTER, "lb_backend_connect_failures", "Dials that failed", "connect_failures"),
    (COUNTER, "lb_backend_ejections", "How often passive health ejected it", "ejections"),
    (COUNTER, "lb_pool_hits", "Clients that got a pooled connection", "hits"),
    (COUNTER, "lb_pool_misses", "Clients that had to wait for a dial", "misses"),
    (GAUGE, "lb_backend_connections_active", "Clients' connections now, dials included", "active"),
    (GAUGE, "lb_backend_weight", "Effective weight", _seen("weight")),
    (GAUGE, "lb_backend_usable", "1 while it is healthy, enabled and weighted", _seen("usable")),
    (GAUGE, "lb_backend_reachable", "1 unless no connection could be made to it", _seen("reachable")),
    (GAUGE, "lb_backend_draining", "1 while it is drained or disabled", _seen("draining")),
    (GAUGE, "lb_pool_idle", "Idle pooled connections", "pooled"),
    (COUNTER, "lb_backend_bytes_in", "Bytes from clients to it", "bytes_in"),
    (COUNTER, "lb_backend_bytes_out", "Bytes from it to clients", "bytes_out"),
    (GAUGE, "lb_backend_health", "1 for the state that is observed", _health),
    (COUNTER, "lb_pool_discarded", "Pooled connections closed unused, by cause", _discarded),
    (COUNTER, "lb_backend_tls_handshakes", "TLS handshakes with it, by version", _TLS_VERSIONS),
    (
        COUNTER,
        "lb_backend_tls_handshakes_resumed",
        "Those that went on with an earlier session",
        _TLS_RESUMED,
    ),
    (
        COUNTER,
        "lb_backend_tls_handshake_failures",
        "TLS handshakes with it that failed, by cause; none where there were none",
        _tls_causes_seen,
    ),
)
_SINGLE_BACKEND: Final[_Rows] = (
    (HISTOGRAM, "lb_connect_seconds", "Dials that succeeded", _histogram("connect", LATENCY_BOUNDS_S)),
    (
        HISTOGRAM,
        "lb_first_byte_seconds",
        "From connected to the first byte",
        _histogram("first_byte", LATENCY_BOUNDS_S),
    ),
    (HISTOGRAM, "lb_backend_tls_handshake_seconds", "TLS handshakes that succeeded", _TLS_SECONDS),
)
