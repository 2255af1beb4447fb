"""The garbage collector of a process that relays."""

from __future__ import annotations

import gc

import pytest

from dataplane.node.gc_tuning import FULL, MIDDLE, YOUNG, tune_collector


@pytest.fixture
def collector():
    """Put it back as it was."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_what_is_there_is_collected_no_more_and_the_rest_seldom():
    """What exists at the start is left out of every collection."""
    tune_collector()
    assert gc.get_freeze_count() > 1000
    assert gc.get_threshold() == (YOUNG, MIDDLE, FULL)
