from __future__ import annotations

import json

import pytest

from schemas.desired import SHARED_LIMITS, load_desired, resolve
from schemas.errors import InvalidDocument
from schemas.options import Limits
from schemas.snapshot import Backend, Service, parse_snapshot

MINIMAL = """\
version: 1
services:
  web:
    listen: 127.0.0.1:4000
    backends: [127.0.0.1:5001]
"""


def load(text):
    """Read a text."""
    return load_desired(text.encode())


def problems(text):
    """Return the problems of a refusal."""
    with pytest.raises(InvalidDocument) as caught:
        load(text)
    return [str(problem) for problem in caught.value.problems]


def test_a_file_says_what_runs():
    """A minimal file resolves to the snapshot service that the same content makes."""
    services = resolve(load(MINIMAL), {})
    snapshot = parse_snapshot(
        {"generation": 1, "services": {"web": {"listen": "127.0.0.1:4000", "backends": ["127.0.0.1:5001"]}}}
    )
    assert services == snapshot.services
    assert type(services["web"]) is Service


def test_yaml_and_json_are_the_same():
    """A file may be JSON, tabs and all."""
    content = {
        "version": 1,
        "services": {"web": {"listen": ":4000", "backends": ["a:1"], "slow_start": "5s"}},
    }
    yaml = "version: 1\nservices: {web: {listen: ':4000', backends: [a:1], slow_start: 5s}}\n"
    assert load(json.dumps(content, indent="\t")) == load(yaml)


def test_no_services_is_an_answer():
    """An empty mapping says that nothing shall be served; leaving the key out says nothing."""
    assert load("version: 1\nservices: {}\n").services == {}
    assert problems("version: 1\n") == ["line 1, column 1: services: is required"]


def test_defaults_are_merged_key_by_key():
    """A service overrides single values, at any depth, and keeps the others."""
    desired = load("""\
version: 1
defaults:
  mode: p2c
  timeouts: {connect: 1s, idle: 5m}
  health: {active: {interval: 7s, http: {path: /up}}}
services:
  a:
    listen: ":1"
    backends: []
    timeouts: {connect: 3s}
    health: {active: {type: http}}
  b: {listen: ":2", backends: [], mode: rr}
""")
    a, b = desired.services["a"], desired.services["b"]
    assert (a.mode, b.mode) == ("p2c", "rr")
    assert (a.timeouts.connect, a.timeouts.idle) == (3.0, 300.0)
    assert (b.timeouts.connect, b.timeouts.idle) == (1.0, 300.0)
    assert (a.health.active.type, a.health.active.interval, a.health.active.http.path) == ("http", 7.0, "/up")


def test_what_a_service_lists_replaces_inherited_discovery():
    """Backends and discover answer one question, so a service's own answer takes the default's place."""
    desired = load("""\
version: 1
defaults: {discover: {consul: {datacenter: dc1}}}
services:
  a: {listen: ":1", backends: [a:1]}
  b: {listen: ":2", discover: {consul: {service: redis}}}
""")
    assert desired.services["a"].discover is None
    discover = desired.services["b"].discover
    assert discover is not None
    assert (discover.consul.service, discover.consul.datacenter) == ("redis", ("dc1",))


def test_discovered_backends_take_the_place_of_discovery():
    """A snapshot is complete: it names backends, never where to look for them."""
    desired = load(
        'version: 1\nservices: {c: {listen: ":1", mode: sticky, discover: {consul: {service: redis}}}}\n'
    )
    found = [Backend(id="n1/redis", address="10.0.0.1:6379")]
    service = resolve(desired, {"c": found})["c"]
    assert (service.mode, service.backends) == ("sticky", tuple(found))
    assert "discover" not in service.model_dump()
    assert resolve(desired, {})["c"].backends == ()


