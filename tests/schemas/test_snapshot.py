from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import snapshot as snapshots
from schemas.errors import InvalidDocument
from schemas.snapshot import (
    SLICE,
    Backend,
    Service,
    Snapshot,
    Written,
    digest,
    finish,
    parse_snapshot,
    parse_snapshot_steps,
    services_text,
)

MINIMAL = {"listen": ":4000", "backends": ["127.0.0.1:5001"]}

# What a service is that says nothing more.
RESOLVED = {
    "listen": ["0.0.0.0:4000"],
    "mode": "rr",
    "seed": "",
    "backends": [
        {"id": "127.0.0.1:5001", "address": "127.0.0.1:5001", "weight": 1, "tier": 0, "state": "enabled"}
    ],
    "pool": {
        "mode": "preconnect",
        "min_idle": 0,
        "max_idle": 256,
        "idle_timeout": "30s",
        "max_age": "5m",
        "greeting_age": "1s",
    },
    "health": {
        "active": {
            "type": "tcp",
            "interval": "2s",
            "timeout": "1s",
            "rise": 2,
            "fall": 3,
            "jitter": "10%",
            "port": None,
            "http": {"path": "/", "status": ["200-399"], "host": ""},
            "expect": None,
        },
        "passive": {
            "failures": 5,
            "ejection": "30s",
            "max_ejection": "5m",
            "max_ejected": "10%",
            "resets": "unprovoked",
        },
        "panic": "50%",
    },
    "timeouts": {
        "connect": "2s",
        "idle": "10m",
        "half_closed": "30s",
        "lifetime": "0s",
        "proxy_header": "5s",
    },
    "retries": 3,
    "proxy_protocol": {"send": "off", "accept": "off", "trusted": []},
    "limits": {
        "connections": 0,
        "per_backend": 0,
        "per_client": 0,
        "client_rate": 0.0,
        "queue": 0,
        "queue_timeout": "5s",
        "queue_abandoned": "keep",
    },
    "access": {"allow": [], "deny": []},
    "drain": {"timeout": "1m", "close": "10s"},
    "slow_start": "0s",
    "balance_workers": False,
}


def parse(service, **top):
    """Return a snapshot of one service."""
    return parse_snapshot({"generation": 1, "services": {"web": service}, **top})


def problems(data):
    """Return the problems of a refusal."""
    with pytest.raises(InvalidDocument) as caught:
        parse_snapshot(data)
    return {problem.path: problem.message for problem in caught.value.problems}


def service_problems(**options):
    """Return the problems of one service, by path below it."""
    return {
        path.removeprefix("services.web."): message
        for path, message in problems({"generation": 1, "services": {"web": MINIMAL | options}}).items()
    }


def test_every_default_is_resolved():
    """What is pushed says everything, so that a data plane's own defaults never matter."""
    body = parse(MINIMAL).body()
    assert body == {"version": 1, "generation": 1, "hash": body["hash"], "services": {"web": RESOLVED}}
    assert json.loads(json.dumps(body)) == body


def test_a_resolved_body_is_read_as_the_same_snapshot():
    """What GET answers can be PUT again."""
    snapshot = parse(MINIMAL)
    assert parse_snapshot(snapshot.body()) == snapshot


