"""The benchmark's own arithmetic, texts and pictures, and one real run of it."""

import copy
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.support.backends import LineServer
from tests.support.wait import wait_for
from tools.bench import __main__ as bench
from tools.bench import costs, loads, parse, plan, report, scrape
from tools.bench.build import HERE, ROOT, compiled
from tools.bench.changes import ChangeStudy
from tools.bench.charts import Line, bars, curve
from tools.bench.child import Child, Failed
from tools.bench.contenders import CONTENDERS, launch, render
from tools.bench.control import Api, RuntimeSocket
from tools.bench.costs import CollectorStudy, PartsStudy
from tools.bench.figures import Summary, ratio, shown, summarise
from tools.bench.memory import MemoryStudy
from tools.bench.quota import Quotas
from tools.bench.registration import RegistrationStudy
from tools.bench.scrape import DIVIDED, ScrapeStudy
from tools.bench.servers import echo_servers
from tools.bench.services import ServicesStudy
from tools.bench.study import Metric, Pace, run_study
from tools.bench.targets import TARGETS, Target, outcome, steadiness
from tools.bench.workers import WorkersStudy

pytestmark = pytest.mark.needs("cc")

WRK = """Running 1s test @ http://127.0.0.1:4000/
  1 threads and 64 connections
  Latency Distribution
     50%  822.00us
     75%    1.10ms
     90%    1.25ms
     99%    1.60ms
  41234 requests in 1.10s, 6.21MB read
  Socket errors: connect 1, read 2, write 0, timeout 4
Requests/sec:  37485.45
Transfer/sec:      5.65MB
"""
PGBENCH = """pgbench (15.18)
number of transactions actually processed: 12345
number of failed transactions: 0 (0.000%)
latency average = 0.312 ms
initial connection time = 12.402 ms
tps = 25641.025641 (without initial connection time)
"""
NGINX_VARIABLES = {"$ssl_preread_server_name", "$chosen"}
"""What looks like a placeholder in a configuration, and is none."""
REDIS = (
    '"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms",'
    '"max_latency_ms"\n"SET","40000.00","0.6","0.1","0.5","0.9","1.0","2.0"\n'
    '"GET","60000.00","0.6","0.1","0.7","0.9","3.0","2.0"\n'
)


# -- figures ------------------------------------------------------------------------------------------


def test_summary_is_median_and_range_in_the_order_of_turns():
    """The median of an even number of turns is between the middle two; the values stay in their order."""
    assert summarise([4.0, 1.0, 3.0, 2.0]) == Summary(2.5, 1.0, 4.0, (4.0, 1.0, 3.0, 2.0))
    assert summarise([]) is None


@pytest.mark.parametrize(("one", "other", "times"), [(3.0, 2.0, 1.5), (None, 2.0, None), (3.0, None, None), (3.0, 0.0, None)])  # fmt: skip
def test_ratio_needs_both(one, other, times):
    """There is no ratio to nothing."""
    assert ratio(one, other) == times


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12345.6, "12,300"), (999.96, "1,000"), (4.567, "4.57"), (0.03125, "0.0312"), (9.999, "10.0"),
     (-9.87, "-9.87"), (float("nan"), "-")],
)  # fmt: skip
def test_figures_have_three_digits(value, text):
    """What is rounded up to another digit loses one behind the point."""
    assert shown(value) == text


# -- what load programs print -------------------------------------------------------------------------


def test_wrk_is_read():
    """Latencies come in microseconds whatever their unit, and all kinds of errors are added up."""
    figures = parse.wrk(WRK)
    assert figures == {
        "work": 41234, "rate": 37485.45, "errors": 7, "p50_us": 822, "p90_us": 1250, "p99_us": 1600,
    }  # fmt: skip


def test_pgbench_is_read():
    """Transactions, their rate and the mean latency."""
    assert parse.pgbench(PGBENCH) == {"work": 12345, "rate": 25641.025641, "mean_us": 312, "errors": 0}


def test_redis_benchmark_is_read():
    """The rate over several tests is that of all their requests in all their time: the harmonic mean."""
    figures = parse.redis_benchmark(REDIS, 1000)
    assert figures["work"] == 2000
    assert figures["rate"] == pytest.approx(48_000)
    assert figures["p99_us"] == pytest.approx(2000)


