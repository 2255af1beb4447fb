"""Trouble: what somebody should look at, the worst first, and what to type next."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.core.merge import Override
from controlplane.core.report import Seen, node_status
from controlplane.core.trouble import age_s, serves, serving, span, standing, troubles, why
from tests.controlplane.core.test_report import SINCE, backend, seen, status

NOW = datetime(2026, 1, 1, 0, 3, 5, tzinfo=UTC)


def ailing(key, state, cause="", **fields):
    """Make a backend in a state of health."""
    made = {**backend(key, health=state), **fields}
    made["health"]["cause"] = cause
    return made


def report(*backends, service=None, **more):
    """Make a node's status with one service."""
    body = status(*backends)
    body["services"]["web"] |= service or {}
    return node_status([seen(body)], (), **more)


def told(given_report):
    """Return level, word and command of each trouble."""
    return [(each.level, each.word, each.command) for each in troubles(given_report, NOW)]


def test_nothing_is_wrong():
    """A node as it should be has nothing to tell."""
    assert troubles(report(backend("a:1"), backend("b:1", health="unknown")), NOW) == []


def test_limits_that_are_not_divided_are_named():
    """The promise that all nodes keep is not kept; once the number is known, nothing is wrong."""
    limits = {"web": {"queue": {"limit": 9, "here": 9}}, "db": {"queue": {"limit": 9, "here": 9}}}
    told_of = report(backend("a:1")) | {"share": {"nodes": None, "limits": limits}}
    (one,) = troubles(told_of, NOW)
    assert (one.level, one.word, one.command) == ("warn", "not divided", "lb-control nodes")
    assert one.text == (
        "this node takes the limits of all nodes for its own, of db, web: it has never known how many nodes there are"
    )
    assert troubles(told_of | {"share": {"nodes": 1, "limits": limits}}, NOW) == []


def test_nodes_of_the_cluster_are_named():
    """Some of them, and how many more; while Consul is away, those of the last picture."""
    names = [f"n{number} is gone" for number in range(9)]
    source = {"name": "consul-cluster", "state": "ok", "since": SINCE, "cluster": "edge", "troubled": names}
    (one,) = troubles(report(backend("a:1"), sources=[source]), NOW)
    assert (one.level, one.word, one.command) == ("warn", "nodes", "lb-control nodes")
    assert one.text.startswith("of the cluster edge, n0 is gone, n1 is gone")
    assert one.text.endswith(" more")
    assert troubles(report(backend("a:1"), sources=[source | {"troubled": []}]), NOW) == []


def test_down_names_backends_cause_age_and_a_way_to_try_them():
    """Which, how many of how many, since when, why; the address is tried with nc."""
    (one,) = troubles(report(ailing("a:1", "down", "connection refused"), backend("b:1")), NOW)
    assert one.text == "web: 1 of 2: a:1 for 3m: connection refused"
    assert (one.level, one.word, one.command) == ("bad", "down", "nc -zvw 3 a 1")


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("[2001:db8::1]:80", "nc -zvw 3 2001:db8::1 80"),
        ("unix:/run/a b.sock", "nc -zvU '/run/a b.sock'"),
    ],
)
def test_every_kind_of_address_can_be_tried(address, command):
    """IPv6 without brackets, a socket by its path, quoted for a shell."""
    one, *_ = troubles(report(ailing("x", "ejected", "reset", address=address), backend("b:1")), NOW)
    assert (one.level, one.command) == ("warn", command)


def test_different_causes_are_told_apart_and_many_are_counted():
    """One cause stands once; different ones stand beside their backends; three are named."""
    two = report(ailing("a:1", "down", "refused"), ailing("b:1", "down", "timeout"), *map(backend, "cdef"))
    assert "a:1 (refused), b:1 (timeout)" in troubles(two, NOW)[0].text
    many = report(
        *(ailing(f"{n}:1", "down", "refused") for n in range(9)), *(backend(f"u{n}:1") for n in range(20))
    )
    assert "9 of 29: 0:1, 1:1, 2:1 and 6 more for 3m: refused" in troubles(many, NOW)[0].text


def met(connections, **harms):
    """Make what clients met."""
    return {"recent": {"window_s": 60.0, "connections": connections, "refused": {}, "cut": {}, **harms}}


