"""Compile: discovery resolved, what is unknown held or left out."""

from __future__ import annotations

import json

from controlplane.core.compile import compile_services, configured_of
from schemas.desired import load_desired
from schemas.loops import Machine
from schemas.snapshot import Backend, parse_snapshot

DESIRED = {
    "version": 1,
    "services": {
        "web": {"listen": "127.0.0.1:4000", "backends": ["127.0.0.1:1"]},
        "cache": {"listen": "127.0.0.1:4001", "discover": {"consul": {"service": "redis"}}},
    },
}


def desired():
    """Return the checked example."""
    return load_desired(json.dumps(DESIRED).encode())


def ids(compiled, service):
    """Return the ids of a compiled service's backends."""
    return [each["id"] for each in compiled.services[service]["backends"]]


def test_discovered_backends_are_resolved():
    """A discovered service gets what discovery knows."""
    compiled = compile_services(desired(), {"cache": [Backend(address="10.0.0.1:6379", id="n/r")]}, {})
    assert ids(compiled, "cache") == ["n/r"]
    assert (compiled.discovered, compiled.waiting) == (("cache",), ())


def test_unknown_service_is_left_out():
    """Without any backend known, not even a listener is opened."""
    compiled = compile_services(desired(), {}, {})
    assert set(compiled.services) == {"web"}
    assert compiled.waiting == ("cache",)


def test_what_ran_last_stands_in():
    """Until discovery answers, the backends that ran last go on."""
    last = [{"id": "n/r", "address": "10.0.0.1:6379", "weight": 2, "tier": 0, "state": "enabled"}]
    compiled = compile_services(desired(), {}, {"cache": last})
    assert compiled.services["cache"]["backends"] == last


def test_empty_answer_is_an_answer():
    """A service that discovery knows to be empty is served with no backend, whatever ran last."""
    last = [{"id": "n/r", "address": "10.0.0.1:6379", "weight": 2, "tier": 0, "state": "enabled"}]
    assert ids(compile_services(desired(), {"cache": []}, {"cache": last}), "cache") == []


def test_body_is_a_snapshot_with_the_right_hash():
    """A data plane computes the same hash from what is pushed."""
    body = compile_services(desired(), {"cache": []}, {}).body(7)
    snapshot = parse_snapshot(body)
    assert (snapshot.generation, snapshot.hash) == (7, body["hash"])
    assert snapshot.body() == body


def test_configured_words_of_static_and_discovered_services():
    """Overrides depend on what the file says of a backend; of discovered ones it says nothing."""
    compiled = compile_services(desired(), {"cache": [Backend(address="10.0.0.1:6379")]}, {})
    assert configured_of(compiled.services, compiled.discovered) == {
        "web": {"127.0.0.1:1": {"state": "enabled", "weight": 1}},
        "cache": None,
    }


def test_what_leads_back_on_this_machine():
    """An address of the machine is where a listener on every address is: found ones go, listed ones are told."""
    here = Machine(lambda host: host == "10.0.0.5", str)
    wanted = {
        "version": 1,
        "services": {
            "web": {"listen": ":4000", "backends": ["10.0.0.6:4000", "10.0.0.5:4000"]},
            "cache": {"listen": ":4001", "discover": {"consul": {"service": "redis"}}},
        },
    }
    checked = load_desired(json.dumps(wanted).encode())
    found = [Backend(address=f"10.0.0.{host}:4001", id=f"n{host}/r") for host in (5, 6)]
    compiled = compile_services(checked, {"cache": found}, {}, here)
    assert ids(compiled, "cache") == ["n6/r"]
    assert [remark.id for remark in compiled.rejected["cache"]] == ["n5/r"]
    (loop,) = compiled.loops
    assert loop[0] == ("services", "web", "backends", 1, "address")
    elsewhere = compile_services(checked, {"cache": found}, {})
    assert (ids(elsewhere, "cache"), elsewhere.loops) == (["n5/r", "n6/r"], ())


def test_two_found_services_that_lead_to_each_other():
    """Of two that are discovered, the one that comes second closes the circle, whatever the order of the answers."""
    discover = {"consul": {"service": "x"}}
    wanted = {
        "version": 1,
        "services": {
            "a": {"listen": ":1", "discover": discover},
            "b": {"listen": ":2", "discover": discover},
        },
    }
    found = {
        "b": [Backend(address="127.0.0.1:1", id="to-a")],
        "a": [Backend(address="127.0.0.1:2", id="to-b")],
    }
    compiled = compile_services(load_desired(json.dumps(wanted).encode()), found, {})
    assert (ids(compiled, "a"), ids(compiled, "b")) == (["to-b"], [])
    assert list(compiled.rejected) == ["b"]


def test_limits_that_nodes_share():
    """The snapshot has this node's part; what is written is told beside it, but for what is none."""
    limits = {"connections": 100, "queue": 0, "scope": "cluster"}
    services = {
        "web": {**DESIRED["services"]["web"], "limits": limits},
        "other": {"listen": ":1", "backends": []},
    }
    wanted = {"version": 1, "services": services, "cluster": {"name": "edge"}}
    compiled = compile_services(load_desired(json.dumps(wanted).encode()), {}, {}, nodes=3)
    assert compiled.services["web"]["limits"]["connections"] == 33
    assert "scope" not in compiled.services["web"]["limits"]
    assert compiled.scoped == {"web": {"connections": 100}}
    parse_snapshot(compiled.body(1))
