"""The lock: one command's, by name, for as long as it renews it."""

from __future__ import annotations

import json

import pytest

from controlplane.cluster.lock import Holder, Lock, holder_said
from controlplane.cluster.looking import Keys
from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.kv import Row, set_if
from controlplane.discovery.consul.settings import with_address
from controlplane.errors import HeldBackError
from tests.support.discovery import eventually
from tests.support.fakeconsul import FakeConsul

KEYS = Keys("lb")
ANN = Holder("ann", "hill", 7, "2027-01-15T08:00:00Z", "a canary")
SAID = "a canary by ann on hill (pid 7) since 2027-01-15T08:00:00Z"


@pytest.fixture
async def consul():
    """A Consul with nothing in it."""
    async with FakeConsul() as fake:
        yield fake


@pytest.fixture
async def client(consul):
    """Its client."""
    async with connected(with_address(consul.address)) as made:
        yield made


async def test_the_second_one_is_refused_by_name(consul, client):
    """And nothing of what it wanted besides is done."""
    assert await Lock(client, KEYS, ANN).take(set_if("lb.canary", b"one", 0))
    assert not await Lock(client, KEYS, ANN).take(set_if("lb.other", b"two", 0))
    assert "lb.other" not in consul.keys
    assert holder_said((await KEYS.read(client))["lb.lock"]) == SAID


async def test_it_goes_with_the_block(consul, client):
    """Also when that ends with an error, which comes out as it is."""
    lock = Lock(client, KEYS, ANN)
    await lock.take()

    async def fail():
        async with lock.renewed():
            assert "lb.lock" in consul.keys
            raise HeldBackError("why")

    with pytest.raises(HeldBackError, match="why"):
        await fail()
    assert "lb.lock" not in consul.keys


async def test_it_is_renewed_and_taken_again(consul, client, monkeypatch):
    """Whatever becomes of the session meanwhile."""
    monkeypatch.setattr("controlplane.cluster.lock.RENEW_S", 0.005)
    lock = Lock(client, KEYS, ANN)
    await lock.take()
    async with lock.renewed():
        (session,) = consul.sessions
        await eventually(
            lambda: sum(each.path == f"/v1/session/renew/{session}" for each in consul.asked) > 2, "renewals"
        )
        await consul.expire(session)
        await eventually(lambda: "lb.lock" in consul.keys, "the lock")


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"{}", json.dumps({"by": 1}).encode(), b"\xff"],
)
def test_whose_it_is_may_not_be_known(value):
    """Anybody may have written it."""
    assert holder_said(Row(value, 1, "s1")) == "somebody who does not say who it is (session s1)"


def test_nobody_prints_control_characters():
    """They could rewrite a terminal."""
    value = Holder("a\x1b[2J", "hill", 7, "now", "x" * 1000).encode()
    said = holder_said(Row(value, 1, "s1"))
    assert ("\x1b" in said, len(said) <= 500) == (False, True)
