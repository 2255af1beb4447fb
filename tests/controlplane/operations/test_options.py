"""How careful a change is, on its way from a command to the daemon."""

from __future__ import annotations

import pytest

from controlplane.errors import InputError
from controlplane.operations.options import ApplyOptions, options_of_query, query_of_options


@pytest.mark.parametrize("options", [ApplyOptions(), ApplyOptions(1.5, 0.125, force=True)])
def test_options_travel(options):
    """What a command was told, the daemon does."""
    assert options_of_query(query_of_options(options)) == options


def test_unreadable_options_are_all_named():
    """Every wrong option is a problem of its own."""
    with pytest.raises(InputError) as caught:
        options_of_query({"timeout": "x", "max_remap": "200%", "force": "maybe"})
    assert [each["path"] for each in caught.value.problems] == ["timeout", "max_remap", "force"]
