"""What a service may say of TLS: names in one form, and what contradicts itself with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from schemas.desired import load_desired
from schemas.errors import InvalidDocument
from schemas.snapshot import digest, parse_snapshot
from schemas.tls import SYSTEM, BackendTls, contradictions

PAIR = {"cert": "/etc/lb/a.pem", "key": "/etc/lb/a.key"}
SERVICE = {"listen": ":443", "backends": ["127.0.0.1:5001"]}


def web(**options: Any) -> Any:
    """Return the one service of a snapshot, checked."""
    return parse_snapshot({"generation": 1, "services": {"web": SERVICE | options}}).services["web"]


def wrong(**options: Any) -> dict[str, str]:
    """Return what is wrong with a service, by its place below it."""
    with pytest.raises(InvalidDocument) as caught:
        web(**options)
    return {one.path.removeprefix("services.web."): one.message for one in caught.value.problems}


def test_what_nobody_says_is_in_no_snapshot():
    """So the hash of a service without TLS is what it was before there was any, and snapshots of then are taken."""
    before = {  # saved by the version before TLS
        "generation": 7,
        "hash": "6debdcc1f647cd46a7bcf0506343a1f362a0698050a5705caeb2aab62617e4c3",
        "services": {
            "web": {
                "listen": [":4000", "unix:/run/x.sock"],
                "backends": ["127.0.0.1:5001", {"address": "db:1", "id": "b", "tier": 1}],
                "timeouts": {"idle": "3m"},
                "health": {"active": {"type": "http"}},
            }
        },
    }
    snapshot = parse_snapshot(before)
    said = snapshot.body()["services"]["web"]
    assert not {"match", "tls", "backend_tls"} & said.keys()
    assert not {"client_hello", "tls_handshake"} & said["timeouts"].keys()
    assert "tls" not in said["health"]["active"]


def test_what_is_said_is_in_the_snapshot_and_in_the_hash():
    """Every section, with its defaults; read again it is the same."""
    plain = web()
    for options in (
        {"match": {"sni": ["a.example"]}},
        {"tls": {"certificates": [PAIR]}},
        {"backend_tls": {}},
        {"timeouts": {"client_hello": "1s"}},
        {"timeouts": {"tls_handshake": "0s"}},
        {"backend_tls": {}, "health": {"active": {"tls": False}}},
    ):
        service = web(**options)
        assert digest({"web": service}) != digest({"web": plain})
        assert web(**json.loads(service.model_dump_json())) == service


def test_names_have_one_form():
    """Lower case, no dot at the end, sorted: two spellings of one content have one hash."""
    match = web(match={"sni": ["www.Example.com.", "*.example.COM", "a_b.c"], "alpn": ["h3", "h2"]}).match
    assert match.sni == ("*.example.com", "a_b.c", "www.example.com")
    assert match.alpn == ("h2", "h3")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("*", "only in place of its whole first label"),
        ("a.*.b", "only in place of its whole first label"),
        ("*a.example.com", "only in place of its whole first label"),
        ("*.*.example.com", "must be a host name"),
        ("10.0.0.1", "clients send no SNI for an address"),
        ("::1", "clients send no SNI for an address"),
        ("*.10", "must be a host name"),
        ("m\u00fcller.example", '"xn--mller-kva.example"'),
        ("stra\u00dfe.example", "must be ASCII, as clients send it, not"),
        ("-a.example", "must be a host name"),
        ("a..example", "must be a host name"),
        ("a b", "must be a host name"),
        ("", "must be a host name"),
        ("a." * 126 + "ab", "must be a host name"),
    ],
)
def test_names_that_no_client_sends_are_refused(name, words):
    """At their place in the list."""
    found = wrong(match={"sni": ["good.example", name]})
    assert found.keys() == {"match.sni[1]"}
    assert words in found["match.sni[1]"]


@pytest.mark.parametrize(
    ("options", "place", "words"),
    [
        ({"match": {}}, "match", "must have sni, alpn or source"),
        ({"match": {"sni": ["a.b", "A.b."]}}, "match.sni[1]", "stands there already, at [0]"),
        ({"match": {"alpn": ["h2", ""]}}, "match.alpn[1]", "1 to 255 characters"),
        ({"match": {"alpn": ["\u00e9"]}}, "match.alpn[0]", "1 to 255 characters"),
        ({"match": {"source": ["x"]}}, "match.source[0]", "must be a network"),
        ({"tls": {"certificates": []}}, "tls.certificates", "must not be empty"),
        ({"tls": {}}, "tls.certificates", "is required"),
        (
            {"tls": {"certificates": [PAIR, PAIR]}},
            "tls.certificates[1].cert",
            "is that of certificates[0]",
        ),
        ({"tls": {"certificates": [{"cert": "/a"}]}}, "tls.certificates[0].key", "is required"),
        (
            {"tls": {"certificates": [{"cert": "a", "key": "/b"}]}},
            "tls.certificates[0].cert",
            "must be an absolute path here",
        ),
        ({"tls": {"certificates": [PAIR], "client_ca": "ca"}}, "tls.client_ca", "must be an absolute path"),
        ({"tls": {"certificates": [PAIR], "min_version": "1.1"}}, "tls.min_version", "1.2"),
        ({"tls": {"certificates": [PAIR], "alpn": ["h2", "h2"]}}, "tls.alpn[1]", "stands there already"),
        (
            {"tls": {"certificates": [PAIR], "alpn": [f"{n}{'x' * 250}" for n in range(5)]}},
            "tls.alpn",
            "no more than 1024 bytes",
        ),
        (
            {"tls": {"certificates": [PAIR], "ciphers": "ECDHE+AESGCM:ECDHE-NOPE"}},
            "tls.ciphers",
            '"ECDHE-NOPE", which is no cipher',
        ),
        (
            {"tls": {"certificates": [PAIR], "ciphers": "TLS_AES_128_GCM_SHA256"}},
            "tls.ciphers",
            "the ciphers of TLS 1.3 are always on",
        ),
        (
            {"tls": {"certificates": [PAIR], "ciphers": "ECDHE:!ECDHE"}},
            "tls.ciphers",
            "must leave at least one cipher",
        ),
        ({"backend_tls": {"cert": "/a"}}, "backend_tls.cert", "needs key beside it"),
        ({"backend_tls": {"key": "/a"}}, "backend_tls.key", "needs cert beside it"),
        ({"backend_tls": {"ca": "ca.pem"}}, "backend_tls.ca", "must be an absolute path"),
        ({"backend_tls": {"ca": "/c", "verify": False}}, "backend_tls.ca", "no effect with verify: false"),
        ({"backend_tls": {"server_name": "*.a.b"}}, "backend_tls.server_name", "must be a host name"),
        (
            {
                "match": {"alpn": ["h2"]},
                "backend_tls": {"alpn": ["h2"], "pass_alpn": True},
                "pool": {"mode": "off"},
            },
            "backend_tls.alpn",
            "excludes pass_alpn",
        ),
        (
            {"match": {"sni": ["a.example"]}, "backend_tls": {"pass_sni": True}},
            "backend_tls.pass_sni",
            "needs pool.mode off, not preconnect",
        ),
        (
            {
                "tls": {"certificates": [PAIR]},
                "backend_tls": {"pass_alpn": True},
                "pool": {"mode": "reuse"},
            },
            "backend_tls.pass_alpn",
            "needs pool.mode off, not reuse",
        ),
        (
            {"backend_tls": {"pass_sni": True}, "pool": {"mode": "off"}},
            "backend_tls.pass_sni",
            "needs tls, or a match with sni or alpn",
        ),
        (
            {
                "match": {"source": ["10.0.0.0/8"]},
                "backend_tls": {"pass_alpn": True},
                "pool": {"mode": "off"},
            },
            "backend_tls.pass_alpn",
            "add one of them, or leave this out",
        ),
        ({"health": {"active": {"tls": True}}}, "health.active.tls", "needs backend_tls"),
        ({"health": {"active": {"type": "tls"}}}, "health.active.type", "needs backend_tls"),
        (
            {"backend_tls": {}, "health": {"active": {"type": "tls", "tls": False}}},
            "health.active.tls",
            "must not be false with type tls",
        ),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(options, place, words):
    """With what would be right."""
    found = wrong(**options)
    assert found.keys() == {place}
    assert words in found[place]


def test_versions_may_be_numbers():
    """Which is what YAML makes of them without quotation marks."""
    assert web(tls={"certificates": [PAIR], "min_version": 1.3}).tls.min_version == "1.3"


def test_a_list_of_ciphers_is_taken_as_openssl_has_it():
    """With what is left out, and in any of its separators; what is left out need not be known."""
    said = "ECDHE+AESGCM:ECDHE+CHACHA20,!aNULL:-NOPE:@STRENGTH"
    assert web(tls={"certificates": [PAIR], "ciphers": said}).tls.ciphers == said


@pytest.mark.parametrize(
    ("said", "name"),
    [("", ""), ("Db.Example.", "db.example"), ("2001:DB8::1", "2001:db8::1"), ("10.0.0.1", "10.0.0.1")],
)
def test_a_server_may_be_verified_by_name_or_address(said, name):
    """In one form."""
    assert web(backend_tls={"server_name": said}).backend_tls.server_name == name


def test_one_file_may_have_both():
    """As HAProxy wants them; and the system's authorities are the default."""
    service = web(
        tls={"certificates": [{"cert": "/a.pem", "key": "/a.pem"}]},
        backend_tls={"cert": "/b.pem", "key": "/b.pem"},
    )
    assert service.tls.certificates[0].key == "/a.pem"
    assert service.backend_tls.ca == SYSTEM


