"""Replacing workers: each data plane is told, one after the other, and whoever did not do it is named."""

from __future__ import annotations

from controlplane.cli.restart import restart
from controlplane.errors import LateError
from tests.controlplane.cli.given import Given, run


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