def test_iperf_is_read():
    """Gigabytes that arrived, not those that were sent; its own errors are errors."""
    end = {"sum_sent": {"bytes": 3e9}, "sum_received": {"bytes": 2e9, "bits_per_second": 16e9}}
    assert parse.iperf(json.dumps({"end": end})) == {"work": 2.0, "rate": 2.0, "errors": 0.0}
    with pytest.raises(ValueError, match="busy"):
        parse.iperf('{"error": "the server is busy"}')


@pytest.mark.parametrize("read", [parse.wrk, parse.pgbench, lambda text: parse.redis_benchmark(text, 1)])
def test_other_text_is_an_error(read):
    """A program that printed something else gives no figures."""
    with pytest.raises(ValueError, match=r"no "):
        read("unable to connect")


# -- the load generator and the relay -----------------------------------------------------------------


def _load(*words):
    done = subprocess.run([compiled("load"), *map(str, words)], capture_output=True, text=True, check=True)
    return parse.load(done.stdout)


@pytest.mark.parametrize("mode", ["echo", "connect"])
@pytest.mark.parametrize("size", [16, 300_000])
def test_every_operation_through_the_relay_succeeds(mode, size):
    """The relay passes on small messages, and large ones, which need back-pressure, on both kinds of connection."""
    with ExitStack() as stack:
        address = launch("relay", echo_servers(stack), stack).address
        figures = _load(mode, address, 4, size, 0.1, 0, 0)
    assert figures["work"] > 0
    assert figures["errors"] == 0


def test_an_open_loop_makes_what_is_due():
    """At 1,000 per second for 0.2 s there are 200 operations, none of the warm-up's among them."""
    with ExitStack() as stack:
        figures = _load("echo", echo_servers(stack)[0], 8, 16, 0.2, 0.1, 1000)
    assert figures["operations"] == pytest.approx(200, abs=1)
    assert figures["total"] == pytest.approx(300, abs=1)
    assert figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"]


def test_a_stall_is_charged_for_everybody_who_would_have_come():
    """A server that never answers costs all operations that were due, not just one for each connection."""
    with LineServer("silent") as server:
        figures = _load("echo", server.address, 2, 16, 0.1, 0, 500)  # no newline: it waits for one
    assert figures["unfinished"] == pytest.approx(50, abs=1)
    assert figures["operations"] == figures["unfinished"]
    assert figures["p50_us"] > 1_000_000


def test_refused_connections_are_errors():
    """Nobody listening is no operation, but an error."""
    with ExitStack() as stack:
        address = echo_servers(stack)[0]
    figures = _load("connect", address, 1, 16, 0.05, 0, 100)
    assert figures["errors"] > 0
    assert figures["operations"] == 0


# -- contenders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(name for name, who in CONTENDERS.items() if who.config))
def test_templates_name_nothing_that_nobody_fills_in(name):
    """Each configuration is complete with the values that `launch` gives."""
    contender = CONTENDERS[name]
    words = (
        "listen",
        "host",
        "port",
        "directory",
        "balance",
        "files",
        "connections",
        "services",
        "certificates",
        "name",
    )
    values = dict.fromkeys(words, "7")
    for file in filter(None, (contender.config, contender.further)):
        text = render(
            file, contender.backend_line, ["127.0.0.1:81", "127.0.0.1:82"], {**values, **contender.more}
        )
        assert set(re.findall(r"\$\w*", text)) <= NGINX_VARIABLES
    assert "81" in text
    assert "82" in text


def test_a_program_that_ends_at_once_says_why(tmp_path):
    """What it wrote last is in the reason why a contender is missing."""
    with (
        Child(["sh", "-c", "echo no such option; exit 1"], tmp_path) as child,
        pytest.raises(Failed, match="no such option"),
    ):
        child.wait_listening(1)


def test_a_child_takes_its_children_along(tmp_path):
    """What a program started ends with it, even if it would rather not."""
    pid = tmp_path / "pid"
    script = "trap '' TERM; sleep 60 & echo $! >pid; wait"
    with Child(["sh", "-c", script], tmp_path) as child:
        wait_for(lambda: pid.exists() and pid.read_text().endswith("\n"), "a grandchild")
        os.kill(child.pid, signal.SIGKILL)
    grandchild = Path(f"/proc/{pid.read_text().strip()}/stat")
    wait_for(lambda: not grandchild.exists() or ") Z " in grandchild.read_text(), "its end")