def test_contradictions_concern_only_what_is_passed_on():
    """Neither a pool nor clients of whom nothing is known hinder TLS; what depends on the client they do."""
    assert contradictions(BackendTls(), "preconnect", "type", knows_clients=False) == []
    passes = BackendTls(pass_sni=True, pass_alpn=True)
    assert contradictions(passes, "off", "tls", knows_clients=True) == []
    found = contradictions(passes, "off", "tls", knows_clients=False)
    assert [path for path, _ in found] == [("backend_tls", "pass_sni"), ("backend_tls", "pass_alpn")]


@pytest.mark.parametrize(
    "known",
    [
        {"tls": {"certificates": [PAIR]}},
        {"match": {"sni": ["a.example"]}},
        {"match": {"alpn": ["h2"], "source": ["10.0.0.0/8"]}},
    ],
)
def test_what_is_known_of_clients_can_be_passed_on(known):
    """Where their TLS ends, and where it tells whose they are."""
    service = web(**known, pool={"mode": "off"}, backend_tls={"pass_sni": True, "pass_alpn": True})
    assert service.backend_tls.pass_sni
    assert service.backend_tls.pass_alpn


def test_defaults_may_pass_on_what_only_some_services_know():
    """A service is judged by what `defaults` and it say together, and told where that stands."""
    text = """\
version: 1
defaults: {pool: {mode: "off"}, backend_tls: {pass_sni: true}}
services:
  named: {listen: ":1", backends: [], match: {sni: [a.example]}}
  blind: {listen: ":2", backends: []%s}
"""
    with pytest.raises(InvalidDocument) as caught:
        load_desired((text % "").encode())
    (problem,) = caught.value.problems
    assert (problem.path, problem.line) == ("defaults.backend_tls.pass_sni", 2)
    assert "needs tls, or a match with sni or alpn" in problem.message
    services = load_desired((text % ", backend_tls: {pass_sni: false}").encode()).services
    assert services["named"].backend_tls.pass_sni
    assert not services["blind"].backend_tls.pass_sni
