"""What becomes of a file: what is said of a plan and an apply, and with which exit code; the past, and back to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli.files import apply, history, plan, rollback, validate
from controlplane.errors import InputError
from controlplane.operations.options import ApplyOptions
from schemas.variables import Variables
from tests.controlplane.cli.given import Given, run

VALID = 'version: 1\nservices: {web: {listen: ":80", backends: ["127.0.0.1:1"]}}\n'
CHANGE = {"action": "add", "kind": "service", "service": "web"}
IMPACT = {"listeners": [], "drain": [], "pool": [], "remap": {}}


def row(name: str, result: str, **more: Any) -> dict[str, Any]:
    """Return how one data plane took it."""
    return {"name": name, "result": result, "generation": 7, "hash": "a" * 64, "error": None, **more}


class Gateway:
    """Answers every plan and apply with one report.

    Args:
        rows: How the data planes took it.
        report: What else is different from an apply that went well.
    """

    def __init__(self, *rows: dict[str, Any], **report: Any) -> None:
        self._report = {
            "changes": [CHANGE],
            "impact": IMPACT,
            "dataplanes": list(rows),
            "warnings": [],
            "unserved": [],
            "converged": True,
            "generation": 7,
            **report,
        }
        self.options: list[ApplyOptions] = []

    def look(self, *_: object) -> Variables:
        """Let the daemon fill in what the node knows."""
        return Variables(placeholders=True)

    def plan(self, _proposal: object, options: ApplyOptions) -> dict[str, Any]:
        """Return the report."""
        self.options.append(options)
        return self._report

    apply = plan


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A valid file."""
    path = tmp_path / "lb.yaml"
    path.write_text(VALID)
    return str(path)


def test_a_valid_file_is_counted(file: str) -> None:
    """0; a script is told in JSON."""
    assert run(validate, None, file).stdout == f"{file}: valid, 1 service\n"
    told = {"valid": True, "problems": [], "variables": {}, "warnings": []}
    assert json.loads(run(validate, None, file, "--json").stdout) == told


EVERYWHERE = 'version: 1\nservices: {web: {listen: "${NODE_IP}:80", backends: []}}\n'