def test_the_hash_is_a_known_one():
    """The digest is a contract between machines and versions: it may not change by accident."""
    text = json.dumps({"web": RESOLVED}, sort_keys=True, separators=(",", ":"))
    import hashlib  # noqa: PLC0415 - an independent computation of what the module promises

    assert parse(MINIMAL).hash == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"slow_start": "10s"}, {"slow_start": "10000ms"}),
        ({"timeouts": {"idle": "10m"}}, {}),
        ({"health": {"panic": "50.0%"}}, {}),
        ({"proxy_protocol": {"send": False}}, {"proxy_protocol": {"send": "off"}}),
        (
            {"access": {"allow": ["10.0.0.1", "10.0.0.0/8"]}},
            {"access": {"allow": ["10.1.2.3/8", "10.0.0.1/32"]}},
        ),
        ({"listen": "*:4000"}, {"listen": ["0.0.0.0:4000"]}),
        ({"backends": ["[0:0::1]:80"]}, {"backends": [{"address": "[::1]:80", "id": "[::1]:80"}]}),
        ({"limits": {"client_rate": 10}}, {"limits": {"client_rate": 10.0}}),
        (
            {"health": {"active": {"http": {"status": [204, 200]}}}},
            {"health": {"active": {"http": {"status": [200, 204, "200-200"]}}}},
        ),
        ({"health": {"active": {"http": {"status": ["300-399", 250, "200-299"]}}}}, {}),
        (
            {"health": {"active": {"http": {"status": [201, 200, 202]}}}},
            {"health": {"active": {"http": {"status": ["200-202"]}}}},
        ),
    ],
)
def test_every_spelling_of_the_same_content_has_the_same_hash(one, other):
    """The hash is of what it means, not of how it is written."""
    assert parse(MINIMAL | one).hash == parse(MINIMAL | other).hash


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "p2c"},
        {"seed": "x"},
        {"backends": ["127.0.0.1:5002"]},
        {"backends": [{"address": "127.0.0.1:5001", "id": "a"}]},
        {"backends": [{"address": "127.0.0.1:5001", "weight": 2}]},
        {"slow_start": "1ms"},
        {"balance_workers": True},
        {"limits": {"client_rate": 0.5}},
    ],
)
def test_other_content_has_another_hash(change):
    """Every option is part of the digest."""
    assert parse(MINIMAL | change).hash != parse(MINIMAL).hash


def test_the_generation_is_no_part_of_the_hash():
    """The same content in a new generation is the same content."""
    assert parse(MINIMAL, generation=7).hash == parse(MINIMAL).hash


