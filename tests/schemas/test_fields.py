from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schemas.fields import (
    BackendId,
    Cidrs,
    Payload,
    ServiceName,
    Switch,
    Text,
    format_duration,
    format_percent,
    off_word,
    parse_duration,
    parse_percent,
)
from schemas.listeners import Listeners


@pytest.mark.parametrize(
    ("text", "seconds", "normal"),
    [
        ("250ms", 0.25, "250ms"),
        ("5s", 5.0, "5s"),
        ("3m", 180.0, "3m"),
        ("1h", 3600.0, "1h"),
        ("1m30s", 90.0, "90s"),
        ("1.5s", 1.5, "1500ms"),
        ("10000ms", 10.0, "10s"),
        ("600s", 600.0, "10m"),
        ("0", 0.0, "0s"),
        ("0s", 0.0, "0s"),
        (0, 0.0, "0s"),
        ("1h0m0.5s", 3600.5, "3600500ms"),
    ],
)
def test_durations_are_read_and_written(text, seconds, normal):
    """A duration is seconds inside, and has one spelling outside."""
    assert parse_duration(text) == seconds
    assert format_duration(seconds) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        5,
        5.0,
        "5 s",
        "s",
        "-5s",
        "+5s",
        "5S",
        "1d",
        "1e3s",
        "\u0665s",
        "5s\n",
        ".5s",
        "5.s",
        None,
        True,
        False,
        [],
        "9" * 50 + "s",
    ],
)
def test_what_is_no_duration_is_refused_with_an_example(text):
    """A number without a unit is as wrong as a word, and the message shows what is right."""
    with pytest.raises(ValueError, match='such as "250ms"'):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "reason"), [("1.0005s", "milliseconds"), ("0.1ms", "milliseconds"), ("99999h", "ten years")]
)
def test_durations_have_a_resolution_and_an_end(text, reason):
    """What no timer here could keep is refused rather than rounded."""
    with pytest.raises(ValueError, match=reason):
        parse_duration(text)


@settings(deadline=None)
@given(st.integers(0, 10 * 365 * 24 * 3_600_000))
def test_every_duration_survives_a_round_trip(milliseconds):
    """Written and read again, a duration is the same number, so digests agree."""
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000


@pytest.mark.parametrize(
    ("text", "share"), [("0%", 0.0), ("10%", 0.1), ("12.5%", 0.125), ("100%", 1.0), ("0.25%", 0.0025)]
)
def test_shares_are_read_and_written(text, share):
    """A share is a fraction inside, and per cent outside."""
    assert parse_percent(text) == share
    assert format_percent(share) == text


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_every_share_survives_a_round_trip(basis_points):
    """Written and read again, a share is the same number."""
    assert parse_percent(format_percent(basis_points / 10_000)) == basis_points / 10_000


@pytest.mark.parametrize(
    "text", ["", "10", 10, 0.1, "10 %", "-1%", "%", "1e1%", "1.234%", None, True, "10%\n"]
)
def test_what_is_no_share_is_refused_with_an_example(text):
    """A number alone could mean a fraction or per cent."""
    with pytest.raises(ValueError, match='such as "10%"'):
        parse_percent(text)


@pytest.mark.parametrize("text", ["100.01%", "101%", "999%"])
def test_no_share_is_above_the_whole(text):
    """More than all is a mistake."""
    with pytest.raises(ValueError, match="at most 100%"):
        parse_percent(text)


@pytest.mark.parametrize("value", [False, "off", "no", "Off", "FALSE"])
def test_every_spelling_of_an_unquoted_off_is_the_word(value):
    """YAML 1.1 readers turn off and no into false; as a choice it means off."""
    assert off_word(value) == "off"


@pytest.mark.parametrize("value", [True, None, 0, "on", "v1"])
def test_other_values_are_left_alone(value):
    """Only what means off becomes off."""
    assert off_word(value) is value


def accepts(kind, value):
    """Return what a kind makes of a value, or the kind of its error."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        return error.errors()[0]["type"]


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (True, True),
        ("yes", True),
        ("On", True),
        ("off", False),
        (False, False),
        (1, "value_error"),
        ("1", "value_error"),
        (None, "value_error"),
    ],
)
def test_booleans_are_words(value, result):
    """yes, no, on and off count, numbers do not."""
    assert accepts(Switch, value) == result


@pytest.mark.parametrize("name", ["web", "a", "0", "a.b_c-d", "x" * 63, "_x"])
def test_service_names_have_a_safe_alphabet(name):
    """A name fits into URLs, file names and metric labels as it is."""
    assert accepts(ServiceName, name) == name


@pytest.mark.parametrize("name", ["", "x" * 64, "a b", "a/b", "..", "-x", "ä", "a\n", 5])
def test_other_service_names_are_refused(name):
    """What would need escaping somewhere is refused here."""
    assert accepts(ServiceName, name) == "value_error"


@pytest.mark.parametrize("name", ["node/service-id", "127.0.0.1:80", "[::1]:80", "é", "x" * 255])
def test_backend_ids_are_printable(name):
    """Addresses and Consul's node/service ids are ids."""
    assert accepts(BackendId, name) == name


@pytest.mark.parametrize("name", ["", "x" * 256, "a b", "a\tb", "a\u00a0b", "a\x00", "\ud800", 5, None])
def test_other_backend_ids_are_refused(name):
    """White space and control characters would break logs and commands."""
    assert accepts(BackendId, name) == "value_error"


@pytest.mark.parametrize("text", ["a\nb", "a\x7f", "\x85", "\u202e", 5, None, True])
def test_text_is_printable(text):
    """No control character reaches a request, a log or a terminal."""
    assert accepts(Text, text) == "value_error"


def test_payloads_are_bytes():
    """A check may send any byte, one character each."""
    everything = "".join(map(chr, range(256)))
    assert accepts(Payload, everything) == everything
    assert accepts(Payload, "€") == "value_error"
    assert accepts(Payload, 5) == "value_error"


def test_one_listener_needs_no_list():
    """The short form is a list of one."""
    assert accepts(Listeners, ":4000") == ("0.0.0.0:4000",)
    assert accepts(Listeners, [":4000", "[::]:4000"]) == ("0.0.0.0:4000", "[::]:4000")
    assert accepts(Listeners, []) == "value_error"
    assert accepts(Listeners, 4000) == "value_error"


def test_the_order_of_networks_says_nothing():
    """Two orders of the same networks are the same content."""
    assert accepts(Cidrs, ["10.0.0.0/8", "::1", "10.1.0.0/8"]) == accepts(Cidrs, ["::1/128", "10.0.0.0/8"])
