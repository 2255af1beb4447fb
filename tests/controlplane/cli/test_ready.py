"""Whether this node may receive traffic: an exit code, and a line for each data plane."""

from __future__ import annotations

import pytest

from controlplane.cli.ready import ready
from controlplane.errors import LateError, RefusedError
from tests.controlplane.cli.given import Given, run

REFUSED = RefusedError("b", 503, {"message": "draining"})


def test_all_are_ready() -> None:
    """0, and each says so; they are asked for their readiness, for two seconds."""
    given = Given(a={}, b={})
    result = run(ready, given)
    assert (result.exit_code, result.stdout) == (0, "a: ready\nb: ready\n")
    assert given.asked == [("GET", "/readyz", 2.0)] * 2


@pytest.mark.parametrize("error", [REFUSED, LateError("b", 2.0)])
def test_one_that_is_not_is_named_with_its_reason(error: Exception) -> None:
    """1; the reason is on stderr, for it goes to a log."""
    result = run(ready, Given(a={}, b=error), "--timeout", "1s")
    assert (result.exit_code, result.stdout) == (1, "a: ready\n")
    assert result.stderr == f"b: not ready: {error}\n"


def test_quiet_says_nothing() -> None:
    """Only the exit code tells."""
    result = run(ready, Given(a={}, b=REFUSED), "-q")
    assert (result.exit_code, result.output) == (1, "")
