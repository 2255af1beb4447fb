"""Plan: what is named, and nothing else; many answers as one."""

from __future__ import annotations

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.plan import diff, join_changes, join_impacts, remaps_above


def backend(key, **more):
    """Make a backend whose address is its id."""
    return {"id": key, "address": key, "weight": 1, "tier": 0, "state": "enabled", **more}


def service(*backends, listen=("127.0.0.1:4000",), **options):
    """Make a service in its JSON form."""
    return {
        "listen": list(listen),
        "mode": "rr",
        "backends": list(backends),
        "timeouts": {"idle": "10m"},
        **options,
    }


def test_same_services_name_nothing():
    """Two equal sets of services differ in nothing."""
    services = {"web": service(backend("a:1"))}
    assert diff(services, copy.deepcopy(services)) == []


def test_golden_transcript():
    """Every kind of change is named once, services by name, in each: itself, listeners, options, backends."""
    old = {
        "db": service(backend("d:1")),
        "web": service(backend("a:1"), backend("b:1"), listen=["127.0.0.1:4000", "127.0.0.1:4001"]),
    }
    new = {
        "cache": service(backend("c:1")),
        "web": service(
            backend("b:1", weight=3),
            backend("x:1"),
            listen=["127.0.0.1:4001", "[::1]:4000"],
            mode="sticky",
            timeouts={"idle": "5s"},
        ),
    }
    assert diff(old, new) == [
        {"action": "add", "kind": "service", "service": "cache"},
        {"action": "add", "kind": "listener", "service": "cache", "address": "127.0.0.1:4000"},
        {"action": "add", "kind": "backend", "service": "cache", "id": "c:1"},
        {"action": "remove", "kind": "service", "service": "db"},
        {"action": "remove", "kind": "listener", "service": "db", "address": "127.0.0.1:4000"},
        {"action": "remove", "kind": "backend", "service": "db", "id": "d:1"},
        {"action": "remove", "kind": "listener", "service": "web", "address": "127.0.0.1:4000"},
        {"action": "add", "kind": "listener", "service": "web", "address": "[::1]:4000"},
        {
            "action": "change",
            "kind": "option",
            "service": "web",
            "fields": {"mode": {"from": "rr", "to": "sticky"}, "timeouts.idle": {"from": "10m", "to": "5s"}},
        },
        {"action": "remove", "kind": "backend", "service": "web", "id": "a:1"},
        {
            "action": "change",
            "kind": "backend",
            "service": "web",
            "id": "b:1",
            "fields": {"weight": {"from": 1, "to": 3}},
        },
        {"action": "add", "kind": "backend", "service": "web", "id": "x:1"},
    ]


def test_order_of_backends_is_no_change():
    """A backend is known by its id, wherever it stands in the list."""
    one, two = backend("a:1"), backend("b:1")
    assert diff({"web": service(one, two)}, {"web": service(two, one)}) == []


sets_of_services = st.dictionaries(
    st.sampled_from("xyz"),
    st.builds(
        lambda keys, weight, mode: service(*(backend(key, weight=weight) for key in sorted(keys)), mode=mode),
        st.sets(st.sampled_from("abc")),
        st.integers(0, 2),
        st.sampled_from(["rr", "sticky"]),
    ),
)


@settings(deadline=None)
@given(sets_of_services, sets_of_services)
def test_diff_is_empty_only_for_equal_services(old, new):
    """Nothing is overlooked, and the way back names the same places."""

    def places(changes):
        return sorted(
            (each["kind"], each["service"], each.get("id", ""), each.get("address", "")) for each in changes
        )

    assert (diff(old, new) == []) == (old == new)
    assert places(diff(old, new)) == places(diff(new, old))


def test_changes_of_several_data_planes_are_named_once():
    """What two data planes would both change is one change; what only the one that lags behind changes is named too."""
    one = {"action": "add", "kind": "service", "service": "web"}
    two = {"action": "remove", "kind": "service", "service": "db"}
    assert join_changes([[one], [one, two]]) == [one, two]


def test_impacts_are_summed_and_the_largest_share_counts():
    """Connections of one backend are added up over data planes; of the moved shares the largest is what hurts."""
    row = {"service": "web", "id": "a:1", "connections": 3}
    bind = {"action": "bind", "service": "web", "address": "127.0.0.1:1"}
    joined = join_impacts(
        [
            {"drain": [row], "pool": [], "remap": {"web": "9%", "db": "0%"}, "listeners": [bind]},
            {"drain": [row], "pool": [row], "remap": {"web": "12.5%"}, "listeners": [bind]},
        ]
    )
    assert joined == {
        "drain": [{**row, "connections": 6}],
        "pool": [row],
        "remap": {"web": "12.5%"},
        "listeners": [bind],
    }


def test_remap_limit_is_exclusive():
    """A share at the limit passes, one above it does not."""
    impact = {"remap": {"a": "10%", "b": "10.5%"}}
    assert remaps_above(impact, 0.1) == {"b": "10.5%"}


def test_options_of_a_listener():
    """An option is a change of the listener; a second address that an option stands for is one that comes."""
    before = {"web": {"listen": ["unix:/run/a", "[::]:443"]}}
    options = [{"address": "unix:/run/a", "mode": "0660"}, {"address": "[::]:443", "dual_stack": True}]
    assert diff(before, {"web": {"listen": options}}) == [
        {"action": "add", "kind": "listener", "service": "web", "address": "0.0.0.0:443"},
        {
            "action": "change",
            "kind": "listener",
            "service": "web",
            "address": "unix:/run/a",
            "fields": {"mode": {"from": None, "to": "0660"}},
        },
    ]


def test_what_is_said_of_tls_is_said_once():
    """By whoever says it; data planes of a version before say nothing of it."""
    empty = {"drain": [], "pool": [], "remap": {}, "listeners": []}
    certificate = {"action": "add", "service": "web", "cert": "/a.pem"}
    name = {"name": "a.example", "from": "web", "to": "api"}
    told = {**empty, "certificates": [certificate], "names": [name]}
    assert join_impacts([told, empty, told]) == told
    assert join_impacts([empty, empty]) == empty
