"""Every source is one: whoever holds it need not know which."""

from __future__ import annotations

import inspect

import pytest

from controlplane.discovery.consul.discovery import ConsulDiscovery
from controlplane.discovery.source import Found, Source

CALLS = sorted(name for name in vars(Source) if not name.startswith("_"))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", [ConsulDiscovery])
def test_sources_take_the_same_calls(kind, call):
    """With the same arguments, whether awaited or not."""
    wanted, has = getattr(Source, call), getattr(kind, call)
    assert list(inspect.signature(has).parameters) == list(inspect.signature(wanted).parameters)
    assert inspect.iscoroutinefunction(has) is inspect.iscoroutinefunction(wanted)


def test_nothing_found_is_nothing_known():
    """What was not looked for has no backends, no doubts and no memory."""
    assert (Found().backends, Found().doubts, Found().saved) == ({}, {}, {})
