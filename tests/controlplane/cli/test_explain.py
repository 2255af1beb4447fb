"""Why a client gets the backends that it gets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controlplane.cli.explain import explain
from controlplane.errors import UnreachableError
from tests.controlplane.cli.given import Given, run

ANSWER: dict[str, Any] = {
    "service": "web",
    "client": "192.0.2.7",
    "panic": False,
    "candidates": [{"id": "b", "address": "10.0.0.2:80"}, {"id": "a", "address": "10.0.0.1:80"}],
    "skipped": [{"id": "c", "reason": "drain"}],
}
NOBODY = UnreachableError("x", "nobody listens")


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
