"""The benchmark's rows about forms, networks, starts and changes with workers: their parts, and one real run of each."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.wait import wait_for
from tools.bench import acknowledged, build, contenders, parse, plan, report
from tools.bench.acknowledged import AcknowledgedStudy
from tools.bench.build import compiled, form
from tools.bench.child import Child, Failed, cpu_s, memory_kib
from tools.bench.contenders import CONTENDERS, form_of, launch
from tools.bench.flowing import while_flowing
from tools.bench.loads import LATENCY_METRICS, Pressure, connects
from tools.bench.servers import echo_servers
from tools.bench.start import StartStudy
from tools.bench.study import Pace, run_study
from tools.bench.targets import TARGETS, Target, outcome
from tools.bench.veth import Namespaces, VethStudy

pytestmark = pytest.mark.needs("cc")

PACE = Pace(1, 0.1, 0.1, 1, 0.1)
FIGURES = {"median": 2.0, "low": 1.0, "high": 3.0, "values": [1.0, 2.0, 3.0]}
RATE = {"key": "rate", "title": "operations", "unit": "1/s", "better": "more"}


def study_of(rows, forms):
    """Return the results of a study of connections."""
    return {
        "name": "connect", "title": "Connections", "note": "How.", "missing": {}, "metrics": [RATE], "forms": forms,
        "rows": {name: {"errors": 0, "rate": dict(figures)} for name, figures in rows.items()},
    }  # fmt: skip


# -- what a process has used --------------------------------------------------------------------------


def test_a_process_has_used_the_time_of_all_its_threads():
    """CPU of threads counts that live and that have ended, and a process that has gone has none."""
    script = (
        "import sys, threading, time\n"
        "def work(seconds):\n"
        "    while time.thread_time() < seconds: pass\n"
        "ended = threading.Thread(target=work, args=(0.2,)); ended.start(); ended.join()\n"
        "def stay(): work(0.2); print('done', flush=True); sys.stdin.read()\n"
        "threading.Thread(target=stay).start()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"done\n"
        used = cpu_s(process.pid)
        process.stdin.close()
    assert used > 0.35
    assert cpu_s(process.pid) == 0


def test_memory_is_read_by_its_kind():
    """What a process shares with nobody is a part of its share of everything."""
    own = memory_kib(os.getpid(), "Private_Clean", "Private_Dirty")
    assert 0 < own <= memory_kib(os.getpid()) + 4
    assert own == memory_kib(os.getpid(), "Private_Clean") + memory_kib(os.getpid(), "Private_Dirty")


# -- forms of our data plane --------------------------------------------------------------------------


@pytest.fixture
def speaking(monkeypatch, tmp_path):
    """Have `lb-dataplane --version` answer a text; another one, if it is asked to run interpreted."""

    def speak(text, interpreted):
        program = tmp_path / "lb-dataplane"
        program.write_text(
            f'#!/bin/sh\n[ "$LIVELB_INTERPRETED" = 1 ] && echo "{interpreted}" || echo "{text}"\n'
        )
        program.chmod(0o755)
        monkeypatch.setattr(build, "ours", lambda: str(program))
        form.cache_clear()

    monkeypatch.delenv("LIVELB_INTERPRETED", raising=False)
    yield speak
    form.cache_clear()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("lb-dataplane, version 1.0, compiled", "compiled"),
        ("lb-dataplane, version 1.0 (compiled)", "compiled"),
        ("lb-dataplane, version 1.0, interpreted", "interpreted"),
        ("interpreted, as nothing has been compiled", "interpreted"),
        ("lb-dataplane, version 0.1.0", "interpreted"),
    ],
)
def test_the_program_says_its_form(speaking, text, found):
    """What it says with --version is its form; one that says nothing has never been compiled."""
    speaking(text, "interpreted")
    assert form() == found
    assert (form_of("ours-off"), form_of("ours-off-interpreted")) == (found, "interpreted")
    assert form_of("haproxy") is None
    assert form_of("of a study's own") is None


def test_a_row_that_says_interpreted_is(speaking, monkeypatch):
    """If the program stays compiled although it should not, its row is missing instead of wrong."""
    speaking("version 1, compiled", "version 1, compiled")
    monkeypatch.setattr(contenders, "ours", build.ours)
    with ExitStack() as stack, pytest.raises(Failed, match="does not run interpreted"):
        launch("ours-off-interpreted", ["127.0.0.1:9"], stack)


def test_each_of_ours_can_run_in_both_forms():
    """Whatever runs our data plane has a twin, alike but for its form."""
    ours = [name for name, who in CONTENDERS.items() if who.program == "ours"]
    given = [name for name in ours if not name.endswith("-interpreted")]
    assert sorted(ours) == sorted([*given, *(f"{name}-interpreted" for name in given)])
    for name in given:
        one, other = CONTENDERS[name], CONTENDERS[f"{name}-interpreted"]
        assert other.environment == {**one.environment, "LIVELB_INTERPRETED": "1"}
        assert (one.command, one.more) == (other.command, other.more)


@pytest.mark.parametrize(
    ("forms", "connect", "bulk"),
    [
        (None, ["ours-off", "ours-off-interpreted"], ["ours-off"]),
        ("installed", ["ours-off"], ["ours-off"]),
        ("interpreted", ["ours-off-interpreted"], ["ours-off-interpreted"]),
        ("both", ["ours-off", "ours-off-interpreted"], ["ours-off", "ours-off-interpreted"]),
    ],
)
def test_rows_are_made_in_the_forms_that_are_wanted(forms, connect, bulk):
    """Without a wish both forms run where targets are about them; peers run once whatever is wanted."""
    studies = {study.name: study.contenders for study in plan.in_forms(plan.full(), forms)}
    assert [name for name in studies["connect"] if name.startswith("ours-off")] == connect
    assert [name for name in studies["bulk-up"] if name.startswith("ours-off")] == bulk
    assert studies["connect"].count("haproxy") == 1
    assert list(studies["parts"]) == list(plan.full()[-3].contenders)


def test_the_document_says_the_form_of_each_row():
    """A row of ours names its form, and so does a target; those of peers have none."""
    forms = {"ours-off": "compiled", "ours-off-interpreted": "interpreted"}
    study = study_of(dict.fromkeys(("haproxy", *forms), FIGURES), forms)
    results = {
        "machine": {
            "when": "2026-01-01T00:00:00+00:00", "commit": "abc", "processor": "any", "cores": 2, "memory_gib": 1.0,
            "kernel": "6.1", "load_before": 0.0, "versions": {}, "interpreter": "CPython 3.11", "form": "compiled",
        },
        "pace": {"rounds": 3, "seconds": 1.0, "brief_rounds": 2, "brief_seconds": 0.5, "starts": 2},
        "quick": False, "took_s": 60.0, "studies": [study],
    }  # fmt: skip
    text = report.markdown(results)
    assert "| ours, pool off, compiled | 2.00 x1.00<br>" in text
    assert "| ours, pool off, interpreted | 2.00 x1.00<br>" in text
    assert "| HAProxy | 2.00<br>" in text
    assert "Ours runs on CPython 3.11; it is compiled" in text
    assert "| connect-send-receive-close/s, off, compiled (ratio to HAProxy) | at least 1.00 | 1.00 |" in text
    assert (
        "| connect-send-receive-close/s, off, interpreted (ratio to HAProxy) | at least 0.850 | 1.00 |"
        in text
    )
    lines = report.verdicts(results)
    assert len(lines) == 2
    assert all(line.startswith("met ") for line in lines)


@pytest.mark.parametrize(
    ("rows", "forms", "reached"),
    [
        (("ours-off", "ours-off-interpreted"), {"ours-off": "compiled"}, 1.0),
        (("ours-off",), {"ours-off": "interpreted"}, 1.0),
        (("ours-off",), {"ours-off": "compiled"}, None),
        (("ours-off",), {}, None),
    ],
)
def test_where_ours_is_installed_interpreted_that_row_is_the_interpreted_one(rows, forms, reached):
    """A target for the interpreted form is judged by its own row, or else by one that is known to be interpreted."""
    target = Target("t", "connect", "rate", "ours-off-interpreted", 0.85, "at least")
    study = study_of(dict.fromkeys(("haproxy", *rows), FIGURES), forms)
    result = outcome(target, {"connect": study})
    assert (None if result.reached is None else result.reached.median) == reached


def test_what_is_wanted_of_a_connection():
    """The bounds on a connection's rate and CPU, on loopback and over a network, and for the interpreted form."""
    bounds = {
        (target.study, target.metric, target.who): (target.want, target.bound)
        for target in TARGETS
        if target.study in {"connect", "veth"}
    }
    for study in ("connect", "veth"):
        for mode, rate, cpu in (("off", 1.0, 1.0), ("preconnect", 1.0, 1.0), ("reuse", 1.7, 0.57)):
            assert bounds.pop((study, "rate", f"ours-{mode}")) == ("at least", rate)
            assert bounds.pop((study, "proxy_cpu", f"ours-{mode}")) == ("at most", cpu)
    assert set(bounds.values()) == {("at least", 0.85)}