# -- studies ------------------------------------------------------------------------------------------


class FakeStudy:
    """Notes who had a turn; the third contender is missing, the second one fails in its second turn."""

    name = title = note = "fake"
    metrics = (Metric("rate", "rate", "1/s", "more", 2.0),)
    contenders = ("direct", "relay", "haproxy")
    thorough = True
    fresh = False

    def __init__(self):
        self.turns = []

    def open(self, stack):
        """Nothing is shared."""

    def prepare(self, name, stack):
        """Return what notes a turn."""
        if name == "haproxy":
            raise Failed("not installed")
        stack.callback(self.turns.append, (name, 0.0))

        def sample(seconds):
            self.turns.append((name, seconds))
            if name == "relay" and len(self.turns) > 3:
                raise Failed("broken")
            return {"rate": float(len(self.turns))}

        return sample


PACE = Pace(rounds=2, seconds=2.0, warm_up_s=1.0, brief_rounds=1, brief_seconds=0.5)


def test_turns_are_interleaved_after_an_uncounted_one():
    """A B, A B, B A; the first turn is for warming up; who fails or is missing is named, and the others go on."""
    study = FakeStudy()
    said = []
    result = run_study(study, PACE, said.append)
    assert study.turns == [
        ("direct", 1.0), ("relay", 1.0), ("direct", 2.0), ("relay", 2.0), ("direct", 2.0), ("relay", 0.0), ("direct", 0.0),
    ]  # fmt: skip
    assert result["rows"]["direct"]["rate"] == {
        "median": 8.0,
        "low": 6.0,
        "high": 10.0,
        "values": [6.0, 10.0],
    }
    assert result["missing"] == {
        "C relay, the floor": "failed after 0 turns: broken",
        "HAProxy": "not installed",
    }
    assert len(said) == 2
    assert "relay" not in result["rows"]


def test_every_other_round_goes_backwards():
    """So that whoever comes last is not always measured on the machine of a moment later."""
    study = FakeStudy()
    study.contenders = ("direct", "nginx")
    run_study(study, PACE, lambda _line: None)
    turns = [name for name, seconds in study.turns if seconds]
    assert turns == ["direct", "nginx", "direct", "nginx", "nginx", "direct"]


@pytest.mark.parametrize(
    ("rounds", "starts", "in_each"), [(6, 3, [2, 2, 2]), (4, 3, [1, 1, 2]), (2, 5, [1, 1])]
)
def test_contenders_are_started_anew_within_a_study(rounds, starts, in_each):
    """Each start has its uncounted turn and its share of the rounds; the turns of all starts are counted together."""
    study = FakeStudy()
    study.contenders = ("direct",)
    result = run_study(study, Pace(rounds, 2.0, 1.0, 1, 0.5, starts), lambda _line: None)
    assert study.turns == [
        turn for count in in_each for turn in [("direct", 1.0), *[("direct", 2.0)] * count, ("direct", 0.0)]
    ]
    assert len(result["rows"]["direct"]["rate"]["values"]) == rounds
    assert result["starts"] == len(in_each)


def test_who_has_failed_is_not_started_again():
    """A contender that is missing, or failed in a turn, stays out of the further starts; the others have all theirs."""
    study = FakeStudy()
    result = run_study(study, Pace(6, 2.0, 1.0, 1, 0.5, 3), lambda _line: None)
    assert len(result["rows"]["direct"]["rate"]["values"]) == 6
    assert [name for name, seconds in study.turns if not seconds].count("relay") == 1
    assert set(result["missing"]) == {"C relay, the floor", "HAProxy"}


def test_a_curve_is_drawn_briefly_and_a_fresh_process_needs_no_warm_up():
    """What is behind no target has fewer and shorter turns; what each turn starts anew has no uncounted one."""
    study = FakeStudy()
    study.thorough, study.fresh = False, True
    result = run_study(study, PACE, lambda _line: None)
    assert [turn for turn in study.turns if turn[1]] == [("direct", 0.5), ("relay", 0.5)]
    assert (result["rounds"], result["seconds"]) == (1, 0.5)