@settings(deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_and_services_says_nothing(chance: random.Random):
    """Mappings have no order, so it must not show in the digest."""

    def shuffled(node):
        if isinstance(node, dict):
            return dict(chance.sample([(key, shuffled(value)) for key, value in node.items()], len(node)))
        return node

    services = {"a": RESOLVED, "b": {**RESOLVED, "listen": [":1"]}, "c": {**RESOLVED, "listen": [":2"]}}
    mixed = parse_snapshot({"generation": 1, "services": shuffled(services)})
    assert mixed.hash == parse_snapshot({"generation": 1, "services": services}).hash


def test_a_hash_that_fits_is_accepted_and_another_is_refused():
    """A body's own hash shows that it arrived as it was sent."""
    fitting = parse(MINIMAL).hash
    assert parse(MINIMAL, hash=fitting).hash == fitting
    found = problems({"generation": 1, "services": {"web": MINIMAL}, "hash": "0" * 64})
    assert list(found) == ["hash"]
    assert fitting in found["hash"]


def test_snapshots_made_in_code_compute_their_hash():
    """The control plane builds snapshots from models."""
    service = Service(listen=("127.0.0.1:1",), backends=(Backend(address="a:1"),))
    snapshot = Snapshot(generation=3, services={"web": service})
    assert snapshot.hash == digest({"web": service})
    assert parse_snapshot(snapshot.body()) == snapshot


def test_nothing_is_a_valid_snapshot():
    """Generation 0 without services is where a data plane begins."""
    assert parse_snapshot({"generation": 0, "services": {}}).services == {}


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        ({"listen": 4000}, "listen", 'must be an address such as "127.0.0.1:4000", not 4000'),
        ({"listen": []}, "listen", "must not be empty"),
        ({"listen": ["::1:80"]}, "listen[0]", "brackets"),
        ({"listen": [":1", ":1"]}, "listen[1]", "0.0.0.0:1 is already taken by services.web.listen[0]"),
        ({"mode": "stiky"}, "mode", "did you mean sticky?"),
        ({"mod": "rr"}, "mod", "unknown key; did you mean mode?"),
        ({"xyzzy": 1}, "xyzzy", "unknown key; known are listen, mode"),
        ({"pool": {"max_idel": 1}}, "pool.max_idel", "did you mean max_idle?"),
        ({"health": {"active": {"http": {"pth": "/"}}}}, "health.active.http.pth", "did you mean path?"),
        ({"backends": [{"address": "a:1", "weigth": 1}]}, "backends[0].weigth", "did you mean weight?"),
        ({"balance": "leastconn"}, "balance", "unknown key; did you mean mode?"),
        ({"bind": ":1"}, "bind", "unknown key; did you mean listen?"),
        ({"servers": ["a:1"]}, "servers", "unknown key; did you mean backends?"),
        ({"maxconn": 5}, "maxconn", "unknown key; did you mean limits?"),
        ({"Health-Check": {}}, "Health-Check", "unknown key; did you mean health?"),
        ({"health": {"check": {}}}, "health.check", "unknown key; did you mean active?"),
        ({"limits": {"maxconn": 5}}, "limits.maxconn", "unknown key; did you mean connections?"),
        (
            {"backends": [{"address": "a:1", "server": "a:1"}]},
            "backends[0].server",
            "unknown key; did you mean address?",
        ),
        ({"backends": [{"address": "a:1", "check": 1}]}, "backends[0].check", "unknown key; known are "),
        ({"backends": [{"address": "a:1", "weight": 257}]}, "backends[0].weight", "at most 256, not 257"),
        ({"backends": [{"address": "a:1", "weight": -1}]}, "backends[0].weight", "at least 0, not -1"),
        ({"backends": [{"address": "a:1", "weight": "2"}]}, "backends[0].weight", 'whole number, not "2"'),
        ({"backends": [{"address": "a:1", "weight": True}]}, "backends[0].weight", "whole number, not true"),
        ({"backends": [{"address": "a:1", "weight": 1.5}]}, "backends[0].weight", "whole number, not 1.5"),
        (
            {"backends": [{"address": "a:1", "state": "down"}]},
            "backends[0].state",
            "enabled, drain, disabled",
        ),
        ({"backends": [{"id": "a"}]}, "backends[0].address", "is required"),
        ({"backends": ["a"]}, "backends[0]", "with a port"),
        ({"backends": "a:1"}, "backends", 'must be a list, not "a:1"'),
        ({"backends": [5]}, "backends[0]", "must be a mapping, not 5"),
        ({"backends": ["a:1", "b:1", "A:1"]}, "backends[2]", "backends[0] has the same address a:1"),
        (
            {"backends": [{"address": "a:1", "id": "x"}, {"address": "b:1", "id": "x"}]},
            "backends[1]",
            "same id x",
        ),
        ({"pool": {"min_idle": 300}}, "pool.min_idle", "300 is above max_idle, which is 256"),
        ({"pool": {"mode": "on"}}, "pool.mode", "off, preconnect, reuse"),
        ({"pool": None}, "pool", "must be a mapping, not nothing"),
        ({"timeouts": {"connect": 5}}, "timeouts.connect", 'such as "250ms"'),
        ({"health": {"panic": "101%"}}, "health.panic", "at most 100%"),
        (
            {"health": {"active": {"type": "http", "http": {"status": [99]}}}},
            "health.active.http.status[0]",
            "100",
        ),
        (
            {"health": {"active": {"type": "http", "http": {"status": [600]}}}},
            "health.active.http.status[0]",
            "599",
        ),
        (
            {"health": {"active": {"http": {"status": [200, "399-200"]}}}},
            "health.active.http.status[1]",
            'a range of them such as 200-399, not "399-200"',
        ),
        ({"health": {"active": {"http": {"status": ["2xx"]}}}}, "health.active.http.status[0]", "200-399"),
        ({"health": {"active": {"http": {"status": [True]}}}}, "health.active.http.status[0]", "200-399"),
        ({"health": {"active": {"http": {"status": ["200"]}}}}, "health.active.http.status[0]", "200-399"),
        ({"health": {"active": {"http": {"status": []}}}}, "health.active.http.status", "must not be empty"),
        ({"health": {"active": {"http": {"path": "health"}}}}, "health.active.http.path", 'begin with "/"'),
        ({"health": {"active": {"http": {"path": "/a b"}}}}, "health.active.http.path", "without spaces"),
        (
            {"health": {"active": {"http": {"path": "/a\r\nX: y"}}}},
            "health.active.http.path",
            "control characters",
        ),
        ({"health": {"active": {"http": {"host": "a b"}}}}, "health.active.http.host", "without spaces"),
        ({"health": {"active": {"type": "expect"}}}, "health.active.expect", "required with type expect"),
        ({"health": {"active": {"expect": {"send": "x"}}}}, "health.active.expect.expect", "is required"),
        (
            {"health": {"active": {"expect": {"expect": ""}}}},
            "health.active.expect.expect",
            "must not be empty",
        ),
        ({"health": {"active": {"interval": "0s"}}}, "health.active.interval", "longer than zero"),
        ({"health": {"active": {"port": 0}}}, "health.active.port", "at least 1"),
        ({"health": {"active": {"port": 65536}}}, "health.active.port", "at most 65535"),
        ({"health": {"passive": {"ejection": "10m"}}}, "health.passive.ejection", "above max_ejection"),
        ({"proxy_protocol": {"accept": "required"}}, "proxy_protocol.trusted", "must not be empty"),
        ({"proxy_protocol": {"send": "v3"}}, "proxy_protocol.send", "off, v1, v2"),
        ({"proxy_protocol": {"send": True}}, "proxy_protocol.send", "off, v1, v2"),
        ({"proxy_protocol": {"trusted": "10.0.0.0/8"}}, "proxy_protocol.trusted", "must be a list"),
        ({"proxy_protocol": {"checksum": True}}, "proxy_protocol.checksum", "needs send v2, and send is off"),
        ({"proxy_protocol": {"checksum": 1, "send": "v2"}}, "proxy_protocol.checksum", "true or false"),
        (
            {"proxy_protocol": {"pass_tlvs": True, "send": "v1"}},
            "proxy_protocol.pass_tlvs",
            "needs send v2, and send is v1",
        ),
        (
            {"proxy_protocol": {"pass_tlvs": True, "send": "v2"}},
            "proxy_protocol.pass_tlvs",
            "needs accept required",
        ),
        ({"access": {"allow": ["10.0.0.0/33"]}}, "access.allow[0]", "network such as"),
        ({"limits": {"client_rate": -1}}, "limits.client_rate", "at least 0"),
        ({"limits": {"client_rate": float("nan")}}, "limits.client_rate", "finite"),
        ({"limits": {"queue": 1.0}}, "limits.queue", "whole number"),
        ({"seed": "a\x00"}, "seed", "control characters"),
        ({"seed": "x" * 256}, "seed", "at most 255 characters"),
        (
            {"pool": {"mode": "reuse"}, "proxy_protocol": {"send": "v2"}},
            "proxy_protocol.send",
            "v2 and pool.mode reuse exclude each other",
        ),
    ],
)
def test_each_mistake_is_named_by_path_and_says_what_is_allowed(options, path, message):
    """One mistake is one problem, at the place where it is made."""
    found = service_problems(**options)
    assert list(found) == [path]
    assert message in found[path]