@pytest.mark.parametrize(
    ("reason", "command"),
    [
        ("connect_failed", "nc -zvw 3 b 1"),
        ("no_backend", "lb-control explain web --client 192.0.2.1"),
        ("local_error", "ss -s; sysctl net.ipv4.ip_local_port_range"),
        ("queue_full", None),
    ],
)
def test_what_clients_met_comes_first(reason, command):
    """Every state may be as it should, and all clients be refused: that is said before anything else."""
    failing = {**backend("b:1"), "totals": {"connect_failures": 9}}
    given_report = report(
        backend("a:1"),
        failing,
        service=met(430, refused={reason: 412}),
        config_error={"path": "x", "message": "y", "details": [], "since": None},
    )
    first, *_ = troubles(given_report, NOW)
    assert (first.level, first.word, first.command) == ("bad", "not served", command)
    assert first.text.startswith(f"web: 412 of 430 clients in the last minute were refused: {reason}")


def test_cut_clients_are_said_with_a_word_of_their_own():
    """Resets of backends are no refusals."""
    assert told(report(backend(), service=met(100, cut={"backend_reset": 30}))) == [("warn", "cut off", None)]


@pytest.mark.parametrize(
    ("drain", "level", "word", "said"),
    [
        (
            {"phase": "lowered"},
            "note",
            "lowered",
            "ann takes this node out, lowered for 5m: routers and VRRP",
        ),
        ({"phase": "drained"}, "note", "drained", "ann takes this node out, drained for 5m: not ready"),
        ({"error": "node.json: damaged"}, "bad", "not ready", "node.json: damaged"),
    ],
)
def test_a_node_that_is_taken_out(drain, level, word, said):
    """Who, for how long, what that means, and what takes it back; unknown is as bad as not ready is."""
    since = (NOW - timedelta(minutes=5)).isoformat()
    given_drain = {"phase": None, "by": "ann", "since": since, "error": None, **drain}
    (one,) = troubles({**report(backend()), "drain": given_drain}, NOW)
    assert (one.level, one.word, one.command) == (level, word, "lb-control node enable")
    assert said in one.text
    assert troubles({**report(backend()), "drain": None}, NOW) == []


def test_contest_is_said_with_who_and_where():
    """Each push cuts clients; only on this machine can the other one be looked at by its pid."""
    contested = {
        "by": {"pid": 7, "host": "b"},
        "said_by": "lb-control run of root (pid 7 on b), from /etc/b.yaml",
        "here": True,
        "times": 5,
        "for_s": 200.0,
        "next_in_s": 8.0,
    }
    given_report = {**report(backend()), "converged": False, "contested": contested}
    (one,) = troubles(given_report, NOW)
    assert (one.level, one.word, one.command) == ("bad", "contested", "ps -fp 7")
    assert "lb-control run of root (pid 7 on b), from /etc/b.yaml" in one.text
    assert "5 times in 3m, and may be once more in 8s" in one.text
    (one,) = troubles({**given_report, "contested": {**contested, "here": False}}, NOW)
    assert one.command is None


def test_service_without_a_usable_backend_comes_before_all():
    """None is usable, or health is ignored: both are bad, and explained by explain."""
    explain = "lb-control explain web --client 192.0.2.1"
    drained = {**backend("a:1"), "state": "drain"}
    assert told(report(drained)) == [("bad", "no backend", explain)]
    panic = report(ailing("a:1", "down", "x"), backend("b:1"), service={"panic": True})
    assert [word for _, word, _ in told(panic)] == ["panic", "down"]
    assert told(report()) == [("warn", "empty", None)]


def test_panic_says_who_serves():
    """How many are healthy, how many serve all the same, and that the check may be what is wrong."""
    wrong = [ailing(name, "down", "http status 404") for name in ("a:1", "b:1")]
    gone = ailing("c:1", "down", "connection refused")
    for one in (*wrong, gone):
        one["health"]["reachable"] = one is not gone
    panic, down = troubles(report(*wrong, gone, service={"panic": True, "tier": 0}), NOW)
    assert panic.text == (
        "web: none of 3 backends healthy, so health is ignored: 2 that can be reached serve; the checks may be wrong"
    )
    assert "a:1 (http status 404, but reachable)" in down.text
    assert "c:1 (connection refused)" in down.text


@pytest.mark.parametrize(("panic", "tier", "count"), [(False, 0, 1), (True, 0, 2), (True, 1, 3)])
def test_who_gets_new_connections(panic, tier, count):
    """Who is healthy; in panic also who is reachable in the tier that serves, but nobody whom an operator took out."""
    first, second = ailing("b:1", "down", "x"), ailing("c:1", "ejected", "x", tier=1)
    third = ailing("d:1", "down", "x", tier=1)
    out, gone = {**ailing("e:1", "down", "x"), "state": "drain"}, ailing("f:1", "down", "x")
    gone["health"]["reachable"] = False
    backends = [backend("a:1"), first, second, third, out, gone]
    assert len(serving({"backends": backends, "panic": panic, "tier": tier})) == count