def test_a_study_that_breaks_is_reported_and_ends_nothing():
    """Even a bug of the study's own is a reason in the results, and costs neither its rows nor the run."""
    study = FakeStudy()

    def broken(stack):
        stack.callback(lambda: {}["gone"])

    study.open = broken
    result = run_study(study, PACE, lambda _line: None)
    assert result["missing"]["the study"] == "KeyError: 'gone'"
    assert result["rows"]["direct"]["rate"]["values"] == [6.0, 10.0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("ours-off", Api), pytest.param("haproxy", RuntimeSocket, marks=pytest.mark.needs("haproxy"))],
)
def test_weights_arrive(name, kind):
    """What sets weights, one by one or all at once, does so: a backend of weight 0 gets nobody, and who is unknown is refused."""
    with ExitStack() as stack:
        one, two = (stack.enter_context(LineServer(f"s{i}")) for i in range(2))
        running = launch(name, [one.address, two.address], stack)
        control = kind(running.directory, stack)
        for change, left in (
            (lambda: control.set_weight(0, 0), "s1"),
            (control.prepare_all({0: 5, 1: 0}), "s0"),
            (control.prepare_patch({0: 0, 1: 7}), "s1"),
        ):
            change()
            assert {_who(running.address) for _ in range(4)} == {left}
        with pytest.raises(Failed):
            control.set_weight(7, 1)


def _who(address):
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client, client.makefile("rwb") as stream:
        stream.write(b"hello\n")
        stream.flush()
        return stream.readline().decode().partition(":")[0]


def test_a_real_run_measures_us_and_the_floor(tmp_path):
    """Echoes, idle connections and changes give a figure in each row, and a document with all of them."""
    studies = [
        loads.LoadStudy(
            "echo", "Echo", "", loads.OPERATION_METRICS, ("relay", "ours-off"), "echo", loads.echoes()
        ),
        MemoryStudy(("relay",), connections=1000),
        ChangeStudy(("ours-off",), backends=10, changes=5),
    ]
    pace = Pace(rounds=1, seconds=0.2, warm_up_s=0.1, brief_rounds=1, brief_seconds=0.2)
    results = bench.run(studies, pace, quick=True, keep=tmp_path / "kept.json")
    assert json.loads((tmp_path / "kept.json").read_text()) == json.loads(json.dumps(results))
    assert [study["missing"] for study in results["studies"]] == [{}] * 3
    echo, memory, weights = (study["rows"] for study in results["studies"])
    for row in echo.values():
        assert row["errors"] == 0
        assert row["rate"]["median"] > 0
    assert memory["relay"]["per_connection"]["median"] > 0
    assert weights["ours-off"]["change_ms"]["median"] > 0
    report.write(json.loads(json.dumps(results)), tmp_path / "performance.md")
    text = (tmp_path / "performance.md").read_text()
    assert "| ours, pool off, " in text
    for line in text.splitlines():
        if line.startswith("!["):
            chart = tmp_path / line.rpartition("(")[2].removesuffix(")")
            ET.parse(chart)  # noqa: S314 - we wrote it


@pytest.mark.parametrize(
    "study",
    [
        ServicesStudy(("ours-off",), services=3),
        PartsStudy(PartsStudy.contenders[-1:]),
        ScrapeStudy(("ours-off", DIVIDED)),
        pytest.param(RegistrationStudy(("ours-off",)), marks=pytest.mark.needs("consul")),
    ],
    ids=lambda study: study.name,
)
def test_a_study_measures_all_its_figures(study, monkeypatch):
    """Each contender of each study has every figure that its table promises."""
    monkeypatch.setattr(scrape, "_BACKENDS", 20)
    result = run_study(study, Pace(1, 0.1, 0.1, 1, 0.1), lambda _line: None)
    assert result["missing"] == {}
    assert list(result["rows"]) == list(study.contenders)
    for row in result["rows"].values():
        assert {metric.key for metric in study.metrics} <= row.keys()


def test_python_collects_while_connections_open_and_a_tuned_process_does_not(monkeypatch):
    """What is reported are the collector's own pauses: with Python's defaults there are some, tuned there are none."""
    monkeypatch.setattr(costs, "_FLOWS", 1_000)
    study = CollectorStudy(("ours-gc-tuned", "ours-gc-default"))
    rows = run_study(study, Pace(1, 0.1, 0.1, 1, 0.1), lambda _line: None)["rows"]
    assert rows["ours-gc-tuned"]["count"]["median"] == 0
    assert rows["ours-gc-default"]["count"]["median"] > 0
    for row in rows.values():
        assert {metric.key for metric in study.metrics} <= row.keys()


