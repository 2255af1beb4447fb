"""A discovery's status as metrics: the same words and numbers, for whoever alarms on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client import Metric

__all__ = ["STATES", "ConsulCollector"]

STATES: Final = ("ok", "stale", "held", "denied", "error")
_LABELS: Final = ("source", "services")


class ConsulCollector:
    """Makes metrics of what status says, whenever they are asked for; for a `CollectorRegistry`.

    Args:
        status: `ConsulDiscovery.status`, or what returns its rows among others.
    """

    def __init__(self, status: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, each with a sample for every selection."""
        rows = [row for row in self._status() if "counts" in row]
        yield _of(rows, "state", "1 for the state that the source is in.", "state", _states)
        yield _of(rows, "instances", "Instances in the last answer, by condition.", "condition", _counts)
        yield _of(rows, "held_instances", "Backends kept against Consul's word.", None, _held)
        yield _of(rows, "answer_age_seconds", "Age of the last answer.", None, _age)
        for name, text in (
            ("polls", "Questions asked."),
            ("wakes", "Blocking queries that returned with news."),
            ("resets", "Indexes that went backwards."),
        ):
            counter = CounterMetricFamily(f"lb_consul_{name}", text, labels=_LABELS)
            for row in rows:
                counter.add_metric(_labels(row), row[name])
            yield counter
        errors = CounterMetricFamily(
            "lb_consul_errors", "Questions that failed, by kind.", labels=(*_LABELS, "kind")
        )
        for row in rows:
            for kind, number in row["errors"].items():
                errors.add_metric((*_labels(row), kind), number)
        yield errors


def _labels(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["name"], ",".join(row["services"])


def _of(
    rows: Iterable[Mapping[str, Any]],
    name: str,
    text: str,
    label: str | None,
    values: Callable[[Mapping[str, Any]], Mapping[str, float]],
) -> GaugeMetricFamily:
    """Return a gauge with one sample for each of a row's values; `label` tells them apart."""
    labels = _LABELS if label is None else (*_LABELS, label)
    gauge = GaugeMetricFamily(f"lb_consul_{name}", text, labels=labels)
    for row in rows:
        for key, value in values(row).items():
            gauge.add_metric(_labels(row) if label is None else (*_labels(row), key), value)
    return gauge


def _states(row: Mapping[str, Any]) -> Mapping[str, float]:
    return {state: float(row["state"] == state) for state in STATES}


def _counts(row: Mapping[str, Any]) -> Mapping[str, float]:
    counts: Mapping[str, float] = row["counts"]
    return counts


def _held(row: Mapping[str, Any]) -> Mapping[str, float]:
    return {"": float(row["held"]["count"]) if row["held"] else 0.0}


def _age(row: Mapping[str, Any]) -> Mapping[str, float]:
    return {} if row["age_s"] is None else {"": float(row["age_s"])}