def test_variables_of_a_node_are_given_or_have_placeholders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands in is said; --node comes before the environment; what does not fit is wrong as anywhere."""
    monkeypatch.delenv("NODE_IP", raising=False)
    path = tmp_path / "lb.yaml"
    path.write_text(EVERYWHERE)
    said = f"{path}: with placeholders for what each node knows: NODE_IP=192.0.2.1; set them with --node\n"
    assert run(validate, None, str(path)).stdout == f"{path}: valid, 1 service\n{said}"
    monkeypatch.setenv("NODE_IP", "10.0.0.1")
    assert run(validate, None, str(path)).stdout == f"{path}: valid, 1 service\n"
    told = json.loads(run(validate, None, str(path), "--node", "NODE_IP=10.0.0.2", "--json").stdout)
    assert told["variables"] == {"NODE_IP": {"value": "10.0.0.2", "source": "--node"}}
    with pytest.raises(InputError, match=r'lb.yaml:2:26: services.web.listen: .*"x\.256" \(--node\)'):
        run(validate, None, str(path), "--node", "NODE_IP=x.256")
    for wrong in ("NODE_IP", "NODE_IP=", "IP=10.0.0.1", "NODE_TOKEN=x"):
        assert "NODE_IP=10.0.0.1" in run(validate, None, str(path), "--node", wrong).stderr


def test_what_a_daemon_finds_wrong_has_the_lines_of_the_file(tmp_path: Path) -> None:
    """The command checks with placeholders; only the daemon knows its node."""

    class Daemon(Gateway):
        def plan(self, _proposal: object, _options: ApplyOptions) -> dict[str, Any]:
            raise InputError(
                "", [{"path": "services.web.listen", "message": "is not known", "line": 1, "column": 9}]
            )

        apply = plan

    path = tmp_path / "lb.yaml"
    path.write_text(EVERYWHERE)
    for command in (plan, apply):
        with pytest.raises(InputError, match=r"lb.yaml:2:26: services.web.listen: is not known"):
            run(command, Given(gateway=Daemon()), str(path))


def test_an_invalid_file_has_all_its_problems(tmp_path: Path) -> None:
    """2; each with its place."""
    path = tmp_path / "lb.yaml"
    path.write_text("version: 1\nservices:\n  web: {listen: nowhere, mod: rr}\n")
    result = run(validate, None, str(path), "--json")
    told = json.loads(result.stdout)
    assert (result.exit_code, told["valid"]) == (2, False)
    assert {(each["line"], each["path"]) for each in told["problems"]} >= {
        (3, "services.web.listen"),
        (3, "services.web.mod"),
    }
    with pytest.raises(InputError):
        run(validate, None, str(path))


@pytest.mark.parametrize(
    ("gateway", "arguments", "code"),
    [
        (Gateway(row("a", "ok")), (), 0),
        (Gateway(row("a", "ok")), ("--detailed-exitcode",), 3),
        (Gateway(row("a", "ok"), changes=[]), ("--detailed-exitcode",), 0),
        (Gateway(row("a", "ok"), row("b", "refused", error="refused: no")), ("--detailed-exitcode",), 1),
        (Gateway(row("a", "ok"), unserved=[{"service": "web"}]), ("--detailed-exitcode",), 1),
        (Gateway(), (), 0),
    ],
)
def test_the_exit_code_of_a_plan(gateway: Gateway, arguments: tuple[str, ...], code: int, file: str) -> None:
    """1 before 3: a change that somebody would refuse is none to be made."""
    assert run(plan, Given(gateway=gateway), file, *arguments).exit_code == code


def test_a_plan_names_who_would_refuse(file: str) -> None:
    """On stderr; what would change is on stdout."""
    result = run(plan, Given(gateway=Gateway(row("a", "ok"), row("b", "refused", error="refused: no"))), file)
    assert result.stdout == "+ service web\n"
    assert result.stderr == "b: refused: no; it runs generation 7 (aaaaaaaaaaaa)\n"


def test_a_plan_without_data_planes_says_with_what_it_compared(file: str) -> None:
    """It is the difference to what was applied last."""
    assert "compared with what was applied last" in run(plan, Given(gateway=Gateway()), file).stderr


@pytest.mark.parametrize(
    ("rows", "report", "code", "out", "err"),
    [
        ([row("a", "ok")], {}, 0, "generation 7 runs on 1 data plane\n", ""),
        ([row("a", "ok"), row("b", "ok")], {}, 0, "generation 7 runs on 2 data planes\n", ""),
        ([], {}, 0, "generation 7 runs on no data plane yet\n", ""),
        (
            [row("a", "ok")],
            {"unserved": [{"service": "x"}], "kept": True},
            1,
            "generation 7 runs on 1 data plane\n",
            "not served: x; the daemon serves it when that is mended\n",
        ),
        (
            [row("a", "ok"), row("b", "refused", error="refused: no", generation=6)],
            {"converged": False},
            1,
            "",
            (
                "b: refused: no; it runs generation 6 (aaaaaaaaaaaa)\n"
                "partly applied: 1 of 2 data planes run generation 7; apply again to repair it\n"
            ),
        ),
        (
            [row("a", "late", error="no answer within 30 s", generation=None)],
            {"converged": False, "kept": True},
            1,
            "",
            (
                "a: no answer within 30 s\n"
                "the daemon keeps it, and pushes it when a answers again; to take it back: lb-control rollback\n"
            ),
        ),
    ],
)
def test_what_is_said_of_an_apply(
    rows: list[dict[str, Any]], report: dict[str, Any], code: int, out: str, err: str, file: str
) -> None:
    """Who runs it, who does not and why, what to do about it; and what a daemon will still do."""
    result = run(apply, Given(gateway=Gateway(*rows, **report)), file)
    assert (result.exit_code, result.stdout, result.stderr) == (code, f"+ service web\n{out}", err)


def test_options_of_an_apply_reach_whoever_does_it(file: str) -> None:
    """In seconds and shares; and a script gets the report as it is."""
    gateway = Gateway(row("a", "ok"))
    result = run(apply, Given(gateway=gateway), file, "--timeout", "2m", "--max-remap", "5%", "--json")
    assert gateway.options == [ApplyOptions(120.0, 0.05, False)]
    assert json.loads(result.stdout)["generation"] == 7


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (apply, ("--wait",), "--wait needs --to"),
        (apply, ("--to", "consul-kv:lb", "--wait", "--take-back"), "exclude each other"),
        (plan, ("--to", "consul-kv:lb", "--force"), "--force has no meaning with --to"),
        (apply, ("--to", "consul-kv:lb/edge", "--max-remap", "5%"), "--max-remap needs to know the nodes"),
        (apply, ("--to", "consul-kv:lb/edge", "--wait"), "has no cluster: add cluster: {name: NAME}"),
        (apply, ("--to", "consul-kv:lb/edge", "--canary", "1"), "--canary needs to know the nodes"),
        (plan, ("--to", "consul-kv:lb/edge"), "plan --to needs to know the nodes"),
    ],
)
def test_options_that_make_no_sense(command: Any, arguments: tuple[str, ...], said: str, file: str) -> None:
    """2; each is named."""
    result = run(command, Given(), file, *arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.stderr


def entry(generation: int, changes: int = 1, more: int = 0) -> dict[str, Any]:
    """Return what was applied once."""
    change = {"action": "add", "kind": "backend", "service": "web"}
    return {
        "generation": generation,
        "when": f"2026-01-01T00:00:{generation:02}.000Z",
        "origin": "apply",
        "by": "root\x1b[31m",
        "changes": [{**change, "id": f"b{number}"} for number in range(changes)],
        "more": more,
    }


class Past:
    """A gateway that knows what was, and takes note of who wants to go back."""

    def __init__(self, *entries: dict[str, Any], warnings: tuple[str, ...] = ()) -> None:
        self._report = {"history": list(entries), "warnings": list(warnings)}
        self.asked: list[tuple[int | None, ApplyOptions]] = []

    def history(self) -> dict[str, Any]:
        """Return it."""
        return self._report

    def rollback(self, generation: int | None, options: ApplyOptions) -> dict[str, Any]:
        """Return as what a data plane without changes does."""
        self.asked.append((generation, options))
        impact: dict[str, Any] = {"listeners": [], "drain": [], "pool": [], "remap": {}}
        done = {"converged": True, "dataplanes": [], "unserved": [], "warnings": []}
        return {"restored": generation or 1, "generation": 3, "changes": [], "impact": impact, **done}


def test_each_generation_has_its_lines() -> None:
    """When, whence, by whom; then what changed, a handful of it; nothing that a terminal would obey."""
    result = run(history, Given(gateway=Past(entry(1), entry(2, changes=7, more=2))))
    assert result.stdout.splitlines() == [
        "1  2026-01-01 00:00:01  apply  root\\x1b[31m",
        "    + backend web/b0",
        "2  2026-01-01 00:00:02  apply  root\\x1b[31m",
        *(f"    + backend web/b{number}" for number in range(5)),
        "    and 4 more",
    ]


def test_the_newest_so_many() -> None:
    """The oldest of them first, for scripts as well."""
    given = Given(gateway=Past(*map(entry, (1, 2, 3))))
    shown = json.loads(run(history, given, "--limit", "2", "--json").stdout)
    assert [each["generation"] for each in shown] == [2, 3]
    assert run(history, given, "--limit", "0").exit_code == 2


def test_nothing_was_applied() -> None:
    """Said, unless it is only unknown: then the warning says it."""
    assert run(history, Given(gateway=Past())).stdout == "nothing was applied yet\n"
    result = run(history, Given(gateway=Past(warnings=("line 3 is broken",))))
    assert (result.stdout, result.stderr) == ("", "warning: line 3 is broken\n")


def test_a_rollback_names_what_it_went_back_to() -> None:
    """With a number, or to the content before; options of an apply hold."""
    past = Past()
    result = run(rollback, Given(gateway=past), "41", "--max-remap", "10%", "--timeout", "5s", "--force")
    assert result.exit_code == 0
    assert result.stdout.startswith("back to the content of generation 41\n")
    assert run(rollback, Given(gateway=past)).exit_code == 0
    assert past.asked == [(41, ApplyOptions(5.0, 0.1, True)), (None, ApplyOptions(30.0, None, False))]
    assert json.loads(run(rollback, Given(gateway=past), "--json").stdout)["restored"] == 1


def test_files_of_tls_that_are_not_in_order_are_warned_of(tmp_path: Path) -> None:
    """With the path that the data plane will look at; the file is valid all the same, for it may be for another machine."""
    path = tmp_path / "lb.yaml"
    path.write_text(
        "version: 1\nservices: {web: {listen: ':443', backends: ['127.0.0.1:1'],"
        " tls: {certificates: [{cert: a.pem, key: a.key}]}}}\n"
    )
    result = run(validate, None, str(path))
    assert (result.exit_code, result.stdout) == (0, f"{path}: valid, 1 service\n")
    assert result.stderr.splitlines() == [
        f"warning: services.web.tls.certificates[0].{key}: {tmp_path}/a.{end} is not on this machine"
        for key, end in (("cert", "pem"), ("key", "key"))
    ]
    assert len(json.loads(run(validate, None, str(path), "--json").stdout)["warnings"]) == 2