@pytest.mark.parametrize(
    ("data", "path", "message"),
    [
        (None, "", "must be a mapping, not nothing"),
        ([], "", "must be a mapping, not a list"),
        ({"services": {}}, "generation", "is required"),
        ({"generation": 1}, "services", "is required"),
        ({"generation": -1, "services": {}}, "generation", "at least 0"),
        ({"generation": 2**63, "services": {}}, "generation", "at most"),
        ({"generation": "1", "services": {}}, "generation", "whole number"),
        ({"generation": 1, "services": []}, "services", "must be a mapping, not a list"),
        ({"generation": 1, "services": {"web": None}}, "services.web", "must be a mapping, not nothing"),
        ({"generation": 1, "services": {"a b": MINIMAL}}, 'services["a b"]', "a service name consists of"),
        ({"generation": 1, "services": {"web": {}}}, "services.web.listen", "is required"),
        ({"generation": 1, "services": {}, "version": 2}, "version", "must be 1, not 2"),
        ({"generation": 1, "services": {}, "extra": 1}, "extra", "unknown key"),
        (
            {"generation": 1, "services": {"a": MINIMAL, "b": MINIMAL | {"listen": [":1", "*:4000"]}}},
            "services.b.listen[1]",
            "0.0.0.0:4000 is already taken by services.a.listen[0]; to share it, all services but one need a match",
        ),
        (
            {"generation": 1, "services": {"a": {"listen": [":1"], "backends": ["b:1", "127.0.0.9:1"]}}},
            "services.a.backends[1]",
            "127.0.0.9:1 is where this service itself listens",
        ),
    ],
)
def test_a_body_that_is_no_snapshot_is_refused(data, path, message):
    """The frame is checked as strictly as what it holds."""
    found = problems(data)
    assert list(found) == [path]
    assert message in found[path]


