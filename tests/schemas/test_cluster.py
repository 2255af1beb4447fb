"""`cluster:` of an lb.yaml: which nodes belong together."""

from __future__ import annotations

import pytest

from schemas.cluster import Cluster
from schemas.desired import json_schema, load_desired
from schemas.errors import InvalidDocument
from schemas.reading.findings import check_all

SERVICES = b"services: {web: {listen: '127.0.0.1:4000', backends: ['127.0.0.1:5000']}}\n"


def problems(value):
    """Return the problems of a refusal."""
    findings, _ = check_all(Cluster, value)
    return {".".join(map(str, finding.path)): finding.message for finding in findings}


def test_a_name_is_enough():
    """The node's name is the machine's, and nobody needs its address before one is given."""
    cluster = Cluster.model_validate({"name": "edge"})
    assert (cluster.name, cluster.node, cluster.address) == ("edge", None, None)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "é", "x" * 65, "a\n", 5, None])
def test_names_are_steps_of_a_path(name):
    """A cluster and a node are called by what can stand in a key."""
    assert list(problems({"name": name})) == ["name"]
    assert list(problems({"name": "edge", "node": name})) == ([] if name is None else ["node"])


@pytest.mark.parametrize("address", ["http://10.0.0.1:9100", "https://n1.example", "http://[::1]:9100/"])
def test_addresses_are_urls(address):
    """They are where `lb-control run --http` listens; a slash at the end is none of it."""
    cluster = Cluster.model_validate({"name": "edge", "address": address})
    assert cluster.address == address.removesuffix("/")


@pytest.mark.parametrize(
    "address",
    ["", "10.0.0.1:9100", "unix:///x", "http://", "http://a/b", "http://u:p@a", "http://a:0", "http://a b"],
)
def test_other_addresses_are_refused(address):
    """Credentials would end up in a key that others read."""
    assert list(problems({"name": "edge", "address": address})) == ["address"]


def test_it_is_a_section_of_the_file():
    """It may be left out; a mistake in it has its line."""
    assert load_desired(b"version: 1\n" + SERVICES).cluster is None
    assert load_desired(b"version: 1\ncluster: {name: edge, node: n1}\n" + SERVICES).cluster == Cluster(
        name="edge", node="n1"
    )
    with pytest.raises(InvalidDocument) as refused:
        load_desired(b"version: 1\ncluster: {name: a/b, nod: n1}\n" + SERVICES)
    assert {(one.path, one.line) for one in refused.value.problems} == {
        ("cluster.name", 2),
        ("cluster.nod", 2),
    }


def test_editors_know_it():
    """The section is no null for them, and each key has its text."""
    schema = json_schema()
    assert schema["properties"]["cluster"]["$ref"] == "#/$defs/Cluster"
    assert all(each["description"] for each in schema["$defs"]["Cluster"]["properties"].values())