def test_why_tells_what_a_state_does_not():
    """Nothing of who is healthy; of an older data plane, which does not tell, nothing of reachability."""
    assert why(ailing("a:1", "up", "ok")) == why(ailing("a:1", "unknown", "not checked yet")) == ""
    assert why(ailing("a:1", "down", "http status 500")) == "http status 500"


def test_worst_is_first():
    """Bad, then warnings, then what somebody wanted."""
    overrides = [Override("web", "a:1", "state", "drain", "anna", SINCE)]
    body = status(ailing("a:1", "ejected", "x"), backend("b:1"), listener="paused")
    gone = Seen("b", "/run/b.sock", False, "nobody listens", 75.0, {**status(), "pid": 9, "name": "b"})
    node = node_status([seen(body), gone], overrides)
    assert [level for level, _, _ in told(node)] == ["bad", "warn", "warn", "note"]
    unreachable, *_, override = troubles(node, NOW)
    assert unreachable.text == "data plane b: nobody listens; its figures are 1m old"
    assert unreachable.command == "ss -xlp | grep -F /run/b.sock"
    assert override.text == "web/a:1 drain by anna for 3m"
    assert override.command == "lb-control enable web a:1"


def test_file_that_is_not_taken_is_told_once():
    """The configuration's error names the file to validate, and its source says it no second time."""
    error = {
        "path": "/etc/lb.yaml",
        "message": "two errors:\n  line 3\n  line 5",
        "details": [{"path": "", "message": "line 3", "line": 3, "column": 1}],
        "since": SINCE,
    }
    source = {"name": "file /etc/lb.yaml", "state": "error", "since": SINCE, "last_error": "line 3: nonsense"}
    node = report(backend(), sources=[source], config_error=error)
    assert told(node) == [("bad", "config error", "lb-control validate /etc/lb.yaml")]
    assert troubles(node, NOW)[0].text.endswith("what ran before goes on: two errors: line 3: line 5")


def test_valid_file_that_is_refused_is_to_be_planned():
    """Without a problem in the content validate would find nothing; plan asks those who refuse it."""
    error = {"path": "lb.yaml", "message": "a: cannot listen", "details": [], "since": SINCE}
    assert told(report(backend(), config_error=error)) == [("bad", "config error", "lb-control plan lb.yaml")]


@pytest.mark.parametrize(
    ("name", "command"), [("file /etc/lb.yaml", "lb-control apply /etc/lb.yaml"), ("consul-kv:lb", None)]
)
def test_stale_file_is_to_be_applied(name, command):
    """What somebody applied besides ends when the file's own content is applied."""
    source = {"name": name, "state": "stale", "since": SINCE, "last_error": None, "note": "what anna applied"}
    assert told(report(backend(), sources=[source])) == [("warn", "stale", command)]


@pytest.mark.parametrize(
    ("field", "value", "configured", "command"),
    [
        ("weight", 7, 2, "lb-control weight web a:1 2"),
        ("weight", 7, None, None),
        ("state", "drain", "enabled", "lb-control enable web a:1"),
        ("state", "drain", None, "lb-control enable web a:1"),
        ("state", "enabled", "disabled", "lb-control disable web a:1"),
        ("state", "enabled", None, None),
    ],
)
def test_override_is_taken_back_to_what_the_file_says(field, value, configured, command):
    """The command restores the configured value, as far as it is known."""
    backends = [] if configured is None else [{"id": "a:1", field: configured}]
    words = [Override("web", "a:1", field, value, "anna", SINCE)]
    node = node_status([seen(status(backend("a:1")))], words, configured={"web": {"backends": backends}})
    assert told(node) == [("note", "override", command)]


@pytest.mark.parametrize(
    ("url", "error", "command"),
    [
        (
            "http://h:7600",
            "refused: a valid bearer token is required",
            "lb-control --dataplane http://h:7600 --token-file FILE status",
        ),
        ("https://h:7600", "unreachable: timed out", "nc -zvw 3 h 7600"),
        ("https://h", "unreachable: timed out", None),
    ],
)
def test_data_plane_behind_a_url_is_no_process_here(url, error, command):
    """Its pid means nothing on this machine: the address is tried, or the token shown."""
    there = Seen("h", url, False, error, status=status(backend()))
    here = seen(status(backend()))
    assert told(node_status([here, there], ())) == [("bad", "unreachable", command)]


