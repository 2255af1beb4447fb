"""What deploy/prometheus says is valid, complete, and about metrics that there are."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.support.programs import require
from tests.support.prometheus import ALERTS, DEPLOYED, alert_names, hurried, samples, strangers
from tools.reference_code import control_families, metric_families, supervisor_families

ROOT = Path(__file__).resolve().parents[2]
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
ANNOTATIONS = {"summary", "description", "runbook"}


@cache
def known():
    """Return the labels of every sample that our processes write, by name."""
    return samples([*metric_families(), *supervisor_families(), *control_families()])


def promtool(*arguments: str) -> str:
    """Run promtool in the folder of the rules; it must be content."""
    done = subprocess.run(
        [require("promtool"), *arguments], cwd=DEPLOYED, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yml"),
        ("check", "config", "prometheus.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_is_content(arguments):
    """Rules and configuration are valid, and the rules do what alerts.test.yml says."""
    assert "SUCCESS" in promtool(*arguments)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_tells_what_to_do(rule):
    """Each alert has a severity, says what happened and to whom, and names a section of the troubleshooting page."""
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == ANNOTATIONS
    assert "{{ $labels." in rule["annotations"]["summary"]
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert f"### `{rule['alert']}`" in (ROOT / page).read_text()
    assert anchor == rule["alert"].lower()


def test_every_alert_is_on_the_page_once():
    """The troubleshooting page has each alert, in the order of the file, and no other."""
    page = (ROOT / "docs/troubleshooting.md").read_text()
    assert re.findall(r"^### `(Lb\w+)`$", page, re.MULTILINE) == alert_names()


def test_monitoring_page_knows_every_alert():
    """The page about monitoring lists each alert under its severity, and says how many there are."""
    page = (ROOT / "docs/topics/monitoring.md").read_text()
    for severity in ("critical", "warning", "info"):
        row = re.search(rf"^\| `{severity}` \|.*$", page, re.MULTILINE)
        assert row is not None
        named = re.findall(r"`(Lb\w+)`", row[0])
        assert sorted(named) == sorted(
            rule["alert"] for rule in RULES if rule["labels"]["severity"] == severity
        )
    assert f"| {len(RULES)} alerts," in page


def test_every_alert_has_a_unit_test():
    """alerts.test.yml expects each alert to fire."""
    text = (DEPLOYED / "alerts.test.yml").read_text()
    assert set(re.findall(r'alertname="(\w+)", alertstate="firing"', text)) == set(alert_names())


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alert_is_about_what_there_is(rule):
    """Every metric and label of ours in an expression is one that a process writes."""
    assert strangers(rule["expr"], known()) == []


@pytest.mark.parametrize(
    "expression",
    [
        "lb_no_such_total",
        'lb_panic{backend="a"}',
        "sum by (backend) (lb_panic)",
        "rate(lb_queue_seconds[5m])",
        "sum without (reason) (lb_panic)",
    ],
)
def test_a_stranger_is_noticed(expression):
    """A metric or a label that nobody writes is found."""
    assert strangers(expression, known())


def test_hurry_changes_only_time():
    """Hurried rules differ from the shipped ones in durations alone, and all of those are seconds."""
    text = ALERTS.read_text()
    fast = hurried(text)
    assert set(re.findall(r"\[(\w+)\]", fast)) == {
        f"{minutes}s" for minutes in re.findall(r"\[(\w+)m\]", text)
    }
    assert set(re.findall(r"\bfor: (\w+)$", fast, re.MULTILINE)) == {"0s"}
    durations = re.compile(r"for: \w+$|\[\w+\]", re.MULTILINE)
    assert durations.sub("", fast) == durations.sub("", text)
