"""The Grafana dashboard is one that Grafana loads, and asks for metrics that there are."""

from __future__ import annotations

from itertools import combinations

import pytest
import yaml

from tests.support.dashboard import DASHBOARD, FOLDER, panels, targets
from tests.support.prometheus import samples, strangers
from tools.reference_code import control_families, metric_families, supervisor_families

KINDS = {"heatmap", "row", "stat", "state-timeline", "timeseries"}
ROWS = ["Overview", "Backends", "Pools", "Latency", "Nodes and workers", "Control plane", "Consul"]
WIDTH = 24


def test_form():
    """Title, uid, variables and rows are there, and every panel has a known kind, an id and a place of its own."""
    assert (DASHBOARD["title"], DASHBOARD["uid"], DASHBOARD["id"]) == ("livelb", "livelb", None)
    assert DASHBOARD["schemaVersion"] >= 36
    variables = {each["name"]: each["type"] for each in DASHBOARD["templating"]["list"]}
    assert variables == {"datasource": "datasource", "job": "query", "instance": "query", "service": "query"}
    every = DASHBOARD["panels"]
    assert {each["type"] for each in every} == KINDS
    assert [each["title"] for each in every if each["type"] == "row"] == ROWS
    assert len({each["id"] for each in every}) == len(every)
    places = [each["gridPos"] for each in every]
    assert all(place["x"] + place["w"] <= WIDTH and place["h"] > 0 for place in places)
    for one, two in combinations(places, 2):
        assert (
            one["x"] + one["w"] <= two["x"]
            or two["x"] + two["w"] <= one["x"]
            or one["y"] + one["h"] <= two["y"]
            or two["y"] + two["h"] <= one["y"]
        ), (one, two)


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: f"{panel['id']} {panel['title']}")
def test_panel(panel):
    """A panel asks the chosen data source, for metrics and labels that exist, and each question has a letter."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    known = samples([*metric_families(), *supervisor_families(), *control_families()])
    for target, (expression, legend) in zip(panel["targets"], targets(panel), strict=True):
        assert target["datasource"] == source
        assert strangers(expression, known, legend) == []
        assert "$" not in expression, "a variable that the dashboard has not"


def test_provisioning():
    """The examples of provisioning have the form that Grafana reads."""
    folder = FOLDER / "provisioning"
    provider = yaml.safe_load((folder / "dashboards.yaml").read_text())
    assert provider["apiVersion"] == 1
    assert provider["providers"][0]["type"] == "file"
    source = yaml.safe_load((folder / "datasources.yaml").read_text())["datasources"][0]
    assert (source["type"], source["access"]) == ("prometheus", "proxy")