def test_paused_listener_names_the_processes_that_accept():
    """The limits are the workers': a supervisor may have others, and a pid behind a URL is another machine's."""
    body = status(backend(), workers=2, listener="paused")
    limits = "grep 'open files' /proc/0/limits /proc/1/limits"
    assert told(node_status([seen(body)], ())) == [("warn", "paused", limits)]
    contained = {**body, "pid": 1}
    assert told(node_status([seen(contained)], ())) == [("warn", "paused", None)], "its pids are its own"
    there = Seen("h", "http://h:7600", True, status=body)
    assert told(node_status([there], ())) == [("warn", "paused", None)]


def test_no_service_is_told():
    """An lb.yaml without services closes every listener: that may be meant, but is nothing to be quiet about."""
    body = status(backend())
    body["services"] = {}
    assert told(node_status([seen(body)], ())) == [("warn", "no service", "lb-control apply FILE")]
    gone = Seen("a", "/run/a.sock", False, "nobody listens", 75.0, body)
    assert [word for _, word, _ in told(node_status([gone], ()))] == ["unreachable"]


def test_held_source_says_what_is_kept_and_how_to_let_go():
    """How many, for how much longer; --force releases them."""
    held = {"why": "shrink", "missing": ["n1/a"], "count": 4, "seen": 1, "ends_in_s": 12.5, "since": SINCE}
    source = {"name": "consul redis", "state": "held", "since": SINCE, "last_error": None, "held": held}
    (one,) = troubles(report(backend(), sources=[source]), NOW)
    assert one.text == "consul redis for 3m: 4 that it no longer lists are kept for 12s more"
    assert one.command == "lb-control apply FILE --force"


def test_nothing_runs():
    """Without a data plane nothing is served: that is the first thing to know."""
    assert told(node_status([], ()))[0][:2] == ("bad", "nothing runs")


def test_standing_keeps_operators_and_health_apart():
    """What an operator took out is out, however healthy; unknown is usable."""
    assert standing({**backend(), "weight": 0}) == "out"
    assert standing({**backend(), "removed": True}) == "out"
    assert serves(backend(health="unknown"))
    assert not serves(backend(health="ejected"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (3599, "59m"), (7200, "2h"), (86400 * 9, "9d")],
)
def test_span_is_short(seconds, text):
    """The largest whole unit, never rounded up."""
    assert span(seconds) == text


def test_age_of_no_time_is_unknown():
    """A clock that is ahead makes no negative age; no time makes none."""
    assert age_s("2026-01-01T00:03:00.000Z", NOW) == 5.0
    assert age_s("2027-01-01T00:00:00.000Z", NOW) == 0.0
    assert age_s(None, NOW) is None
    assert age_s("2026-01-01T00:03:00", NOW) is None


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"), min_size=1))
def test_whatever_a_backend_is_called_a_command_is_one_command(key, cause):
    """Discovery's names are quoted: a shell sees one word, and runs nothing else."""
    body = report(ailing(key, "down", cause, address=f"unix:{key}"), backend("b:1"))
    (one,) = troubles(body, NOW)
    assert one.command is not None
    assert shlex.split(one.command) == ["nc", "-zvU", key]


def test_service_that_nobody_serves_is_told_once():
    """It comes first, with the reason; its source has the same to say, and another one is told all the same."""
    sources = [
        {
            "name": "consul:wbe",
            "state": "error",
            "since": SINCE,
            "services": ["db"],
            "last_error": "no instance",
        },
        {
            "name": "consul:api",
            "state": "error",
            "since": SINCE,
            "services": ["db", "web"],
            "last_error": "no token",
        },
    ]
    given_report = report(backend("a:1"), sources=sources)
    given_report["unserved"] = [{"service": "db", "why": "no instance"}]
    assert [each.text for each in troubles(given_report, NOW)] == [
        "service db is not served: no instance",
        "consul:api for 3m: no token",
    ]
    nothing = node_status([seen(status())], ())
    nothing["services"] = {}
    assert [each.word for each in troubles(nothing, NOW)] == ["no service"]
    assert [each.word for each in troubles(nothing | {"unserved": given_report["unserved"]}, NOW)] == [
        "not served"
    ]


def test_certificates_are_seen_to():
    """One that ends soon, and one that could not be renewed; what holds for long is no trouble."""

    def certificate(days, **said):
        ends = (NOW + timedelta(days=days)).isoformat()
        usual = {"place": "tls.certificates[0]", "cert": "/a.pem", "names": ["a.example"]}
        return {**usual, "ends": ends, "not_renewed": "", "key_readable_by_all": False, **said}

    certificates = [certificate(90), certificate(0.5), certificate(90, not_renewed="/k is no good")]
    found = troubles(report(backend("a:1"), service={"certificates": certificates}), NOW)
    assert [(each.level, each.word) for each in found] == [("bad", "certificate"), ("warn", "not renewed")]
