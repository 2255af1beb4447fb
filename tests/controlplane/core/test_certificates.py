"""What people are told of certificates: when they end, what somebody should see to, and the worst of several data planes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.core.certificates import concerns, ends, join, left_s, names

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def certificate(left=timedelta(days=30), **said):
    """Make one as a status has it."""
    return {
        "place": "tls.certificates[0]",
        "cert": "/etc/lb/a.pem",
        "names": ["a.example"],
        "ends": (NOW + left).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "not_renewed": "",
        "key_readable_by_all": False,
        **said,
    }


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (timedelta(days=29, hours=23), "ends in 29d"),
        (timedelta(hours=5), "ends in 5h"),
        (timedelta(seconds=90), "ends in 1m"),
        (timedelta(seconds=1), "ends in 1s"),
        (timedelta(0), "ended 0s ago"),
        (timedelta(hours=-3), "ended 3h ago"),
    ],
)
def test_ends(left, words):
    """In the largest whole unit."""
    one = certificate(left)
    assert (ends(one, NOW), left_s(one, NOW)) == (words, left.total_seconds())


def test_names():
    """Two, and how many more."""
    assert names(certificate()) == "a.example"
    assert names(certificate(names=["a", "b", "c", "d"])) == "a, b and 2 more"
    assert names(certificate(names=[])) == "no name"


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (certificate(), []),
        (certificate(timedelta(days=7)), []),
        (certificate(timedelta(days=7, seconds=-1)), [("warn", "certificate", "ends in 6d, and nobody")]),
        (certificate(timedelta(days=1, seconds=-1)), [("bad", "certificate", "ends in 23h, and nobody")]),
        (certificate(timedelta(0)), [("bad", "certificate", "does not connect")]),
        (certificate(not_renewed="/k is not its key"), [("warn", "not renewed", "/k is not its key")]),
        (certificate(key_readable_by_all=True), [("warn", "key", "may read its key")]),
    ],
)
def test_concerns(one, told):
    """Each with the service, the file and whom it is for."""
    found = list(concerns("web", {"certificates": [one]}, NOW))
    assert [(each.level, each.word) for each in found] == [each[:2] for each in told]
    for concern, (_, _, words) in zip(found, told, strict=True):
        assert concern.text.startswith("web: /etc/lb/a.pem (a.example)")
        assert words in concern.text


def test_without_tls_there_is_nothing_to_tell():
    """A status of a version before has no certificates, too."""
    assert list(concerns("web", {}, NOW)) == []


def test_of_several_data_planes_the_worst_is_shown():
    """By place, whoever comes first."""
    old, new = certificate(timedelta(days=3)), certificate(timedelta(days=90))
    stuck, other = certificate(timedelta(days=90), not_renewed="x"), certificate(place="backend_tls")
    for one, more, found in [
        ([old], [new], [old]),
        ([old], [stuck], [stuck]),
        ([old], [other], [old, other]),
    ]:
        assert join(one, more) == found
        assert sorted(each["place"] for each in join(more, one)) == sorted(each["place"] for each in found)
    assert join([new], [old]) == [old]
    assert join([], []) == []
