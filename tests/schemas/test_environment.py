from __future__ import annotations

import pytest

from schemas.desired import resolve
from schemas.environment import desired_from_environment
from schemas.errors import InvalidDocument


def service(**environ):
    """Return the one service that variables make."""
    desired = desired_from_environment(environ)
    assert desired is not None
    return resolve(desired, {})["default"]


def problems(**environ):
    """Return the problems of a refusal."""
    with pytest.raises(InvalidDocument) as caught:
        desired_from_environment(environ)
    assert all(problem.line is None for problem in caught.value.problems)
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN": ":1"}, {"BACKENDS": ""}, {"BACKENDS": " "}, {"PATH": "/bin", "POOL_SIZE": "5"}]
)
def test_without_backends_there_is_nothing_to_do(environ):
    """No BACKENDS: wait for a snapshot, whatever else is set."""
    assert desired_from_environment(environ) is None


def test_backends_are_enough():
    """Addresses alone make a balancer on port 4000, with the defaults of lb.yaml."""
    made = service(BACKENDS="10.0.0.1:80, 10.0.0.2:80,")
    assert made.listen == ("0.0.0.0:4000",)
    assert [backend.id for backend in made.backends] == ["10.0.0.1:80", "10.0.0.2:80"]
    assert (made.mode, made.pool.mode, made.timeouts.connect) == ("rr", "preconnect", 2.0)


def test_every_variable_has_its_place():
    """The names of the predecessor set what they set there."""
    made = service(
        BACKENDS="a:1",
        LISTEN="[::1]:5000",
        LB_MODE="sticky",
        POOL_MODE="off",
        POOL_SIZE="7",
        PROXY_V1="yes",
        DIAL_TIMEOUT="250ms",
        IDLE_TIMEOUT="1m30s",
        IO_TIMEOUT="0",
        HEALTH_EVERY="5s",
    )
    assert made.listen == ("[::1]:5000",)
    assert made.mode == "sticky"
    assert (made.pool.mode, made.pool.max_idle, made.pool.idle_timeout) == ("off", 7, 90.0)
    assert made.proxy_protocol.send == "v1"
    assert (made.timeouts.connect, made.timeouts.idle) == (0.25, 0.0)
    assert (made.health.active.type, made.health.active.interval) == ("tcp", 5.0)


@pytest.mark.parametrize(
    ("text", "send"),
    [
        ("1", "v1"),
        ("TRUE", "v1"),
        ("on", "v1"),
        ("0", "off"),
        ("false", "off"),
        ("No", "off"),
        ("off", "off"),
        ("", "off"),
    ],
)
def test_booleans_have_four_spellings(text, send):
    """1, true, yes, on and their opposites; empty is unset."""
    assert service(BACKENDS="a:1", PROXY_V1=text).proxy_protocol.send == send


def test_checking_never_is_no_check():
    """An interval of zero switches active checks off."""
    assert service(BACKENDS="a:1", HEALTH_EVERY="0").health.active.type == "none"


@pytest.mark.parametrize("also", [{}, {"BACKENDS": "a:1"}])
@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("LISTEN", "4000", "with a port"),
        ("LISTEN", ":0", "1 to 65535"),
        ("LB_MODE", "roundrobin", "rr, sticky"),
        ("POOL_MODE", "on", "off, preconnect, reuse"),
        ("POOL_SIZE", "many", "whole number"),
        ("POOL_SIZE", "-1", "whole number"),
        ("POOL_SIZE", "99999999", "at most"),
        ("PROXY_V1", "2", "1, true, yes, on"),
        ("DIAL_TIMEOUT", "5", "duration"),
        ("IDLE_TIMEOUT", "-5s", "duration"),
        ("IO_TIMEOUT", "never", "duration"),
        ("HEALTH_EVERY", "2", "duration"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_its_variable(variable, text, message, also):
    """Never a silent default, with or without BACKENDS."""
    found = problems(**{variable: text}, **also)
    assert list(found) == [variable]
    assert message in found[variable]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",", "at least one address"),
        ("a", "with a port"),
        ("a:1,b:x", "1 to 65535"),
        ("a:1,a:1", "same address"),
    ],
)
def test_wrong_backends_are_named(text, message):
    """Each address is checked."""
    assert message in problems(BACKENDS=text)["BACKENDS"]


def test_all_wrong_variables_are_named():
    """One start shows every mistake."""
    assert set(problems(BACKENDS="a", LISTEN="x", PROXY_V1="2", POOL_SIZE="x", IO_TIMEOUT="1")) == {
        "BACKENDS",
        "LISTEN",
        "PROXY_V1",
        "POOL_SIZE",
        "IO_TIMEOUT",
    }


def test_reuse_and_proxy_v1_exclude_each_other_by_name():
    """The refusal names both variables, for either could be the mistake."""
    found = problems(BACKENDS="a:1", POOL_MODE="reuse", PROXY_V1="1")
    assert list(found) == ["PROXY_V1"]
    assert "POOL_MODE=reuse" in found["PROXY_V1"]


@pytest.mark.parametrize("environ", [{}, {"LISTEN": "127.0.0.1:4000"}, {"LISTEN": "*:4000"}])
def test_the_balancer_as_its_own_backend(environ):
    """A backend that leads back is refused as everywhere else, and so is the default address to listen on."""
    assert "itself listens" in problems(BACKENDS="10.0.0.1:4000,127.0.0.1:4000", **environ)["BACKENDS"]