def test_unquoted_off_is_off():
    """A word that YAML 1.1 turns into false still means the choice."""
    desired = load(MINIMAL + "    pool: {mode: off}\n    proxy_protocol: {send: no, accept: false}\n")
    service = desired.services["web"]
    assert (service.pool.mode, service.proxy_protocol.send, service.proxy_protocol.accept) == (
        "off",
        "off",
        "off",
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("services: {}\n", "line 1, column 1: version: is required"),
        ("version: 2\nservices: {}\n", "line 1, column 10: version: must be 1, not 2"),
        ('version: "1"\nservices: {}\n', 'line 1, column 10: version: must be 1, not "1"'),
        ("version: 1\nservices:\n", "line 2, column 10: services: must be a mapping, not nothing"),
        ("version: 1\nservices: []\n", "line 2, column 1: services: must be a mapping, not a list"),
        ("- 1\n", "line 1, column 1: must be a mapping with the keys version and services, not a list"),
        ("x\n", 'line 1, column 1: must be a mapping with the keys version and services, not "x"'),
        (MINIMAL + "srvices: {}\n", "line 6, column 1: srvices: unknown key; did you mean services?"),
        (MINIMAL + "    mdoe: rr\n", "line 6, column 5: services.web.mdoe: unknown key; did you mean mode?"),
        (MINIMAL + "    pool:\n", "line 6, column 10: services.web.pool: must be a mapping, not nothing"),
        (MINIMAL + "defaults: 1\n", "line 6, column 11: defaults: must be a mapping, not 1"),
        (
            MINIMAL + "    discover: {consul: {service: x}}\n",
            "line 6, column 5: services.web.discover: excludes backends; a service has one of them",
        ),
        (
            'version: 1\nservices:\n  web:\n    listen: ":1"\n',
            "line 3, column 3: services.web: must have either backends or discover",
        ),
        (
            "version: 1\nservices:\n  web: {backends: []}\n",
            "line 3, column 3: services.web.listen: is required",
        ),
        ("version: 1\nservices:\n  web: no\n", 'line 3, column 8: services.web: must be a mapping, not "no"'),
        (
            "version: 1\nservices:\n  web:\n    listen: 4000\n    backends: []\n",
            'line 4, column 13: services.web.listen: must be an address such as "127.0.0.1:4000", not 4000',
        ),
        (
            'version: 1\nservices: {web: {listen: ":1", discover: {consul: {}}}}\n',
            "line 2, column 43: services.web.discover.consul: must have either service or prepared_query",
        ),
        (
            'version: 1\nservices: {web: {listen: ":1", discover: {consul: {service: a, prepared_query: b}}}}\n',
            "line 2, column 43: services.web.discover.consul: must have either service or prepared_query",
        ),
    ],
)
def test_each_mistake_has_a_line_and_a_column(text, problem):
    """One mistake is one problem: place, path, what is wrong, what is right."""
    assert problems(text) == [problem]


def test_mistakes_in_defaults_are_reported_where_they_are_written():
    """What several services inherit is one problem, in defaults, whoever overrides it."""
    found = problems("""\
version: 1
defaults: {timeouts: {connect: 1}, pool: {min_idle: 300}, mod: rr}
services:
  a: {listen: ":1", backends: []}
  b: {listen: ":2", backends: [], timeouts: {connect: 1s}, pool: {max_idle: 400}}
""")
    assert [text.split(": ")[1] for text in found] == [
        "defaults.timeouts.connect",
        "defaults.pool.min_idle",
        "defaults.mod",
    ]


def test_defaults_may_be_incomplete():
    """Only what services come to be has to fit together."""
    desired = load("""\
version: 1
defaults: {pool: {min_idle: 300}, health: {active: {type: expect, expect: {send: PING}}}}
services:
  a: {listen: ":1", backends: [], pool: {max_idle: 400}, health: {active: {expect: {expect: PONG}}}}
""")
    expect = desired.services["a"].health.active.expect
    assert expect is not None
    assert (expect.send, expect.expect) == ("PING", "PONG")


def test_notation_and_content_are_reported_together():
    """Duplicate keys, aliases and wrong values come in one list, in the order of the text."""
    found = problems("""\
version: 1
services:
  web:
    listen: ":1"
    listen: ":2"
    mode: *m
    backends: ["b:0", {address: "c:1", weight: 257}]
  api:
    listen: ":1"
    backends: [a:1, a:1]
    retries: 5s
guard: {max_shrink: 101%}
""")
    assert [text.split(": ")[:2] for text in found] == [
        ["line 5, column 5", "services.web.listen"],
        ["line 6, column 11", "services.web.mode"],
        ["line 7, column 16", "services.web.backends[0]"],
        ["line 7, column 48", "services.web.backends[1].weight"],
        ["line 9, column 13", "services.api.listen"],
        ["line 10, column 21", "services.api.backends[1]"],
        ["line 11, column 14", "services.api.retries"],
        ["line 12, column 21", "guard.max_shrink"],
    ]


def test_a_merge_key_hides_only_its_own_mapping():
    """What a refused merge would have brought is not called missing."""
    (problem,) = problems('version: 1\nservices:\n  web:\n    <<: {listen: ":1"}\n    backends: []\n')
    assert "merge key" in problem


def test_json_mistakes_have_places_too():
    """The same check, the same places."""
    text = '{"version": 1,\n"services": {"web": {"listen": ":1",\n\t"backends": ["a:1"], "mode": "x"}}}'
    (problem,) = problems(text)
    assert problem.startswith("line 3, column 31: services.web.mode: must be one of")


def test_ten_thousand_backends_fit():
    """The limit of a file is its size, not what it holds."""
    lines = "".join(f"      - 10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80\n" for n in range(10_000))
    desired = load(f'version: 1\nservices:\n  web:\n    listen: ":1"\n    backends:\n{lines}')
    backends = desired.services["web"].backends
    assert backends is not None
    assert len(backends) == 10_000


