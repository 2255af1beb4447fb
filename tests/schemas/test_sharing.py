"""Which services may listen on one address, and what tells their clients apart."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.sharing import indistinct, listener_clashes
from schemas.snapshot import Service
from schemas.tls import Match

TRUSTED = {"accept": "required", "trusted": ["10.0.0.0/8"]}


def services(**said: dict[str, Any]) -> dict[str, Service]:
    """Return services that listen on one address, unless they say otherwise."""
    return {name: Service.model_validate({"listen": ":443"} | one) for name, one in said.items()}


def clashes(**said: dict[str, Any]) -> dict[str, str]:
    """Return what hinders them, by place."""
    return {".".join(map(str, path)): message for path, message in listener_clashes(services(**said))}


def sni(*names: str) -> dict[str, Any]:
    """Return a match."""
    return {"match": {"sni": names}}


def test_all_but_one_with_a_match_share_an_address():
    """In any order; the one without takes the rest, and there need be none."""
    assert clashes(a=sni("a.b"), rest={}, c=sni("*.b")) == {}
    assert clashes(rest={}, a=sni("a.b")) == {}
    assert clashes(a=sni("a.b"), c=sni("*.b")) == {}


def test_two_without_a_match_do_not():
    """Whoever else is there."""
    words = (
        "0.0.0.0:443 is already taken by services.a.listen[0]; to share it, all services but one need a match"
    )
    assert clashes(a={}, b={}) == {"b.listen.0": words}
    found = clashes(m=sni("x.y"), a={}, b={})
    assert found.keys() == {"b.listen.0"}
    assert "already taken by services.a, which has no match either" in found["b.listen.0"]


def test_a_service_takes_an_address_once():
    """A match is no reason to name it twice."""
    found = clashes(a={"listen": [":443", ":443"], **sni("a.b")})
    assert found == {"a.listen.1": "0.0.0.0:443 is already taken by services.a.listen[0]"}


def test_options_of_a_shared_address_agree():
    """It is opened once. Of another address they may differ."""
    free = {"address": ":443", "freebind": True}
    assert clashes(a=sni("a.b") | {"listen": free}, b={"listen": [free, ":80"]}) == {}
    found = clashes(a=sni("a.b") | {"listen": free}, b={})
    assert found == {"b.listen.0": "0.0.0.0:443 must have the same options as in services.a, which shares it"}


def test_proxy_headers_of_a_shared_address_agree():
    """They are read before it is known whose client it is; what backends get may differ."""
    assert (
        clashes(a=sni("a.b") | {"proxy_protocol": TRUSTED}, b={"proxy_protocol": TRUSTED | {"send": "v2"}})
        == {}
    )
    found = clashes(a=sni("a.b") | {"proxy_protocol": TRUSTED}, b={})
    assert found.keys() == {"b.proxy_protocol.accept", "b.proxy_protocol.trusted"}
    assert "must be the same as in services.a" in found["b.proxy_protocol.accept"]


def test_what_cannot_be_told_apart_is_said_once():
    """Though two share two addresses; with what both take."""
    both = {"listen": [":443", ":444"]}
    found = clashes(a=sni("a.b", "x.y") | both, b=sni("x.y") | both)
    assert found == {"b.match": "takes the same clients as services.a, which shares 0.0.0.0:443: x.y"}


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        ({"sni": ["a.b"]}, {"sni": ["*.b"]}, ""),
        ({"sni": ["a.b"]}, {"sni": ["a.b"], "alpn": ["h2"]}, ""),
        ({"sni": ["a.b"]}, {"alpn": ["h2"]}, ""),
        ({"sni": ["a.b"], "alpn": ["h2"]}, {"sni": ["a.b"], "alpn": ["h3"]}, ""),
        ({"source": ["10.0.0.0/8"]}, {"source": ["10.0.0.0/9"]}, ""),
        ({"sni": ["a.b"], "source": ["10.0.0.0/8"]}, {"sni": ["a.b"]}, ""),
        ({"source": ["10.0.0.0/8"]}, {"source": ["10.0.0.0/8", "fd00::/8"]}, "10.0.0.0/8"),
        ({"sni": ["a.b", "c.d"]}, {"sni": ["c.d", "a.b"]}, "a.b c.d"),
        ({"sni": ["a.b"], "alpn": ["h2", "h3"]}, {"sni": ["a.b"], "alpn": ["h2"]}, "a.b, h2"),
    ],
)
def test_rules_in_common_cannot_be_told_apart(one, other, common):
    """The more special of two rules takes a client; of one and the same, neither could. It does not matter who asks."""
    first, second = Match.model_validate(one), Match.model_validate(other)
    assert indistinct(first, second) == indistinct(second, first) == common
