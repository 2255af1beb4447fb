"""What a service may say of itself: what contradicts itself, and the one form of what can be written in several."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from schemas.options import (
    ActiveCheck,
    Drain,
    ExpectCheck,
    Health,
    HttpCheck,
    Limits,
    PassiveCheck,
    Pool,
    ProxyProtocol,
    Timeouts,
)


def refusal(model: Any, **given: Any) -> str:
    """Return why a model does not take something."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(given)
    return str(caught.value)


@pytest.mark.parametrize(
    "model", [ActiveCheck, Drain, Health, HttpCheck, Limits, PassiveCheck, Pool, ProxyProtocol, Timeouts]
)
def test_nothing_need_be_said(model: Any) -> None:
    """All has a default, which is itself something that can be said."""
    made = model()
    assert model.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (Pool, {"min_idle": 3, "max_idle": 2}, "3 is above max_idle, which is 2"),
        (PassiveCheck, {"ejection": "10m"}, "is above max_ejection"),
        (ActiveCheck, {"type": "expect"}, "is required with type expect"),
        (ProxyProtocol, {"accept": "required"}, "must not be empty with accept required"),
    ],
)
def test_what_contradicts_itself_is_refused(model: Any, given: dict[str, Any], words: str) -> None:
    """And said, with what it contradicts."""
    assert words in refusal(model, **given)


def test_bounds_may_be_equal() -> None:
    """A pool of one size, ejections of one length."""
    assert Pool(min_idle=5, max_idle=5).max_idle == 5
    assert PassiveCheck.model_validate({"ejection": "300s"}).ejection == 300.0


@pytest.mark.parametrize(
    ("written", "normal", "ranges"),
    [
        ([200], (200,), ((200, 200),)),
        ([204, 200], (200, 204), ((200, 200), (204, 204))),
        ([200, 201, 202], ("200-202",), ((200, 202),)),
        (["200-299", "300-399"], ("200-399",), ((200, 399),)),
        (["200-399", 250], ("200-399",), ((200, 399),)),
        (["200-200"], (200,), ((200, 200),)),
        (["100-599"], ("100-599",), ((100, 599),)),
    ],
)
def test_statuses_have_one_form(
    written: list[Any], normal: tuple[Any, ...], ranges: tuple[tuple[int, int], ...]
) -> None:
    """Sorted, and neighbours in one range: two spellings of one set are one content."""
    check = HttpCheck.model_validate({"status": written})
    assert (check.status, check.ranges) == (normal, ranges)


@pytest.mark.parametrize(
    "written", [[], [99], [600], ["399-200"], ["200-600"], ["2xx"], [True], [200.5], ["200"]]
)
def test_what_is_no_status(written: list[Any]) -> None:
    """A number or a range from 100 to 599, and at least one."""
    refusal(HttpCheck, status=written)


@pytest.mark.parametrize("path", ["", "health", "/a b", "/ä", "http://a/"])
def test_what_is_no_path(path: str) -> None:
    """It stands in a request as it is."""
    assert 'must begin with "/"' in refusal(HttpCheck, path=path)


@pytest.mark.parametrize("host", ["a b", "ä", "x" * 256])
def test_what_is_no_host(host: str) -> None:
    """The same; as long as a name may be."""
    refusal(HttpCheck, host=host)


def test_payloads_are_bytes() -> None:
    """One for each character, whatever it is."""
    check = ExpectCheck(send="PING\r\n", expect="\xff", quit="Q")
    assert check.texts() == (b"PING\r\n", b"\xff", b"Q")
    refusal(ExpectCheck, expect="")
    refusal(ExpectCheck, expect="ā")


@pytest.mark.parametrize(
    ("model", "field"), [(Pool, "mode"), (PassiveCheck, "resets"), (ProxyProtocol, "send")]
)
def test_an_unquoted_off_is_the_word(model: Any, field: str) -> None:
    """YAML's older readers make a boolean of it."""
    assert getattr(model.model_validate({field: False}), field) == "off"
    refusal(model, **{field: True})


def test_numbers_are_numbers() -> None:
    """Text, fractions and booleans are none."""
    for wrong in ("5", 1.5, True, -1):
        refusal(Limits, connections=wrong)
    refusal(Limits, client_rate=float("nan"))
    refusal(Limits, client_rate=2_000_000)
    assert Limits.model_validate({"client_rate": 0.5}).client_rate == 0.5
