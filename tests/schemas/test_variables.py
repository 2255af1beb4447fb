"""What differs from node to node in one lb.yaml: where it may stand, what replaces it, and what is said when nothing does."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.desired import json_schema, load_desired
from schemas.errors import InvalidDocument
from schemas.variables import Known, Variables, from_environment, is_name, replaced, variables_in
from tests.support.json_schema import Validator

HERE = "the environment"


def given_values(**values: str) -> Variables:
    """Return what a node says of itself."""
    return Variables({name: Known(value, HERE) for name, value in values.items()}, why="nobody told")


def problems(text: str, variables: Variables) -> list[str]:
    """Return the problems of a refusal."""
    with pytest.raises(InvalidDocument) as caught:
        load_desired(text.encode(), variables)
    return [str(problem) for problem in caught.value.problems]


EVERYWHERE = """\
version: 1
defaults:
  listen: ["${NODE_IP}:1"]
services:
  a: {listen: "${NODE_IP}:2", backends: []}
  b: {listen: ["[${NODE_IP6}]:3", {address: ":${NODE_PORT}"}], backends: []}
  c: {listen: {unix: "/run/${NODE_NAME}.sock", owner: "${NODE_USER}"}, backends: []}
  d: {backends: []}
  e: {listen: "[fe80::1%${NODE_LINK}]:5", backends: []}
