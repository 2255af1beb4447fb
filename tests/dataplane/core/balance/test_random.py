"""Random: as often as the weight says."""

from __future__ import annotations

from collections import Counter

from dataplane.core.spec import Mode
from tests.dataplane.core.balance.backends import build, members, picks


def test_share_is_the_weight() -> None:
    """Over many picks each backend comes within five standard deviations of its share."""
    got = Counter(picks(build(Mode.RANDOM, members(1, 2, 5)), 8000))
    for id_, weight in (("a", 1), ("b", 2), ("c", 5)):
        share = weight / 8
        assert abs(got[id_] - 8000 * share) < 5 * (8000 * share * (1 - share)) ** 0.5


def test_order_names_the_likeliest_first() -> None:
    """`order` goes by weight, and equal weights stay in configured order."""
    assert [target.id for target in build(Mode.RANDOM, members(1, 3, 1, 3)).order(0)] == ["b", "d", "a", "c"]
