"""A real Prometheus that evaluates the rules of deploy/prometheus, and what is asked of it."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from tests.support.ports import HeldPort
from tests.support.process import Program, answers
from tests.support.programs import require
from tests.support.wait import wait_for

DEPLOYED: Final = Path(__file__).resolve().parents[2] / "deploy/prometheus"
ALERTS: Final = DEPLOYED / "alerts.yml"


def alert_names() -> list[str]:
    """Return the names of all alerts, in the order of the file."""
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def hurried(rules: str) -> str:
    """Return rules that look at seconds where the given ones look at minutes, and wait for nothing.

    `for: 2m` becomes `for: 0s` and `[5m]` becomes `[5s]`; the expressions are otherwise what they were.
    """
    rules = re.sub(r"^( +for: )\w+$", r"\g<1>0s", rules, flags=re.MULTILINE)
    return re.sub(r"\[(\d+)m\]", r"[\1s]", rules)


class Prometheus(Program):
    """Prometheus with the shipped configuration, hurried, and other targets.

    Args:
        targets: Addresses by job. `livelb-dataplane` and `livelb-control` are scraped as the shipped file says, any other
            job as `livelb-dataplane` is.
    """

    def __init__(self, targets: Mapping[str, Sequence[str]]) -> None:
        super().__init__([])
        self._held = HeldPort()
        config = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
        shipped = {job["job_name"]: job for job in config["scrape_configs"]}
        config["scrape_configs"] = [
            {
                **shipped.get(job, shipped["livelb-dataplane"]),
                "job_name": job,
                "static_configs": [{"targets": list(addresses)}],
            }
            for job, addresses in targets.items()
        ]
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "500ms"}
        assert config["rule_files"] == [ALERTS.name]
        (self.directory / ALERTS.name).write_text(hurried(ALERTS.read_text()))
        file = self.directory / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        self.argv = [
            require("prometheus"),
            f"--config.file={file}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self._held.address}",
            "--log.level=warn",
        ]
        self._targets = sum(map(len, targets.values()))

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._held.release()

    def ready(self) -> bool:
        """Tell whether it answers queries."""
        if not answers(self._held.address):
            return False
        try:
            return self._call("/-/ready")[0] == http.client.OK
        except OSError:
            return False

    def _call(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._held.address, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path: str, **query: str) -> Any:
        """Return the data of one call of its API that must succeed."""
        status, raw = self._call(f"/api/v1/{path}?{urlencode(query)}")
        answer = json.loads(raw)
        assert status == http.client.OK, f"{path} {query}: {answer}"
        return answer["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the samples of an instant query: labels and value."""
        data = self.get("query", query=expression)
        assert data["resultType"] == "vector", data
        return [(sample["metric"], float(sample["value"][1])) for sample in data["result"]]

    def wait_scraped(self) -> None:
        """Return when every target has been scraped, and every group of rules was evaluated after that."""
        wait_for(lambda: len(self.query("up == 1")) == self._targets, "all targets to be up", every_s=0.1)
        for _ in range(2):  # the first may have begun before the last scrape
            before = self._evaluated()
            wait_for(
                lambda: not before.items() & self._evaluated().items(),  # noqa: B023 - called within the turn
                "all rules to be evaluated",
                every_s=0.1,
            )

    def _evaluated(self) -> dict[str, str]:
        return {group["name"]: group["lastEvaluation"] for group in self.get("rules")["groups"]}

    def fired(self) -> list[dict[str, str]]:
        """Return the labels of every alert that has fired so far, whether it still does or not."""
        return [labels for labels, _ in self.query('max_over_time(ALERTS{alertstate="firing"}[10m])')]


_TEXT: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_OF_THE_TARGET: Final = frozenset({"job", "instance"})


def strangers(expression: str, known: Mapping[str, frozenset[str]], legend: str = "") -> list[str]:
    """Return what a PromQL expression, or the legend of its series, names of ours that does not exist.

    Args:
        expression: PromQL, as Prometheus takes it.
        known: Labels by sample name, `_bucket` and its kin included.
        legend: Grafana's, as `{{service}}`.

    Returns:
        Metrics, and labels as `metric{label}`; labels of groupings and legends without a metric.
    """
    bare = _TEXT.sub('""', expression)
    metrics = re.findall(r"\blb_\w+", bare)
    found = [name for name in metrics if name not in known]
    for name, selector in re.findall(r"\b(lb_\w+)\{([^}]*)\}", bare):
        labels = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector)
        found += [
            f"{name}{{{label}}}"
            for label in labels
            if label not in known.get(name, frozenset()) | _OF_THE_TARGET
        ]
    grouped = [
        label.strip()
        for labels in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", bare)
        for label in labels.split(",")
    ]
    possible = _OF_THE_TARGET.union(*(known.get(name, frozenset()) for name in metrics))
    return found + [label for label in [*grouped, *re.findall(r"{{(\w+)}}", legend)] if label not in possible]


def samples(families: Sequence[Any]) -> dict[str, frozenset[str]]:
    """Return the labels of every sample of these families (tools.reference_code.Family), by its name."""
    known: dict[str, frozenset[str]] = {}
    for family in families:
        labels = frozenset(family.labels)
        if family.kind == "histogram":
            known[f"{family.name}_bucket"] = labels | {"le"}
            known[f"{family.name}_sum"] = known[f"{family.name}_count"] = labels
        elif family.kind == "summary":
            known[f"{family.name}_sum"] = known[f"{family.name}_count"] = labels
        else:
            known[family.name] = labels
    return known
