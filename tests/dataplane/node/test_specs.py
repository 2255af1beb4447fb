"""A snapshot's services as the connection path has them."""

from __future__ import annotations

from dataplane.core.spec import BackendSpec, CheckType, ListenSpec, Mode, OperatorState, Resets
from dataplane.node.specs import backend_specs, known_specs, service_spec
from schemas.snapshot import parse_snapshot


def spec_of(**options):
    """Return the spec of a service with these options."""
    service = {"listen": "127.0.0.1:1", "backends": ["127.0.0.1:2"], **options}
    snapshot = parse_snapshot({"version": 1, "generation": 1, "services": {"s": service}})
    return service_spec("s", snapshot.services["s"])


def test_words_become_enums_and_durations_seconds():
    """What a document writes as text is what the connection path compares."""
    spec = spec_of(
        mode="sticky",
        seed="x",
        timeouts={"connect": "200ms", "idle": "2m"},
        health={"active": {"type": "http", "http": {"path": "/ok"}}, "passive": {"resets": "any"}},
        slow_start="3s",
    )
    assert (spec.name, spec.mode, spec.seed) == ("s", Mode.STICKY, "x")
    assert (spec.timeouts.connect_s, spec.timeouts.idle_s, spec.slow_start_s) == (0.2, 120.0, 3.0)
    assert (spec.active.type, spec.active.http_path) == (CheckType.HTTP, "/ok")
    assert spec.passive.resets is Resets.ANY


def test_backends():
    """In the order in which they are configured."""
    spec = spec_of(
        backends=["127.0.0.1:2", {"id": "b", "address": "127.0.0.1:3", "weight": 5, "state": "drain"}]
    )
    assert spec.backends == (
        BackendSpec("127.0.0.1:2", "127.0.0.1:2", 1, 0, OperatorState.ENABLED),
        BackendSpec("b", "127.0.0.1:3", 5, 0, OperatorState.DRAIN),
    )


def test_what_a_snapshot_has_in_common_with_the_one_before_is_the_same_spec():
    """It is known by the object; an equal one that was made anew is converted anew."""
    pairs = [{"id": id_, "address": "127.0.0.1:2"} for id_ in "abc"]
    body = {"version": 1, "generation": 1, "services": {"s": {"listen": "127.0.0.1:1", "backends": pairs}}}
    before, again = parse_snapshot(body).services["s"], parse_snapshot(body).services["s"]
    configured = {one.id: one for one in service_spec("s", before).backends}
    known = known_specs(before, configured)
    mixed = [before.backends[0], again.backends[1], before.backends[2]]
    specs = backend_specs(mixed, known)
    assert specs == list(service_spec("s", before).backends)
    assert [one is configured.get(one.id) for one in specs] == [True, False, True]
    assert known_specs(None, configured) == known_specs(before, {}) == {}
    assert service_spec("s", before, specs) == service_spec("s", before)


def test_only_listeners_that_say_how_have_options():
    """A mode is octal; an address on both stacks has its options twice."""
    spec = spec_of(
        listen=[
            "127.0.0.1:1",
            {"unix": "/run/x", "mode": "0660", "group": "web"},
            {"address": "*:80", "freebind": True},
        ]
    )
    options = dict(spec.listen_options)
    assert options.keys() == set(spec.listen) - {"127.0.0.1:1"}
    assert options["unix:/run/x"] == ListenSpec(mode=0o660, group="web")
    assert all(one.freebind for address, one in options.items() if not address.startswith("unix:"))
