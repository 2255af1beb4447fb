from __future__ import annotations

import copy

import pytest

from schemas.api import BackendPatch
from schemas.desired import DesiredService
from schemas.errors import format_path
from schemas.reading.recheck import check_all
from schemas.snapshot import Service

CASES = [
    ({"listen": "nowhere", "backends": ["a:1", "a:1"]}, ["backends[1]", "listen"]),
    ({"listen": ":1", "backends": ["nowhere", "a:1", "a:1"]}, ["backends[0].address", "backends[2]"]),
    (
        {"backends": [{"weight": 1}], "pool": {"min_idle": 9, "max_idle": 1}},
        ["backends[0].address", "listen", "pool.min_idle"],
    ),
    (
        {
            "listen": ":1",
            "mode": "x",
            "pool": {"mode": "reuse", "min_idle": 9, "max_idle": 1},
            "proxy_protocol": {"send": "v1"},
        },
        ["mode", "pool.min_idle", "proxy_protocol.send"],
    ),
    (
        {"listen": ":1", "pool": {"mode": "reuse"}, "proxy_protocol": {"send": "v1", "accept": "required"}},
        ["proxy_protocol.send", "proxy_protocol.trusted"],
    ),
]


@pytest.mark.parametrize(("value", "paths"), CASES)
def test_what_does_not_fit_is_found_behind_what_is_wrong(value, paths):
    """Each round looks behind the findings of the last one, and the value stays as it was."""
    before = copy.deepcopy(value)
    findings, _ = check_all(Service, value)
    assert sorted(format_path(one.path) for one in findings) == paths
    assert value == before


def test_what_is_right_comes_back():
    """So that it can be compared with other services."""
    findings, service = check_all(Service, {"listen": ":1", "mode": "x", "backends": ["a:1"]})
    assert len(findings) == 1
    assert service is not None
    assert (service.listen, service.mode) == (("0.0.0.0:1",), "rr")
    findings, service = check_all(Service, {"listen": ":1"})
    assert findings == []
    assert service is not None


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"backends": [], "discover": {}},
        {"discover": {"consul": {}}},
        {"discover": {"consul": {"tags": "x"}}},
    ],
)
def test_the_search_ends(value):
    """A contradiction that cannot be resolved is reported once."""
    findings, _ = check_all(DesiredService, {"listen": ":1", **value})
    paths = [one.path for one in findings]
    assert paths
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize("value", [None, [], "x", 5])
def test_what_is_no_mapping_is_one_finding(value):
    """There is nothing to look behind."""
    findings, found = check_all(BackendPatch, value)
    assert [one.path for one in findings] == [()]
    assert found is None
