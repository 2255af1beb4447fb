"""The one word for a discovery, and what is behind it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from controlplane.core.guard import GuardPolicy
from controlplane.core.track import Trust
from controlplane.discovery.consul.pool import Pool
from controlplane.discovery.consul.query import Query, Selection
from controlplane.discovery.consul.settings import ConsulError
from controlplane.discovery.consul.status import doubt, note_state, pool_status
from controlplane.discovery.consul.watch import Runtime, WatchHealth
from tests.support.fakeconsul import entry

NOW = 100.0
RUNTIME = Runtime(clock=lambda: NOW, wall=lambda: 1000.0, random=lambda: 0.0)
LEADER = Trust(confirmed=True)


def made(**query):
    """Return a pool whose watch and pulse nobody runs."""
    pool = Pool(Selection(Query(**{"service": "web", **query})), GuardPolicy(), lambda *_: False, RUNTIME)
    pool.services = {"web"}
    pool.watches = (SimpleNamespace(health=WatchHealth()),)
    pool.pulses = (SimpleNamespace(error=None, since=None),)
    return pool


def answer(pool, *names, trust=LEADER, **kwargs):
    """Have Consul answer with these instances."""
    entries = [entry(name, address=f"10.0.0.{ord(name)}", **kwargs) for name in names]
    pool.receive(0, entries, trust)
    pool.advance()
    pool.watches[0].health.answered_at = NOW
    return pool


def row(pool):
    """Return its status."""
    return pool_status(pool, RUNTIME)


def test_in_order():
    """Consul answers, and its word holds."""
    pool = answer(made(), "a", "b")
    shown = row(pool)
    assert (shown["state"], shown["last_error"], shown["age_s"]) == ("ok", None, 0.0)
    assert (shown["name"], shown["services"], shown["source"]) == ("consul:web", ["web"], "consul")
    assert shown["counts"]["passing"] == 2
    assert doubt(pool) is None


def test_before_the_first_answer():
    """Nothing is known, and that is said."""
    pool = made()
    assert row(pool)["state"] == "stale"
    assert doubt(pool) == "Consul has not answered"


@pytest.mark.parametrize(
    ("kind", "state"), [("timeout", "stale"), ("denied", "denied"), ("misconfigured", "error")]
)
def test_an_error_after_an_answer(kind, state):
    """What an operator has to mend is more than staleness."""
    pool = answer(made(), "a")
    pool.watches[0].health.error = ConsulError(kind, "words")
    assert (row(pool)["state"], row(pool)["last_error"]) == (state, f"{kind}: words")
    assert doubt(pool) == f"{kind}: words"


def test_an_error_before_any_answer():
    """With nothing to go on with it is an error."""
    pool = made()
    pool.watches[0].health.error = ConsulError("timeout", "words")
    assert row(pool)["state"] == "error"


def test_a_silent_agent():
    """It is stale since its last answer, though no question has failed."""
    pool = answer(made(), "a")
    pool.pulses[0].error, pool.pulses[0].since = ConsulError("timeout", "words"), 40.0
    assert (row(pool)["state"], row(pool)["since"]) == ("stale", RUNTIME.rfc3339(40.0))


def test_what_is_held():
    """Who is kept, why, and what lets them go."""
    pool = answer(answer(made(), "a", "b", "c"))
    shown = row(pool)
    assert shown["state"] == "held"
    assert (shown["held"]["why"], shown["held"]["count"], shown["held"]["seen"]) == ("empty", 3, 0)
    assert doubt(pool) == "3 that Consul no longer lists are kept; --force lets them go"
    assert doubt(pool, released=True) is None


@pytest.mark.parametrize(
    ("query", "instances", "said"),
    [
        ({}, {}, "Consul lists no instance of web; is the name right?"),
        (
            {"tags": ("x",)},
            {},
            "Consul lists no instance of web with these tags, or this filter; is the name right?",
        ),
        ({"service": "", "prepared": "near"}, {}, "Consul's prepared query near finds no instance"),
        ({}, {"status": "critical"}, "Consul lists no instance of web that can be used: 1 critical"),
        ({}, {"port": 0}, "Consul lists no instance of web that can be used: 1 rejected"),
    ],
)
def test_nothing_that_can_be_used(query, instances, said):
    """A name that is wrong looks like a service without instances: both are said."""
    pool = answer(made(**query), *(["a"] if instances else []), **instances)
    shown = row(pool)
    assert shown["state"] == "error"
    assert shown["last_error"].startswith(said)


def test_since_when():
    """A state keeps its beginning for as long as it lasts."""
    pool = answer(made(), "a")
    assert note_state(pool, 10.0) == ("ok", 10.0)
    assert note_state(pool, 20.0) == ("ok", 10.0)
    pool.watches[0].health.error = ConsulError("failed", "x")
    assert note_state(pool, 30.0) == ("stale", 30.0)
