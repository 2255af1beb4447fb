"""The kinds of value that configuration is made of: their check, their normal form, their JSON Schema.

Every kind has one normal form, so that two spellings of the same content have the same digest.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from schemas.addresses import (
    BACKEND_ADDRESS_PATTERN,
    CIDR_PATTERN,
    LISTEN_ADDRESS_PATTERN,
    normal_backend_address,
    normal_cidr,
    normal_listen_address,
)
from schemas.errors import Path, shown
from schemas.quantities import (
    DURATION_PATTERN,
    PERCENT_PATTERN,
    POSITIVE_DURATION_PATTERN,
    format_duration,
    format_percent,
    parse_duration,
    parse_percent,
)


class Frozen(BaseModel):
    """A value: unknown keys are refused, and nothing changes after it was made.

    What checks it is built when the first one is made: most models are only ever part of another one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _looks_like(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


def refused(*problems: tuple[Path, str], about: tuple[str, ...] = ()) -> PydanticCustomError:
    """Make the error for values that are right alone and wrong together.

    Each problem is a path below the model that is checked, and a message; there is at least one. `about` has the
    model's keys that contradict each other. Of those that are wrong by themselves, nothing can be said.
    """
    text = "; ".join(message for _, message in problems)
    return PydanticCustomError(
        "refused", "{message}", {"message": text, "problems": problems, "about": about}
    )


def unsaid(value: object) -> bool:
    """Tell whether an option is off, or not there: then no snapshot has it, and a hash is what it was before there was one.

    For `Field(exclude_if=...)` of what came after the first version: what that has saved is taken by this one.
    """
    return value is None or value is False


# --- durations and shares -------------------------------------------------------------------------


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError('must be longer than zero, such as "2s"')
    return value


_DURATIONS: Final = ("250ms", "5s", "3m", "1h")

Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"const": 0}], "examples": [*_DURATIONS]}
    ),
]
"""Seconds; `30s` in documents."""

PositiveDuration = Annotated[
    Duration, AfterValidator(_positive), _looks_like(POSITIVE_DURATION_PATTERN, *_DURATIONS)
]
"""The same, above zero."""

Percent = Annotated[
    float,
    BeforeValidator(parse_percent),
    PlainSerializer(format_percent, return_type=str, when_used="json"),
    _looks_like(PERCENT_PATTERN, "10%", "12.5%"),
]
"""A fraction, 0 to 1; `10%` in documents."""


# --- numbers and words ----------------------------------------------------------------------------

_LARGEST_COUNT: Final = 2**31 - 1
Count = Annotated[int, Field(strict=True, ge=0, le=_LARGEST_COUNT)]
"""A whole number from 0."""
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]

TRUE_WORDS: Final = frozenset({"true", "yes", "on"})
FALSE_WORDS: Final = frozenset({"false", "no", "off"})


def off_word(value: object) -> object:
    """Turn what YAML 1.1 readers make of an unquoted `off` (and `no`, `false`) into the word `off`."""
    if value is False or (isinstance(value, str) and value.lower() in FALSE_WORDS):
        return "off"
    return value


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.lower() if isinstance(value, str) else None
    if word in TRUE_WORDS or word in FALSE_WORDS:
        return word in TRUE_WORDS
    raise ValueError(f"must be true or false, not {shown(value)}")


Switch = Annotated[bool, BeforeValidator(_switch), WithJsonSchema({"type": "boolean"})]
"""A boolean, also written yes, no, on or off."""


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {shown(value)}; quote it if it is meant as text")  # noqa: TRY004 - one kind of refusal
    return value


def _text(value: object) -> str:
    value = _string(value)
    if not value.isprintable():
        raise ValueError(f"must not contain control characters: {shown(value)}")
    return value


Text = Annotated[str, BeforeValidator(_text), Field(max_length=4096)]
"""Printable text."""
Word = Annotated[Text, Field(min_length=1, max_length=255)]
"""Printable text, not empty, of a length that names have."""
Words = Annotated[
    tuple[Word, ...],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""Words in an order that counts; one may be written without a list."""


def _payload(value: object) -> str:
    value = _string(value)
    if value and max(value) > "\xff":
        raise ValueError('must consist of bytes; write others than ASCII as "\\x00" to "\\xff"')
    return value


Payload = Annotated[str, BeforeValidator(_payload), Field(max_length=4096)]
"""Bytes, one character each (ISO 8859-1), control characters included."""


# --- names ----------------------------------------------------------------------------------------

_SERVICE_NAME_PATTERN: Final = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$"
_SERVICE_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}")
_BACKEND_ID_CHARS: Final = 255


def _service_name(value: object) -> str:
    if not isinstance(value, str) or _SERVICE_NAME.fullmatch(value) is None:
        raise ValueError(
            f'a service name consists of 1 to 63 letters, digits, ".", "_" and "-", '
            f'and begins with none of "." and "-"; {shown(value)} does not'
        )
    return value


def _backend_id(value: object) -> str:
    value = _string(value)
    if not 0 < len(value) <= _BACKEND_ID_CHARS or " " in value or not value.isprintable():
        raise ValueError(f"must be 1 to 255 printable characters without spaces, not {shown(value)}")
    return value


ServiceName = Annotated[
    str, BeforeValidator(_service_name), WithJsonSchema({"type": "string", "pattern": _SERVICE_NAME_PATTERN})
]
BackendId = Annotated[
    str,
    BeforeValidator(_backend_id),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\S+$", "maxLength": _BACKEND_ID_CHARS, "examples": ["web-1"]}
    ),
]


# --- addresses ------------------------------------------------------------------------------------


def not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Refuse a list of nothing; pydantic's `min_length` would also count what is wrong as missing."""
    if not values:
        raise ValueError("must not be empty")
    return values


ListenAddress = Annotated[
    str, BeforeValidator(normal_listen_address), _looks_like(LISTEN_ADDRESS_PATTERN, "127.0.0.1:4000")
]
BackendAddress = Annotated[
    str, BeforeValidator(normal_backend_address), _looks_like(BACKEND_ADDRESS_PATTERN, "127.0.0.1:5001")
]
Cidr = Annotated[str, BeforeValidator(normal_cidr), _looks_like(CIDR_PATTERN, "10.0.0.0/8")]
Cidrs = Annotated[tuple[Cidr, ...], AfterValidator(lambda values: tuple(sorted(set(values))))]
"""A set of networks, sorted: the order says nothing, so it must not change the digest."""
