"""What a data plane of one process answers where there are no workers, and what signals mean to it."""

from __future__ import annotations

import pytest

from dataplane.errors import Refused
from tests.dataplane.test_process import living, options  # noqa: F401 - a fixture


async def test_there_are_no_workers(options):  # noqa: F811 - the fixture
    """It is said how to replace the process instead."""
    async with living(options) as one:
        for call, hint in ((one.role.restart(), "--takeover"), (one.role.resize(3), "--workers 3")):
            with pytest.raises(Refused, match=hint) as refused:
                await call
            assert (refused.value.status, refused.value.code) == (409, "single_process")
        one.stop()


async def test_hanging_up_reads_config_again(options):  # noqa: F811 - the fixture
    """Without one there is nothing to read, which is told."""
    async with living(options) as one:
        one.role.hang_up()
        assert one.told[-1] == "reread"
        one.stop()


async def test_without_its_keeper_it_drains(options):  # noqa: F811 - the fixture
    """As if the signal had come that killed that one; once it drains, nothing more is done."""
    async with living(options) as one:
        one.role.lose_keeper()
        one.role.lose_keeper()
        assert one.told.count("stopping") == 1
