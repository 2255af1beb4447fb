"""A snapshot's services as the connection path has them."""

from __future__ import annotations

import pytest

from dataplane.core.spec import (
    BackendSpec,
    BackendTlsSpec,
    CertificateSpec,
    CheckType,
    ListenSpec,
    MatchSpec,
    Mode,
    OperatorState,
    Resets,
    TlsSpec,
)
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


TLS = {
    "match": {"sni": ["a.example"], "alpn": ["h2"], "source": ["10.0.0.0/8"]},
    "tls": {
        "certificates": [{"cert": "/a.pem", "key": "/a.key"}, {"cert": "/b.pem", "key": "/b.pem"}],
        "client_ca": "/ca.pem",
        "min_version": "1.3",
        "alpn": ["h2", "http/1.1"],
        "ciphers": "ECDHE+AESGCM",
    },
    "backend_tls": {
        "ca": "/backend-ca.pem",
        "server_name": "db.example",
        "cert": "/own.pem",
        "key": "/own.key",
        "alpn": ["postgresql"],
    },
    "timeouts": {"client_hello": "1s", "tls_handshake": "2s"},
}


def test_tls_reaches_the_connection_path():
    """Every key, in the form that it has there."""
    made = spec_of(**TLS)
    assert made.match == MatchSpec(("a.example",), ("h2",), ("10.0.0.0/8",))
    pairs = (CertificateSpec("/a.pem", "/a.key"), CertificateSpec("/b.pem", "/b.pem"))
    assert made.tls == TlsSpec(pairs, "/ca.pem", "1.3", ("h2", "http/1.1"), "ECDHE+AESGCM")
    assert made.backend_tls == BackendTlsSpec(
        "/backend-ca.pem", "db.example", True, "/own.pem", "/own.key", ("postgresql",)
    )
    assert (made.timeouts.client_hello_s, made.timeouts.tls_handshake_s) == (1.0, 2.0)


def test_without_tls_there_is_none():
    """And what the connection path compares with is None."""
    made = spec_of()
    assert (made.match, made.tls, made.backend_tls, made.active.tls) == (None, None, None, False)


@pytest.mark.parametrize(
    ("check", "over_tls"),
    [
        ({}, True),
        ({"tls": False}, False),
        ({"port": 8080}, False),
        ({"port": 8080, "tls": True}, True),
        ({"port": 8080, "type": "tls"}, True),
    ],
)
def test_checks_speak_tls_where_backends_do(check, over_tls):
    """But not at a port of their own, unless they say so."""
    assert spec_of(backend_tls={}, health={"active": check}).active.tls is over_tls


def test_what_is_passed_on_of_a_client():
    """Its name, and its protocols."""
    said = {"pass_sni": True, "pass_alpn": True, "verify": False}
    made = spec_of(match={"sni": ["a.example"]}, pool={"mode": "off"}, backend_tls=said)
    assert made.backend_tls == BackendTlsSpec(verify=False, pass_sni=True, pass_alpn=True)