@pytest.mark.parametrize(
    "body",
    [
        "    backends:\n" + "      - a:99999\n" * 3000,
        "    backends:\n" + "      - a:80\n" * 3000,
        "    backends:\n" + "      - *a\n" * 3000,
        "    backends: []\n" + "    mode: rr\n" * 3000,
        "    backends: []\n" + "".join(f"    key{n}: 1\n" for n in range(3000)),
    ],
)
def test_a_file_full_of_mistakes_ends_in_a_list_that_ends(body):
    """Nobody reads more than a thousand problems, and looking for them must not keep a daemon busy."""
    found = problems('version: 1\nservices:\n  web:\n    listen: ":1"\n' + body)
    assert 100 < len(found) <= 1000


def test_backends_that_lead_back_have_a_line():
    """The balancer as its own backend is refused where it stands, in short form, in long form, in defaults, in a circle."""
    text = """\
version: 1
services:
  web:
    listen: 127.0.0.1:4000
    backends:
      - 127.0.0.1:5001
      - 127.0.0.1:4000
      - {address: 127.0.0.1:4000, id: twice}
  a: {listen: ":4001", backends: ["127.0.0.1:4002"]}
  b: {listen: ":4002", backends: ["127.0.0.1:4003"]}
  c: {listen: ":4003", backends: ["127.0.0.1:4001", "127.0.0.1:4000"]}
"""
    here = "127.0.0.1:4000 is where this service itself listens: each connection would come back, for ever"
    assert problems(text) == [
        f"line 7, column 9: services.web.backends[1]: {here}",
        f"line 8, column 19: services.web.backends[2].address: {here}",
        "line 11, column 35: services.c.backends[0]: 127.0.0.1:4001 is where service a listens, which leads back here (c -> a -> b -> c): each connection would go round, for ever",
    ]
    inherited = (
        "version: 1\ndefaults: {backends: ['127.0.0.1:4000']}\nservices: {web: {listen: '127.0.0.1:4000'}}\n"
    )
    assert problems(inherited) == [f"line 2, column 23: defaults.backends[0]: {here}"]


# --- limits that all nodes share --------------------------------------------------------------------

ALL = "connections: 100, per_backend: 7, per_client: 2, client_rate: 2.5, queue: 0"


def limits(text, nodes):
    """Return what is left of limits on one of so many nodes, of those that may be shared."""
    whole = f"""\
version: 1
cluster: {{name: edge}}
services: {{web: {{listen: ":1", backends: [], limits: {{{text}}}}}}}
"""
    found = resolve(load(whole), {}, nodes)["web"].limits
    assert type(found) is Limits, "data planes know nothing of a scope"
    return [getattr(found, name) for name in SHARED_LIMITS]


@pytest.mark.parametrize(
    ("nodes", "share"),
    [
        (0, [100, 7, 2, 2.5, 0]),
        (1, [100, 7, 2, 2.5, 0]),
        (2, [50, 3, 1, 1.0, 0]),
        (3, [33, 2, 1, 1.0, 0]),
        (1000, [1, 1, 1, 1.0, 0]),
    ],
)
def test_limits_of_the_cluster_are_divided(nodes, share):
    """Rounded down, but to 1 at least: 0 would be no limit, and none stays none."""
    assert limits(f"{ALL}, scope: cluster", nodes) == share
    assert limits(ALL, nodes) == [100, 7, 2, 2.5, 0]
    assert limits(f"{ALL}, scope: node", nodes) == [100, 7, 2, 2.5, 0]


def test_a_share_is_never_more_than_the_whole():
    """A rate of less than one a second stays what it is, and a number keeps its kind, which the hash sees."""
    assert limits("client_rate: 0.5, scope: cluster", 3)[3] == 0.5
    assert type(limits("client_rate: 20, scope: cluster", 3)[3]) is float


def test_a_scope_without_a_cluster():
    """There is nobody to share with; it is told where it was said."""
    told = "cluster needs the section cluster: it says which nodes share these limits"
    assert problems(
        "version: 1\nservices: {a: {listen: ':1', backends: [], limits: {scope: cluster}}}\n"
    ) == [f"line 2, column 60: services.a.limits.scope: {told}"]
    assert problems(
        "version: 1\ndefaults: {limits: {scope: cluster}}\nservices: {a: {listen: ':1', backends: []}}\n"
    ) == [f"line 2, column 28: defaults.limits.scope: {told}"]
    load(
        "version: 1\ndefaults: {limits: {scope: cluster}}\nservices: {a: {listen: ':1', backends: [], limits: {scope: node}}}\n"
    )
