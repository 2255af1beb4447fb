"""A discovery's status as metrics: the same words and numbers, for whoever alarms on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

__all__ = ["STATES", "consul_families"]

STATES: Final = ("ok", "stale", "held", "denied", "error")
_LABELS: Final = ("source", "services")
_Row = Mapping[str, Any]
_Family = tuple[str, str, str | None, Callable[[_Row], Mapping[str, float]]]
"""Name, help, the label that tells the values of a row apart, and these."""

_GAUGES: Final[tuple[_Family, ...]] = (
    (
        "state",
        "1 for the state that the source is in.",
        "state",
        lambda row: {state: float(row["state"] == state) for state in STATES},
    ),
    ("instances", "Instances in the last answer, by condition.", "condition", lambda row: row["counts"]),
    (
        "held_instances",
        "Backends kept against Consul's word.",
        None,
        lambda row: {"": float(row["held"]["count"]) if row["held"] else 0.0},
    ),
    (
        "answer_age_seconds",
        "Age of the last answer.",
        None,
        lambda row: {} if row["age_s"] is None else {"": float(row["age_s"])},
    ),
)
_COUNTERS: Final[tuple[_Family, ...]] = (
    ("polls", "Questions asked.", None, lambda row: {"": row["polls"]}),
    ("wakes", "Blocking queries that returned with news.", None, lambda row: {"": row["wakes"]}),
    ("resets", "Indexes that went backwards.", None, lambda row: {"": row["resets"]}),
    ("errors", "Questions that failed, by kind.", "kind", lambda row: row["errors"]),
)


def consul_families(sources: Iterable[_Row]) -> Iterator[Metric]:
    """Yield every metric of what status says of sources, each with a sample for every selection."""
    rows = [row for row in sources if "counts" in row]
    for kind, families in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
        for name, text, label, values in families:
            labels = _LABELS if label is None else (*_LABELS, label)
            family = kind(f"lb_consul_{name}", text, labels=labels)
            for row in rows:
                own = row["name"], ",".join(row["services"])
                for key, value in values(row).items():
                    family.add_metric(own if label is None else (*own, key), value)
            yield family