"""


def test_where_they_may_stand():
    """Inside every value of `listen`, of services and of defaults; keys and all else stay as they are."""
    known = given_values(
        NODE_IP="10.0.0.1",
        NODE_IP6="fd00::1",
        NODE_PORT="4",
        NODE_NAME="lb1",
        NODE_USER="www",
        NODE_LINK="eth0",
    )
    services = load_desired(EVERYWHERE.encode(), known).services
    assert {name: service.addresses for name, service in services.items()} == {
        "a": ("10.0.0.1:2",),
        "b": ("[fd00::1]:3", "0.0.0.0:4"),
        "c": ("unix:/run/lb1.sock",),
        "d": ("10.0.0.1:1",),
        "e": ("[fe80::1%eth0]:5",),
    }
    assert services["c"].listen[0].owner == "www"


def test_the_cluster_section():
    """`node` and `address` have them, `name` has not: nodes of one cluster share it."""
    document = {
        "cluster": {"name": "${NODE_A}", "node": "${NODE_NAME}", "address": "http://${NODE_IP}:${NODE_PORT}"}
    }
    found = replaced(
        document, given_values(NODE_A="x", NODE_NAME="lb1", NODE_IP="10.0.0.1", NODE_PORT="9100")
    )
    assert found.value == {"cluster": {"name": "${NODE_A}", "node": "lb1", "address": "http://10.0.0.1:9100"}}
    assert set(found.used) == {"NODE_NAME", "NODE_IP", "NODE_PORT"}
    assert document["cluster"]["node"] == "${NODE_NAME}", "what was given has changed"


def test_elsewhere_a_dollar_is_a_dollar():
    """A seed is one of the texts that may contain anything."""
    text = (
        'version: 1\nservices: {a: {listen: ":1", backends: [], mode: sticky, seed: "${NODE_IP} ${HOME}"}}\n'
    )
    assert (
        load_desired(text.encode(), given_values(NODE_IP="10.0.0.1")).services["a"].seed
        == "${NODE_IP} ${HOME}"
    )
    assert variables_in({"services": {"a": {"seed": "${NODE_IP}"}}}) == frozenset()


@pytest.mark.parametrize(
    "odd",
    [
        [],
        3,
        None,
        {"services": [{"listen": "${NODE_IP}"}]},
        {"services": {"a": "${NODE_IP}"}, "cluster": "${NODE_IP}", "defaults": []},
    ],
)
def test_what_has_another_shape_is_left_to_the_check(odd):
    """It says what is wrong with it."""
    found = replaced(odd, Variables())
    assert (found.value, found.findings) == (odd, [])


def test_what_nobody_knows_is_named_with_where_it_was_looked_for():
    """At its line and column, and once; nothing is said of what stands in for it."""
    assert problems(
        'version: 1\nservices:\n  a: {listen: "${NODE_IP}:99999", backends: []}\n', given_values()
    ) == ["line 3, column 15: services.a.listen: has ${NODE_IP}, which is not known: nobody told"]


def test_what_results_is_checked_as_if_it_had_been_written():
    """And the message says what stands for what, and from where."""
    text = 'version: 1\nservices:\n  a: {listen: "${NODE_IP}:443", backends: []}\n  b: {listen: [":1", "${NODE_IP}:443"], backends: []}\n'
    (first, second) = problems(text, given_values(NODE_IP="fd00::1"))
    assert first == (
        'line 3, column 15: services.a.listen: must have an IPv6 address in brackets, such as "[::1]:4000", '
        'not "fd00::1:443"; ${NODE_IP} is "fd00::1" (the environment)'
    )
    assert second.startswith("line 4, column 22: services.b.listen[1]: ")
    assert problems(text, given_values(NODE_IP="10.0.0.1")) == [
        'line 4, column 22: services.b.listen[1]: 10.0.0.1:443 is already taken by services.a.listen[0]; to share it, all services but one need a match; ${NODE_IP} is "10.0.0.1" (the environment)'
    ]


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (
            "${HOME}:1",
            'may have variables whose names begin with NODE_, in capital letters, such as ${NODE_IP}, not "${HOME}"',
        ),
        (
            "${node_ip}:1",
            'may have variables whose names begin with NODE_, in capital letters, such as ${NODE_IP}, not "${node_ip}"',
        ),
        ("${NODE_IP:1", 'has "${NODE_IP:1" without its closing brace'),
        (
            "${NODE_AUTH_TOKEN}:1",
            'must not have "${NODE_AUTH_TOKEN}": its name speaks of a secret, and nodes tell each other what variables they have',
        ),
    ],
)
def test_what_is_no_variable_is_refused_where_one_may_stand(use, told):
    """One message each: what the text would be as an address is beside the point."""
    text = f"version: 1\nservices:\n  a: {{listen: '{use}', backends: []}}\n"
    assert problems(text, Variables({"NODE_AUTH_TOKEN": Known("x", HERE)})) == [
        f"line 3, column 15: services.a.listen: {told}"
    ]


def test_a_value_is_text_and_nothing_more():
    """What it contains is not looked at again."""
    found = replaced(
        {"cluster": {"node": "${NODE_NAME}"}}, given_values(NODE_NAME="${NODE_IP}", NODE_IP="10.0.0.1")
    )
    assert found.value == {"cluster": {"node": "${NODE_IP}"}}


def test_the_environment_gives_only_what_is_meant_for_it():
    """Not what is empty, too long or not printable, nor a name of another kind, nor a secret."""
    environ = {
        "NODE_IP": "10.0.0.1",
        "HOME": "/",
        "NODE_EMPTY": "",
        "NODE_LONG": "x" * 256,
        "NODE_BELL": "\a",
        "NODE_": "x",
        "NODE_API_KEY": "k",
    }
    assert from_environment(environ) == {"NODE_IP": Known("10.0.0.1", HERE)}
    assert not any(map(is_name, ("NODE_PASSWORD", "NODE_DB_PASSWD", "NODE_SECRET_X", "MYNODE_X", "NODE_x")))


def test_placeholders_fit_their_places():
    """A file is right without any node, and a mistake beside a variable shows nevertheless."""
    nobody = Variables(placeholders=True)
    services = load_desired(EVERYWHERE.encode(), nobody).services
    addresses = [address for service in services.values() for address in service.addresses]
    assert len(set(addresses)) == len(addresses)
    whole = {
        "services": {
            "a": {
                "listen": [
                    "${NODE_A}",
                    "${NODE_IP}:${NODE_P}",
                    "10.0.${NODE_N}.1:1",
                    "unix:/run/${NODE_S}",
                    "127.0.0.${NODE_M}:2",
                ],
                "backends": [],
            }
        },
        "cluster": {"node": "${NODE_NAME}", "address": "${NODE_URL}"},
    }
    found = replaced(whole, nobody)
    listen = found.value["services"]["a"].pop("listen")
    load_desired(json.dumps({"version": 1, "services": {"a": {"listen": listen, "backends": []}}}).encode())
    assert found.value["cluster"]["node"].isascii()
    assert found.value["cluster"]["address"].startswith("http://192.0.2.")
    assert {each.source for each in found.used.values()} == {"a placeholder"}
    (told,) = problems('version: 1\nservices: {a: {listen: "${NODE_IP}:70000", backends: []}}\n', nobody)
    assert told.endswith('; ${NODE_IP} is "192.0.2.1" (a placeholder)')


@pytest.mark.parametrize(
    "listen",
    ["${NODE_IP}:443", ["[${NODE_IP}]:443", ":1"], {"address": ":${NODE_PORT}"}, {"unix": "${NODE_DIR}/x"}],
)
def test_editors_know_them(listen):
    """No red line where one may stand; one where it may not."""
    validator = Validator(json_schema())
    assert validator.fits({"version": 1, "services": {"a": {"listen": listen, "backends": []}}})
    assert not validator.fits({"version": 1, "services": {"a": {"listen": "${HOME}:443", "backends": []}}})
    assert not validator.fits(
        {"version": 1, "services": {"a": {"listen": ":1", "backends": ["${NODE_IP}:443"]}}}
    )


USES = st.lists(
    st.sampled_from(
        ["${NODE_IP}", "${NODE_X}", "${NODE_", "${", "}", ":", "[", "%", "a", "1", "://", "unix:/"]
    )
).map("".join)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text("${}NODE_IPa:[]%.", max_size=20), USES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["services", "defaults", "cluster", "listen", "node", "unix"]), inner, max_size=4
        ),
    ),
    max_leaves=20,
)


@given(
    document=st.one_of(VALUES, VALUES.map(lambda each: {"services": {"a": {"listen": each}}})),
    known=st.booleans(),
)
@settings(deadline=None)
def test_whatever_is_written(document, known):
    """Nothing is raised, the document stays as it was, and what is right has no variable left where one may stand."""
    before = json.dumps(document)
    node = given_values(NODE_IP="10.0.0.1") if known else Variables(placeholders=True)
    found = replaced(document, node)
    assert json.dumps(document) == before
    if not found.findings:
        assert variables_in(found.value) == frozenset()
