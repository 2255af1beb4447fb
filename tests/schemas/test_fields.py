from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas.fields import (
    BackendId,
    Cidrs,
    Payload,
    ServiceName,
    Switch,
    Text,
    off_word,
)
from schemas.listeners import Listeners


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
