from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core import instances
from controlplane.core.instances import Condition, InstanceRules, classify, listed

RULES = InstanceRules()


def entry(service_id="a", node="n1", address="10.0.0.1", port=80, checks=(), **service):
    """An entry of /v1/health/service with checks given as (id, status)."""
    return {
        "Node": {"Node": node, "Address": "192.168.0.1", "TaggedAddresses": {"wan": "198.51.100.7"}},
        "Service": {"ID": service_id, "Address": address, "Port": port, **service},
        "Checks": [{"CheckID": name, "Status": status} for name, status in checks],
    }


def only(*args, rules=RULES, **kwargs):
    """The one instance of one entry."""
    found = classify([entry(*args, **kwargs)], rules)
    assert not found.rejected
    return found.instances[0]


@pytest.mark.parametrize(
    ("checks", "condition"),
    [
        ([], Condition.PASSING),
        ([("serfHealth", "passing"), ("service:a", "passing")], Condition.PASSING),
        ([("serfHealth", "passing"), ("service:a", "warning")], Condition.WARNING),
        ([("serfHealth", "passing"), ("service:a", "warning"), ("disk", "critical")], Condition.CRITICAL),
        ([("service:a", "something new")], Condition.CRITICAL),
        ([("serfHealth", "critical")], Condition.LOST),
        ([("serfHealth", "critical"), ("service:a", "warning")], Condition.LOST),
        ([("serfHealth", "critical"), ("service:a", "critical")], Condition.CRITICAL),
        ([("_node_maintenance", "critical"), ("serfHealth", "passing")], Condition.MAINTENANCE),
        ([("service:a", "critical"), ("_service_maintenance:a", "critical")], Condition.MAINTENANCE),
    ],
)
def test_checks_add_up(checks, condition):
    """The worst check decides, but a silent agent alone is no failure, and maintenance goes before all."""
    assert only(checks=checks).condition is condition


def test_keep_critical_takes_it_for_warning():
    """Where Consul's checks are not to decide, a critical instance stays, with its warning weight."""
    found = only(
        checks=[("service:a", "critical")],
        Weights={"Passing": 5, "Warning": 2},
        rules=InstanceRules(keep_critical=True),
    )
    assert (found.condition, found.weight) == (Condition.WARNING, 2)


def test_weights_follow_the_condition():
    """A passing instance has `Weights.Passing`, a warning one `Weights.Warning`."""
    weights = {"Passing": 10, "Warning": 2}
    assert only(Weights=weights).weight == 10
    assert only(Weights=weights, checks=[("x", "warning")]).weight == 2


def test_meta_weight_and_tier():
    """`lb.weight` replaces the passing weight but not the warning one, and `lb.tier` sets the tier."""
    meta = {"lb.weight": "7", "lb.tier": "1"}
    found = only(Meta=meta, Weights={"Passing": 3, "Warning": 2})
    assert (found.weight, found.tier) == (7, 1)
    assert only(Meta=meta, Weights={"Passing": 3, "Warning": 2}, checks=[("x", "warning")]).weight == 2


@pytest.mark.parametrize("dot", [".", "-", "_"])
def test_meta_keys_without_dots(dot):
    """Consul refuses dots in the keys of meta data, so a dash or an underscore stands for one."""
    found = only(Meta={f"lb{dot}weight": "7", f"lb{dot}tier": "1"})
    assert (found.weight, found.tier) == (7, 1)


@pytest.mark.parametrize(
    ("name", "value"), [("lb.tier", "-1"), ("lb.weight", "1e3"), ("lb.weight", "٣"), ("lb.tier", "256")]
)
def test_bad_meta_is_ignored_and_said(name, value):
    """A bad value in the meta data costs only itself, and is reported."""
    found = classify([entry(Meta={name: value})], RULES)
    assert (found.instances[0].weight, found.instances[0].tier) == (1, 0)
    assert [remark.id for remark in found.warnings] == ["n1/a"]
    assert name in found.warnings[0].why


@pytest.mark.parametrize("weights", [None, {}, {"Passing": -1}, {"Passing": "9"}, {"Passing": True}, [], 3])
def test_bad_weights_become_one(weights):
    """A weight that is missing or none becomes 1."""
    assert only(Weights=weights).weight == 1


@pytest.mark.parametrize("source", [{"Weights": {"Passing": 65535}}, {"Meta": {"lb.weight": "65535"}}])
def test_large_weights_are_kept(source):
    """A weight above 256 is a proportion like any other: what becomes of it depends on its neighbours."""
    found = classify([entry(**source)], RULES)
    assert found.instances[0].weight == 65535
    assert found.warnings == ()


def test_weights_without_measure_are_none():
    """A number that no registry of sense holds costs its instance the weight, and nobody else anything."""
    found = classify([entry("a", Weights={"Passing": 10**30})], InstanceRules())
    assert found.instances[0].weight == 1
    assert "ignored" in found.warnings[0].why


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("service", "10.0.0.1:80"),
        ("node", "192.168.0.1:80"),
        ("tagged:lan", "10.9.9.9:81"),
        ("tagged:wan", "198.51.100.7:80"),
    ],
)
def test_address_sources(source, expected):
    """The address comes from the service, its node, or a tagged address, which may have a port of its own."""
    rules = InstanceRules(address_source=source)
    assert only(rules=rules, TaggedAddresses={"lan": {"Address": "10.9.9.9", "Port": 81}}).address == expected