def test_equal_ports_on_different_addresses_are_no_clash():
    """The kernel decides whether 0.0.0.0:80 and 127.0.0.1:80 can live together, not we."""
    listen = ["0.0.0.0:80", "127.0.0.1:80", "[::]:80"]
    assert parse(MINIMAL | {"listen": listen}).services["web"].listen == tuple(listen)


def test_one_address_with_two_ids_is_two_backends():
    """Ids tell backends apart, addresses need not."""
    backends = [{"address": "a:1", "id": "x"}, {"address": "a:1", "id": "y"}, "a:1"]
    assert [one.id for one in parse(MINIMAL | {"backends": backends}).services["web"].backends] == [
        "x",
        "y",
        "a:1",
    ]


def test_all_mistakes_are_reported_at_once():
    """Wrong values do not hide each other, nor what does not fit together."""
    found = service_problems(
        listen=[":1", "nowhere"],
        mode="x",
        pool={"mode": "reuse", "min_idle": 5, "max_idle": 1, "max_age": 7},
        proxy_protocol={"send": "v1", "accept": "required"},
        backends=[{"address": "a:1", "weight": 300}, "b:1", "b:1"],
        slow_strt="1s",
    )
    assert set(found) == {
        "listen[1]",
        "mode",
        "pool.min_idle",
        "pool.max_age",
        "proxy_protocol.send",
        "proxy_protocol.trusted",
        "backends[0].weight",
        "backends[2]",
        "slow_strt",
    }


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"pool": {"min_idle": 300, "max_idle": "many"}}, "pool.max_idle"),
        ({"proxy_protocol": {"accept": "required", "trusted": ["x"]}}, "proxy_protocol.trusted[0]"),
        ({"health": {"active": {"type": "expect", "expect": {"send": "x"}}}}, "health.active.expect.expect"),
    ],
)
def test_what_is_wrong_by_itself_contradicts_nothing(options, path):
    """The default that stands in for a wrong value while checking goes on is not held against anybody."""
    assert list(service_problems(**options)) == [path]


def test_checks_send_and_expect_bytes():
    """Escapes in a payload are bytes on the wire."""
    service = parse(
        MINIMAL
        | {"health": {"active": {"type": "expect", "expect": {"send": "\x00\xff\r\n", "expect": "+"}}}}
    )
    expect = service.services["web"].health.active.expect
    assert expect is not None
    assert expect.texts() == (b"\x00\xff\r\n", b"+", b"")


def test_input_is_not_changed():
    """A body that was refused, or accepted, is still what was sent."""
    data = {"generation": -1, "services": {"web": {"listen": ":1", "pool": {"min_idle": 5, "max_idle": 1}}}}
    before = json.dumps(data)
    problems(data)
    assert json.dumps(data) == before


WORDS = st.sampled_from(
    [
        "listen",
        "backends",
        "address",
        "pool",
        "health",
        "active",
        "expect",
        "send",
        "mode",
        "x",
        ":1",
        "a:1",
        "off",
        "5s",
        "10%",
    ]
)
ANY = st.recursive(
    WORDS | st.integers(-2, 300) | st.booleans() | st.none() | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["web", "a b", "c"]), st.dictionaries(WORDS, ANY, max_size=5) | ANY, max_size=3
    )
)
def test_any_content_is_a_snapshot_or_a_list_of_problems(services):
    """Nothing but InvalidDocument comes out of hostile JSON, and what is accepted is stable."""
    try:
        snapshot = parse_snapshot({"generation": 1, "services": services})
    except InvalidDocument as error:
        found = error.problems
    else:
        found = ("accepted",)
        assert parse_snapshot(snapshot.body()) == snapshot
    assert found


