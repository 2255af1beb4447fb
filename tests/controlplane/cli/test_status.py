"""Services that an operator names are those that are shown; why a client gets a backend, readiness, a restart of workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli.status import explain, only, ready, restart
from controlplane.core.drain import Turn
from controlplane.errors import LateError, RefusedError, UnknownError, UnreachableError
from controlplane.operations.drain_file import DrainFile
from tests.controlplane.cli.given import Given, run

NAMES = ("api-1", "api-2", "db", "web")
REPORT = {
    "generation": 7,
    "services": {name: {"active": len(name)} for name in NAMES},
    "overrides": [{"service": "db", "id": "a"}, {"service": "web", "id": "b"}],
}

ANSWER: dict[str, Any] = {
    "service": "web",
    "client": "192.0.2.7",
    "panic": False,
    "candidates": [{"id": "b", "address": "10.0.0.2:80"}, {"id": "a", "address": "10.0.0.1:80"}],
    "skipped": [{"id": "c", "reason": "drain"}],
}
NOBODY = UnreachableError("x", "nobody listens")
REFUSED = RefusedError("b", 503, {"message": "draining"})


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        ((), NAMES),
        (("web",), ("web",)),
        (("api-*",), ("api-1", "api-2")),
        (("w*", "db", "web"), ("db", "web")),
        (("[wd]*",), ("db", "web")),
        (("*",), NAMES),
    ],
)
def test_only_what_was_named(chosen, left):
    """Names and patterns choose services and their overrides; the rest of a status stays, and the order too."""
    shown = only(REPORT, chosen)
    assert tuple(shown["services"]) == left
    assert [each["service"] for each in shown["overrides"]] == [
        name for name in ("db", "web") if name in left
    ]
    assert shown["generation"] == 7
    assert tuple(REPORT["services"]) == NAMES


@pytest.mark.parametrize(
    ("count", "said"), [(0, "there are none"), (3, "there are: s0, s1, s2"), (11, "s5, s6 and 3 more")]
)
def test_what_does_not_exist(count, said):
    """One name without a service is an error that tells which there are, whatever the others match."""
    services = {f"s{number}": {} for number in range(count)}
    report = {"services": services, "overrides": [], "dataplanes": [{"error": None}]}
    with pytest.raises(UnknownError, match=rf"no service matches 'wbe'; .*{said}"):
        only(report, [*report["services"], "wbe"])


def test_who_does_not_answer_is_shown_instead():
    """Nothing is known of any service then: that one does not exist would be a guess."""
    report = {"services": {}, "overrides": [], "dataplanes": [{"error": "401: no_token"}]}
    assert only(report, ["web"]) is report


def test_candidates_come_in_their_order_and_the_others_with_their_reason() -> None:
    """One line each, numbered; whoever is skipped has no number."""
    result = run(explain, Given(a=ANSWER), "web", "--client", "192.0.2.7")
    assert result.exit_code == 0
    title, _, *rows = [line.split() for line in result.stdout.splitlines()]
    assert " ".join(title) == "web for 192.0.2.7:"
    assert rows == [
        ["1", "b", "10.0.0.2:80"],
        ["2", "a", "10.0.0.1:80"],
        ["-", "c", "skipped:", "drain"],
    ]


def test_panic_is_said() -> None:
    """Otherwise nobody would understand why a sick backend is a candidate."""
    result = run(explain, Given(a={**ANSWER, "panic": True}), "web", "--client", "192.0.2.7")
    assert result.stdout.startswith("web for 192.0.2.7; panic: health is ignored:\n")


def test_an_address_is_asked_for_in_its_one_form() -> None:
    """However it was written; what is none is refused before anybody is asked."""
    given = Given(a=ANSWER)
    run(explain, given, "web", "--client", "2001:DB8:0::7")
    assert given.asked[0][:2] == ("GET", "/v1/explain?service=web&client=2001%3Adb8%3A%3A7")
    result = run(explain, given, "web", "--client", "somebody")
    assert (result.exit_code, len(given.asked)) == (2, 1)
    assert "--client: 'somebody' does not appear to be" in result.stderr


def test_a_name_leads_to_a_service() -> None:
    """It is asked for with what the client would say, and each address tells where that leads."""
    routes = [{"address": "0.0.0.0:443", "service": "web"}, {"address": "[::]:443", "service": None}]
    given = Given(a={**ANSWER, "routes": routes})
    more = ["--sni", "www.example.com", "--alpn", "h2", "--alpn", "http/1.1"]
    result = run(explain, given, "--client", "192.0.2.7", *more)
    assert given.asked[0][1] == "/v1/explain?client=192.0.2.7&sni=www.example.com&alpn=h2&alpn=http%2F1.1"
    assert result.stdout.splitlines()[:3] == [
        "0.0.0.0:443: web",
        "[::]:443: closed with no_route",
        "web for 192.0.2.7:",
    ]
    result = run(explain, given, "--client", "192.0.2.7")
    assert (result.exit_code, len(given.asked)) == (2, 1)
    assert "name a service" in result.stderr


@pytest.mark.parametrize("as_json", [False, True])
def test_the_first_that_answers_is_believed(*, as_json: bool) -> None:
    """One that is away keeps nobody from an answer."""
    result = run(explain, Given(x=NOBODY, a=ANSWER), "web", "--client", "192.0.2.7", *["--json"][:as_json])
    assert (result.exit_code, result.stderr) == (0, "")
    if as_json:
        assert json.loads(result.stdout) == ANSWER


def test_without_an_answer_each_says_why() -> None:
    """On stderr, with 1."""
    result = run(explain, Given(x=NOBODY, y=NOBODY), "web", "--client", "192.0.2.7")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "x: unreachable: nobody listens\ny: unreachable: nobody listens\n"


def test_all_are_ready() -> None:
    """0, and each says so; they are asked for their readiness, for two seconds."""
    given = Given(a={}, b={})
    result = run(ready, given)
    assert (result.exit_code, result.stdout) == (0, "a: ready\nb: ready\n")
    assert given.asked == [("GET", "/readyz", 2.0)] * 2


@pytest.mark.parametrize(
    ("error", "words"), [(REFUSED, "draining"), (LateError("b", 2.0), "no answer within 2 s")]
)
def test_one_that_is_not_is_named_with_its_reason(error: Exception, words: str) -> None:
    """1; the reason is on stderr, for it goes to a log."""
    result = run(ready, Given(a={}, b=error), "--timeout", "1s")
    assert (result.exit_code, result.stdout) == (1, "a: ready\n")
    assert result.stderr == f"b: not ready: {words}\n"


def test_quiet_says_nothing() -> None:
    """Only the exit code tells."""
    result = run(ready, Given(a={}, b=REFUSED), "-q")
    assert (result.exit_code, result.output) == (1, "")


def test_a_node_that_is_taken_out(tmp_path: Path) -> None:
    """Lowered it is ready, but not preferred; from withdrawn on it is not ready, whatever its data planes say."""
    record = DrainFile(tmp_path)
    given = Given(a={}, record=record)
    assert run(ready, given, "--preferred").exit_code == 0
    record.turn(Turn.LOWER, "ann")
    result = run(ready, given)
    assert result.exit_code == 0
    assert result.stdout.startswith("a: ready\nlowered, by ann since ")
    result = run(ready, given, "--preferred")
    assert (result.exit_code, result.stderr[:7]) == (1, "lowered")
    record.turn(Turn.WITHDRAW, "ann")
    for options in ((), ("--preferred",)):
        result = run(ready, given, *options)
        assert (result.exit_code, result.stdout) == (1, "a: ready\n")
        assert result.stderr.startswith("not ready: withdrawn: by ann since ")


def test_every_data_plane_is_told() -> None:
    """Two minutes for each, unless another time is given."""
    given = Given(a={}, b={})
    result = run(restart, given)
    assert (result.exit_code, result.stdout) == (
        0,
        "a: all workers were replaced\nb: all workers were replaced\n",
    )
    assert given.asked == [("POST", "/v1/restart", 120.0)] * 2
    run(restart, given, "--timeout", "300ms")
    assert given.asked[-1] == ("POST", "/v1/restart", 0.3)


def test_one_that_fails_keeps_no_other_from_being_told() -> None:
    """It is named on stderr, and the exit code is 1."""
    given = Given(a=LateError("a", 120), b={})
    result = run(restart, given)
    assert (result.exit_code, result.stdout) == (1, "b: all workers were replaced\n")
    assert result.stderr == "a: no answer within 120 s\n"
    assert len(given.asked) == 2