def test_service_without_address_is_at_its_node():
    """A service that registered no address is reached at its node's."""
    assert only(address="").address == "192.168.0.1:80"


def test_port_override():
    """A configured port takes the place of the registered one, even of a bad one."""
    assert only(port=0, rules=InstanceRules(port=9000)).address == "10.0.0.1:9000"


def test_bad_entries_cost_only_themselves():
    """Entries that cannot be used are skipped with their reasons while the others serve."""
    broken = [
        entry("p", port=70000),
        entry("h", address="not a host; rm -rf"),
        entry("with blank"),
        entry("x" * 300),
        None,
        [],
        {"Node": None, "Service": None, "Checks": None},
    ]
    found = classify([*broken, entry("good")], RULES)
    assert [item.id for item in found.instances] == ["n1/good"]
    assert len(found.rejected) == len(broken)
    assert all(remark.id and remark.why for remark in found.rejected)


def test_missing_parts_are_like_null():
    """Checks, meta data, weights and tagged addresses may be null or absent."""
    bare = {
        "Node": {"Node": "n1"},
        "Service": {"ID": "a", "Address": "10.0.0.1", "Port": 80, "Meta": None, "Tags": None},
    }
    assert classify([bare], RULES).instances[0].id == "n1/a"


def test_ids_are_unique_per_node():
    """The same service id on two nodes is two instances; the same id twice on one node is not."""
    found = classify(
        [entry(node="n1"), entry(node="n2", address="10.0.0.2"), entry(node="n1", address="10.0.0.3")], RULES
    )
    assert [item.id for item in found.instances] == ["n1/a", "n2/a"]
    assert [remark.id for remark in found.rejected] == ["n1/a"]


def test_datacenter_in_front():
    """Where several datacenters are asked, ids begin with theirs."""
    assert only(rules=InstanceRules(datacenter="dc2")).id == "dc2/n1/a"


def test_who_is_listed():
    """Whoever an entry is about is listed, usable or not; ids are made of it as instances' are."""
    found = listed([entry("a"), entry("b", port=70000, node="n2"), None, {"Node": 3}, entry("")])
    assert found == {("n1", "a"), ("n2", "b")}
    assert InstanceRules().ids(found) == {"n1/a", "n2/b"}
    assert InstanceRules(datacenter="dc1").ids(found) == {"dc1/n1/a", "dc1/n2/b"}


def test_one_address_twice():
    """Of two instances with one address the healthier stays, with the higher weight among equals."""
    a, b = entry("a", Weights={"Passing": 1}), entry("b", Weights={"Passing": 5})
    found = classify([b, a], RULES)
    assert [(item.id, item.weight) for item in found.instances] == [("n1/a", 5)]
    assert [remark.id for remark in found.rejected] == ["n1/b"]
    sick = entry("a", checks=[("x", "critical")])
    assert [item.id for item in classify([sick, b], RULES).instances] == ["n1/b"]


def test_too_many_instances(monkeypatch):
    """There is a limit to the number of instances; what is beyond it is reported."""
    monkeypatch.setattr(instances, "MAX_INSTANCES", 3)
    found = classify([entry(f"s{n}", address=f"10.0.0.{n}") for n in range(1, 6)], RULES)
    assert (len(found.instances), len(found.rejected)) == (3, 2)


leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
anything = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
KEYS = st.sampled_from(["ID", "Address", "Port", "Meta", "Weights", "TaggedAddresses", "Node", "Tags"])
wild = st.fixed_dictionaries(
    {},
    optional={
        "Node": st.dictionaries(KEYS, anything) | anything,
        "Service": st.dictionaries(KEYS, anything) | anything,
        "Checks": st.lists(st.dictionaries(st.sampled_from(["CheckID", "Status"]), anything)) | anything,
    },
)


@settings(deadline=None)
@given(
    st.lists(wild | anything | st.just(entry()), max_size=6),
    st.sampled_from(["service", "node", "tagged:lan"]),
)
def test_every_entry_is_accounted_for(entries, source):
    """Whatever a reply holds: nothing is raised, every entry is used or rejected, ids and addresses are unique."""
    found = classify(entries, InstanceRules(address_source=source))
    assert len(found.instances) + len(found.rejected) == len(entries)
    assert len({item.id for item in found.instances}) == len(found.instances)
    assert len({item.address for item in found.instances}) == len(found.instances)
    assert sum(found.counts().values()) == len(entries)


@settings(deadline=None)
@given(st.permutations([entry(f"s{n}", address=f"10.0.0.{n % 3 + 1}", port=80) for n in range(6)]))
def test_order_does_not_matter(entries):
    """The order of a reply means nothing."""
    assert classify(entries, RULES).instances == classify(sorted(entries, key=str), RULES).instances