@settings(deadline=None)
@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), st.integers(0, 256), st.integers(0, 255)
)
def test_backends_are_written_as_everything_else(id_, weight, tier):
    """The hash is of canonical JSON, whatever an id consists of."""
    body = {"id": id_, "address": "unix:/tmp/ü", "weight": weight, "tier": tier, "state": "drain"}
    try:
        snapshot = parse_snapshot(
            {"generation": 1, "services": {"web": {"listen": "127.0.0.1:1", "backends": [body]}}}
        )
    except InvalidDocument:
        return  # no id
    dumped = snapshot.model_dump(mode="json")["services"]
    text = json.dumps(dumped, sort_keys=True, separators=(",", ":"))
    assert "".join(services_text(snapshot.services)) == text


def crowd(**changes):
    """Return the body of a snapshot with many backends, and other fields for some of them."""
    backends = [
        {
            "address": "127.0.0.1:2",
            "id": f"b{number}",
            "weight": 1,
            "tier": 0,
            "state": "enabled",
            **changes.get(f"b{number}", {}),
        }
        for number in range(2 * SLICE + 1)
    ]
    return {"generation": 1, "services": {"web": {"listen": "127.0.0.1:1", "backends": backends}}}


def test_what_did_not_change_is_the_same_object():
    """It was checked before; what did change is as if it had been checked alone."""
    before = parse_snapshot(crowd())
    body = crowd(b3={"weight": 9}, b400={"address": "127.0.0.1:3"}, b5={"state": "drain"})
    after = finish(parse_snapshot_steps(body, before.services))
    assert after == parse_snapshot(body)
    pairs = zip(before.services["web"].backends, after.services["web"].backends, strict=True)
    assert [new.id for old, new in pairs if old is not new] == ["b3", "b5", "b400"]
    again = finish(parse_snapshot_steps(crowd(), before.services))
    assert again.services["web"] is before.services["web"]


def test_what_is_equal_has_one_hash():
    """Of two equal services one stands for both; without this it would be the wrong one for whoever sends a hash."""
    with_rate = [
        {"services": {"web": {"listen": "127.0.0.1:1", "limits": {"client_rate": rate}}}}
        for rate in (0.0, -0.0)
    ]
    before, after = (parse_snapshot({"generation": 1, **body}) for body in with_rate)
    assert before.hash == after.hash


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        ({"weight": 1.0}, ["services.web.backends[300].weight"]),
        ({"weight": True}, ["services.web.backends[300].weight"]),
        ({"tier": False}, ["services.web.backends[300].tier"]),
        ({"id": "b7"}, ["services.web.backends[300]"]),
        ({"id": ["b7"]}, ["services.web.backends[300].id"]),
        ({"stat": "enabled"}, ["services.web.backends[300].stat"]),
    ],
)
def test_what_only_looks_the_same_is_refused(change, paths):
    """As if nothing had run before."""
    before = parse_snapshot(crowd())
    with pytest.raises(InvalidDocument) as caught:
        finish(parse_snapshot_steps(crowd(b300=change), before.services))
    assert [problem.path for problem in caught.value.problems] == paths


def test_what_was_written_is_not_written_again(monkeypatch):
    """A slice of the same objects is; one with another object, of another length or of another service is written."""
    written, count = Written(), []

    def write(backend):
        count.append(backend.id)
        return canonical(backend)

    canonical = snapshots._canonical_backend
    monkeypatch.setattr(snapshots, "_canonical_backend", write)
    before = finish(parse_snapshot_steps(crowd(), {}, written))
    assert len(count) == 2 * SLICE + 1
    count.clear()
    body = crowd(b300={"weight": 9})
    after = finish(parse_snapshot_steps(body, before.services, written))
    assert count == [f"b{number}" for number in range(SLICE, 2 * SLICE)]
    count.clear()
    assert json.loads("".join(after.text(written))) == after.body() | {"version": 1}
    assert len(count) == 2 * SLICE + 1, "by body alone"
    assert after.hash == digest(after.services)
    count.clear()
    written.keep({})
    assert "".join(services_text(after.services, written)) == "".join(services_text(after.services))
    assert len(count) == 2 * (2 * SLICE + 1)
