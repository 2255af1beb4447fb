"""What tests of processes that end, or come after others, may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.ports import HeldPort
from tests.support.site import Site


@pytest.fixture(params=["1", "2"], ids=["single", "supervisor"])
def workers(request: pytest.FixtureRequest) -> str:
    """How many: one is a process alone, more have a supervisor."""
    return str(request.param)


@pytest.fixture
def site(workers: str) -> Iterator[Site]:
    """A data plane of each kind, with a client."""
    with HeldPort() as metrics, ExitStack() as stack:
        yield Site(stack, "--workers", workers, "--metrics", metrics.address)
