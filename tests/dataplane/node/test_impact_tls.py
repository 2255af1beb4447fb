"""What a plan says of TLS: certificates by number, and names by who gets their clients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.node.impact_tls import certificate_impacts, name_impacts
from dataplane.node.specs import service_spec
from dataplane.node.tls import ServiceTls
from dataplane.tls.service import CertificateView
from schemas.snapshot import Service


def tls(*numbers: str, place: str = "tls.certificates[0]") -> Any:
    """Return TLS with certificates of these numbers."""
    views = [
        CertificateView(place, "/x", ("a.example",), "rsa", one, 0.0, 60.0, "", None, key_readable=False)
        for one in numbers
    ]
    return SimpleNamespace(files=SimpleNamespace(views=lambda: views))


def services(**names: str | None) -> Any:
    """Return services of one address, with the names that each asks for; None: the rest."""
    return [
        service_spec(
            service,
            Service.model_validate(
                {"listen": ":443", **({} if said is None else {"match": {"sni": said.split()}})}
            ),
        )
        for service, said in names.items()
    ]


def test_certificates_that_come_and_go():
    """What both have is not told, nor what is the same object; clients and backends each at their place."""
    kept = tls("5")
    before = ServiceTls(tls("1", "2"), kept)
    found = list(certificate_impacts("web", before, ServiceTls(tls("2", "3"), kept)))
    assert [(one["action"], one["place"], one["cert"]) for one in found] == [
        ("remove", "tls.certificates[0]", "/x"),
        ("add", "tls.certificates[0]", "/x"),
    ]
    assert (found[1]["names"], found[1]["ends"]) == (["a.example"], "1970-01-01T00:01:00Z")
    ours = ServiceTls(None, tls("7", place="backend_tls"))
    assert [one["action"] for one in certificate_impacts("web", ServiceTls(), ours)] == ["add"]
    assert [one["action"] for one in certificate_impacts("web", ours, ServiceTls())] == ["remove"]


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        ({"a": "x.b", "c": None}, {"a": "x.b", "c": None}, []),
        ({"a": "x.b", "c": "y.b"}, {"a": "y.b", "c": "x.b"}, [("x.b", "a", "c"), ("y.b", "c", "a")]),
        ({"a": "x.b", "c": None}, {"c": None}, [("x.b", "a", "c")]),
        ({"a": "x.b", "d": "y.b"}, {"d": "y.b"}, [("x.b", "a", "")]),
        ({"c": None}, {"a": "x.b", "c": None}, [("x.b", "c", "a")]),
        ({"a": "x.b", "w": "*.b"}, {"w": "*.b"}, [("x.b", "a", "w")]),
        ({"a": "x.b y.b"}, {"a": "y.b x.b"}, []),
    ],
)
def test_names_that_move(before, after, moves):
    """To who asks for them, for all below one name, or for the rest; a change of something else moves none."""
    found = name_impacts(services(**before), services(**after))
    assert [(one["name"], one["from"], one["to"]) for one in found] == moves


def test_addresses_that_come_or_go_move_nobody():
    """Their clients are told of with the listeners."""
    one = service_spec("a", Service.model_validate({"listen": ":1", "match": {"sni": ["x.b"]}}))
    other = service_spec("b", Service.model_validate({"listen": ":2", "match": {"sni": ["x.b"]}}))
    assert name_impacts([one], [other]) == []
