"""Services that an operator names are those that are shown."""

from __future__ import annotations

import pytest

from controlplane.cli.status import only
from controlplane.errors import UnknownError

NAMES = ("api-1", "api-2", "db", "web")
REPORT = {
    "generation": 7,
    "services": {name: {"active": len(name)} for name in NAMES},
    "overrides": [{"service": "db", "id": "a"}, {"service": "web", "id": "b"}],
}


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ((), NAMES),
        (("web",), ("web",)),
        (("api-*",), ("api-1", "api-2")),
        (("w*", "db", "web"), ("db", "web")),
        (("[wd]*",), ("db", "web")),
        (("*",), NAMES),
    ],
)
def test_only_what_was_named(chosen, left):
    """Names and patterns choose services and their overrides; the rest of a status stays, and the order too."""
    shown = only(REPORT, chosen)
    assert tuple(shown["services"]) == left
    assert [each["service"] for each in shown["overrides"]] == [
        name for name in ("db", "web") if name in left
    ]
    assert shown["generation"] == 7
    assert tuple(REPORT["services"]) == NAMES


@pytest.mark.parametrize(
    ("count", "said"), [(0, "there are none"), (3, "there are: s0, s1, s2"), (11, "s5, s6 and 3 more")]
)
def test_what_does_not_exist(count, said):
    """One name without a service is an error that tells which there are, whatever the others match."""
    services = {f"s{number}": {} for number in range(count)}
    report = {"services": services, "overrides": [], "dataplanes": [{"error": None}]}
    with pytest.raises(UnknownError, match=rf"no service matches 'wbe'; .*{said}"):
        only(report, [*report["services"], "wbe"])


def test_who_does_not_answer_is_shown_instead():
    """Nothing is known of any service then: that one does not exist would be a guess."""
    report = {"services": {}, "overrides": [], "dataplanes": [{"error": "401: no_token"}]}
    assert only(report, ["web"]) is report