def test_a_quota_holds_for_whom_it_is_for_and_is_gone_afterwards(tmp_path):
    """A process is in its group with its share, and afterwards lives on in ours. Where there are no quotas, the reason is said."""
    with Child(["sleep", "60"], tmp_path) as child, ExitStack() as stack:
        group = Path(f"/proc/{child.pid}/cgroup")
        before = group.read_text()
        controllers = {name for line in before.splitlines() for name in line.split(":")[1].split(",")}
        if os.geteuid() != 0 or "cpu" not in controllers:
            with pytest.raises(Failed, match=r"(?i)quota"):
                Quotas(stack)
            return
        quotas = Quotas(stack)
        quotas.limit(child.pid, "process", 0.25)
        assert "lb-bench-" in group.read_text()
        with pytest.raises(Failed, match="no CPU quota for thread"):
            quotas.limit(0x7FFFFFFF, "thread", 0.25)
        stack.close()
        assert group.read_text() == before


@pytest.mark.needs("haproxy")
def test_workers_are_found_and_measured():
    """Processes of ours and threads of HAProxy's, with the share that each has used of what it may; or the reason why not."""
    study = WorkersStudy(("haproxy-2", "ours-2"), "echo")
    result = run_study(study, Pace(1, 0.3, 0.1, 1, 0.3), lambda _line: None)
    if "everybody" in result["missing"]:
        assert "quota" in result["missing"]["everybody"].lower()
        return
    assert result["missing"] == {}
    for row in result["rows"].values():
        assert row["used"]["median"] > 0


def test_the_command_names_its_studies():
    """`python -m tools.bench` runs from a checkout, and its help lists what --only takes."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.bench", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert {"keepalive", "costs", "workers"} <= set(re.findall(r"[\w-]+", done.stdout))


# -- the document -------------------------------------------------------------------------------------

ROW = {"median": 2.0, "low": 1.0, "high": 3.0, "values": [1.0, 2.0, 3.0]}
OTHER = {"median": 3.0, "low": 2.0, "high": 6.0, "values": [2.0, 3.0, 6.0]}
RATE = {"key": "rate", "title": "operations", "unit": "1/s", "better": "more"}
RESULTS = {
    "machine": {
        "when": "2026-01-01T00:00:00+00:00", "commit": "abc", "processor": "any", "cores": 2, "memory_gib": 1.0,
        "kernel": "6.1", "load_before": 0.0, "versions": {"Python": "3.11"}, "interpreter": "CPython 3.11",
    },
    "pace": {"rounds": 3, "seconds": 1.0, "warm_up_s": 0.1, "brief_rounds": 2, "brief_seconds": 0.5, "starts": 2},
    "quick": False,
    "took_s": 60.0,
    "studies": [
        {
            "name": "keepalive", "title": "Requests", "note": "How.", "missing": {"Envoy": "cannot be had"},
            "metrics": [RATE],
            "rows": {
                "haproxy": {"errors": 0, "rate": ROW},
                "ours-preconnect": {"errors": 1, "rate": OTHER},
            },
        },
    ],
}  # fmt: skip


def test_the_document_compares_with_haproxy_and_names_the_missing():
    """Each cell has median, range and ratio; targets are met, missed or not measured; missing peers have reasons."""
    text = report.markdown(RESULTS)
    assert "| ours, preconnect | 3.00 x1.50<br><small>2.00 to 6.00</small> | 1 |" in text
    assert "| keep-alive requests/s (ratio to HAProxy) | at least 1.00 | 2.00 | 1.50 to 2.00 | met |" in text
    assert "1 of the 1 that were measured are met." in text
    assert "| not measured | - | - |" in text
    assert "Ours runs on CPython 3.11" in text
    assert "- Envoy: cannot be had (Requests)" in text


@pytest.mark.parametrize(
    ("want", "of", "bound", "reached", "met"),
    [
        ("at least", "ratio", 2.0, 2.0, True),
        ("at most", "ratio", 1.9, 2.0, False),
        ("at most", "difference", 1.0, 1.0, True),
        ("at least", "value", 4.0, 3.0, False),
    ],
)
def test_targets_are_judged_by_their_kind(want, of, bound, reached, met):
    """A bound is on the median of the turns, or of their ratios or differences to another's of the same round; exactly the bound is met."""
    target = Target("t", "keepalive", "rate", "ours-preconnect", bound, want, of)
    result = outcome(target, {"keepalive": RESULTS["studies"][0]})
    assert (result.reached.median, result.met) == (pytest.approx(reached), met)