# -- studies ------------------------------------------------------------------------------------------


def test_a_load_that_is_told_to_end_counts_until_then():
    """SIGTERM is the end of its time: what was due before it is in the figures, and what would have come later is not."""
    with ExitStack() as stack:
        address = echo_servers(stack)[0]
        argv = [compiled("load"), "echo", address, "4", "16", "60", "0", "1000"]
        load = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
        wait_for(lambda: handles(load.pid, signal.SIGTERM), "its handler")
        load.terminate()
        output, _ = load.communicate(timeout=30)
    figures = parse.load(output)
    assert load.returncode == 0
    assert figures["seconds"] < 60
    assert figures["operations"] == pytest.approx(figures["seconds"] * 1000, abs=2)
    assert figures["unfinished"] <= 4


def handles(pid, number):
    """Tell whether a process has a handler for a signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def test_messages_flow_while_something_is_done():
    """What is done has its figures beside those of the messages, which end with it."""
    with ExitStack() as stack:
        figures = while_flowing(echo_servers(stack)[0], lambda: {"mine": 7.0})
    assert figures["mine"] == 7.0
    assert figures["operations"] > 0
    assert figures["errors"] == 0


def test_namespaces_are_gone_afterwards_even_those_of_a_run_that_was_killed(tmp_path):
    """They go with their stack; what a killed run has left, the next one removes. Without root the reason is said."""
    if os.geteuid() != 0:
        with ExitStack() as stack, pytest.raises(Failed, match="root"):
            Namespaces(stack)
        return
    with Child(["sleep", "60"], tmp_path) as child:
        gone = child.pid
        subprocess.run(["ip", "netns", "add", f"lb-bench-{gone}-proxy"], check=True)
    with ExitStack() as stack:
        spaces = Namespaces(stack)
        one, other = spaces.add("one"), spaces.add("other")
        spaces.wire((one, "10.79.0.1"), (other, "10.79.0.2"), "between")
        there = {path.name for path in Path("/run/netns").iterdir()}
        assert {one, other} <= there
        assert f"lb-bench-{gone}-proxy" not in there
        shown = subprocess.run(
            ["ip", "-n", other, "-br", "address"], capture_output=True, text=True, check=True
        )
        assert "10.79.0.2/24" in shown.stdout
    assert not {one, other} & {path.name for path in Path("/run/netns").iterdir()}


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_connections_cross_the_wires():
    """Every connection from the client's namespace is answered from the backends'."""
    result = run_study(VethStudy(("relay", "ours-off")), PACE, lambda _line: None)
    assert result["missing"] == {}
    for row in result["rows"].values():
        assert row["errors"] == 0
        assert row["rate"]["median"] > 0
        assert row["proxy_cpu"]["median"] > 0


def test_a_start_is_timed_and_weighed():
    """One process has its memory, a supervisor and its workers have theirs, and each has a first client."""
    result = run_study(StartStudy(("relay", "ours-off", "ours-off-2")), PACE, lambda _line: None)
    assert result["missing"] == {}
    rows = result["rows"]
    assert rows["relay"]["memory"]["median"] < rows["ours-off"]["memory"]["median"]
    both = rows["ours-off-2"]
    assert both["memory"]["median"] == pytest.approx(
        both["supervisor"]["median"] + 2 * both["worker"]["median"], rel=0.2
    )
    assert 0 < both["worker_own"]["median"] <= both["worker"]["median"]
    assert all(row["start_ms"]["median"] > 0 for row in rows.values())


@pytest.mark.parametrize("what", ["one", "all", "sticky", "patch", "first"])
def test_changes_are_acknowledged_with_two_workers(monkeypatch, what):
    """Each kind of change has all figures of its table."""
    kind = acknowledged._KINDS[what]
    monkeypatch.setattr(acknowledged, "_KINDS", {what: acknowledged._Kind(20, kind.title, kind.how)})
    who = "ours-sticky-2" if what == "sticky" else "ours-off-2"
    study = AcknowledgedStudy((who,), what)
    result = run_study(study, PACE, lambda _line: None)
    assert result["missing"] == {}
    assert {metric.key for metric in study.metrics} <= result["rows"][who].keys()
    assert result["rows"][who]["errors"] == 0


def test_a_tail_is_measured_at_a_share_of_the_yardstick():
    """The rate is that share of what the yardstick can do, and the same for all."""
    study = Pressure(
        "tail", "Tail", "", LATENCY_METRICS, ("relay", "direct"), "echo", connects(),
        share=0.2, mode="connect", connections=128, yardstick="relay",
    )  # fmt: skip
    result = run_study(study, PACE, lambda _line: None)
    assert result["missing"] == {}
    rows = result["rows"]
    assert rows["relay"]["rate"]["median"] == pytest.approx(rows["direct"]["rate"]["median"], rel=0.05)
    assert 0 < rows["relay"]["busy"]["median"] < 2 * 100