def test_pairs_are_steadier_where_slow_rounds_hit_both():
    """If a round is slow for both alike, its ratio is that of the others: chance moves it by nothing."""
    slow = [1.0, 4.0, 2.0, 3.0]
    rows = {
        "haproxy": {"rate": {"values": slow}},
        "ours-preconnect": {"rate": {"values": [1.5 * value for value in slow]}},
    }
    paired, unpaired = steadiness({"keepalive": {"rows": rows}})
    assert paired == pytest.approx(0)
    assert unpaired > 0.1
    assert steadiness({}) is None


def test_every_target_and_curve_has_its_study():
    """What the document promises, a full run measures: study, metric and both contenders."""
    studies = {study.name: study for study in plan.in_forms(plan.full(), None)}
    assert len(studies) == len(plan.full())
    for target in TARGETS:
        study = studies[target.study]
        assert target.metric in {metric.key for metric in study.metrics}
        assert {target.who, target.against} <= {
            *study.contenders,
            *(["haproxy"] if target.of == "value" else []),
        }
        assert study.thorough
    for family in plan.FAMILIES:
        for _, name in family.studies:
            assert {shape.metric for shape in family.curves} <= {
                metric.key for metric in studies[name].metrics
            }
    assert {name for names in plan.GROUPS.values() for name in names} <= set(studies)
    for study in (*plan.full(), *plan.quick()):
        if study.name not in {"parts", "scrape"}:  # they have rows of their own
            assert set(study.contenders) <= set(CONTENDERS)


def test_studies_of_one_family_share_a_table_and_its_curves(tmp_path):
    """What differs in one number is one section: a line for each number and contender, and no chart of its own."""
    results = copy.deepcopy(RESULTS)
    one = results["studies"][0]
    metric = {**RATE, "key": "proxy_cpu", "title": "CPU", "unit": "µs"}
    for number in (1, 10):
        row = {"errors": 0, "proxy_cpu": ROW}
        rows = {"haproxy": row, "ours-off": copy.deepcopy(row)}
        results["studies"].append(
            {**one, "name": f"services-{number}", "metrics": [metric], "rows": rows, "missing": {}}
        )
    report.write(results, tmp_path / "performance.md")
    text = (tmp_path / "performance.md").read_text()
    assert text.count("### Short connections and the number of services") == 1
    assert "| 10 | ours, pool off | 2.00 x1.00<br><small>1.00 to 3.00</small> |" in text
    assert {chart.name for chart in (tmp_path / "performance").iterdir()} == {
        "keepalive.svg",
        "curve-services.svg",
    }


def test_a_written_document_replaces_the_charts_of_the_one_before(tmp_path):
    """A study that is no longer made leaves no chart behind."""
    report.write(RESULTS, tmp_path / "performance.md")
    other = copy.deepcopy(RESULTS)
    other["studies"][0]["name"] = "another"
    report.write(other, tmp_path / "performance.md")
    assert [chart.name for chart in (tmp_path / "performance").iterdir()] == ["another.svg"]


def test_charts_are_pictures():
    """Bars and curves are well-formed, name their contenders, and take figures that are all alike."""
    drawn = [
        bars("A & B", RATE, {"haproxy": ROW, "ours-off": {"median": 0.0, "low": 0.0, "high": 0.0}}),
        curve(
            "C",
            "n",
            RATE,
            [Line("haproxy", ((1, 10.0), (10, 10.0))), Line("ours-off", ((1, 10.0), (10, 10.0)))],
        ),
    ]
    for text in drawn:
        root = ET.fromstring(text)  # noqa: S314 - we wrote it
        words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        assert {"HAProxy", "ours, pool off"} <= words


def test_c_sources_compile_without_a_warning():
    """All six programs are clean with the usual warnings as errors."""
    sources = [str(source) for source in sorted(HERE.glob("*.c"))]
    assert len(sources) == 6
    subprocess.run(["cc", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *sources], check=True)
