"""What a service says of an address that it listens on: the address alone, or a mapping with options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    GetJsonSchemaHandler,
    GetPydanticSchema,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from schemas.addresses import UnixPath, listened_on, split_address
from schemas.errors import shown
from schemas.fields import Frozen, ListenAddress, Switch, Text, not_empty, refused

_MODE: Final = re.compile(r"0?[0-7]{3}")
_FOR_FILES: Final = ("mode", "owner", "group")
_OPTIONS: Final = ("dual_stack", "freebind", *_FOR_FILES)


def _mode(value: object) -> str:
    if not isinstance(value, str) or _MODE.fullmatch(value) is None:
        raise ValueError(
            f'must be permissions in octal digits and quotation marks, such as "0660", not {shown(value)}'
        )
    return value.rjust(4, "0")


FileMode = Annotated[
    str,
    BeforeValidator(_mode),
    WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$", "examples": ["0660"]}),
]


class Listener(Frozen):
    """One address to accept on; `unix: PATH` in place of `address` is a Unix socket."""

    address: ListenAddress
    """Where clients connect."""
    dual_stack: Switch = False
    """Listen on `0.0.0.0` as well as on `[::]`."""
    freebind: Switch = False
    """Listen also on an address that no interface has yet (`IP_FREEBIND`)."""
    mode: FileMode = ""
    """Permissions of a Unix socket, as `"0660"`: who may write may connect; empty: what the umask leaves."""
    owner: Text = ""
    """User whom a Unix socket belongs to, by name or number; empty: the data plane's."""
    group: Text = ""
    """Group of a Unix socket, by name or number; empty: the data plane's."""

    @model_validator(mode="before")
    @classmethod
    def _forms(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value if isinstance(value, Listener) else {"address": value}
        if "unix" not in value:
            return value
        path, rest = value["unix"], {key: each for key, each in value.items() if key != "unix"}
        if "address" in rest:
            raise refused((("unix",), "excludes address; a listener has one of them"))
        if not isinstance(path, str):
            raise refused((("unix",), f'must be a path, such as "/run/app.sock", not {shown(path)}'))
        return {**rest, "address": path if path.startswith("unix:") else f"unix:{path}"}

    @model_validator(mode="after")
    def _options_fit(self) -> Self:
        place = split_address(self.address)
        if isinstance(place, UnixPath):
            wrong = [
                (name, "only a TCP address has it")
                for name in ("dual_stack", "freebind")
                if getattr(self, name)
            ]
        else:
            wrong = [(name, "only a Unix socket has it") for name in _FOR_FILES if getattr(self, name)]
            if self.dual_stack and place.host != "::":
                wrong.append(("dual_stack", f'is for "[::]:{place.port}" alone, not for {self.address}'))
        if wrong:
            raise refused(
                *(((name,), message) for name, message in wrong), about=tuple(name for name, _ in wrong)
            )
        return self

    def written(self) -> dict[str, Any]:
        """Return it as a snapshot has it."""
        return {
            "address": self.address,
            **{name: value for name in _OPTIONS if (value := getattr(self, name))},
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        full = handler.resolve_ref_schema(handler(core))
        properties = full["properties"]
        properties["unix"] = {
            "type": "string",
            "pattern": "^(unix:)?/.+$",
            "examples": ["/run/app.sock"],
            "description": "In place of `address`: the path of a Unix socket.",
        }
        full.pop("required", None)
        full["oneOf"] = [{"required": ["address"]}, {"required": ["unix"]}]
        return {"anyOf": [properties["address"], full]}


def _one_or_many(value: object) -> object:
    if isinstance(value, (str, int, float)):
        return [_ADDRESS.validate_python(value)]
    return value if isinstance(value, (list, tuple)) else [value]


def _shortened(values: tuple[Listener, ...]) -> tuple[str | Listener, ...]:
    return tuple(one if len(one.written()) > 1 else one.address for one in not_empty(values))


def _written(values: tuple[str | Listener, ...]) -> list[str | dict[str, Any]]:
    return [one if isinstance(one, str) else one.written() for one in values]


_ADDRESS: Final[TypeAdapter[str]] = TypeAdapter(ListenAddress)
_Checked = Annotated[
    tuple[Listener, ...],
    AfterValidator(_shortened),
    BeforeValidator(_one_or_many),
    PlainSerializer(_written),
]
Listeners = Annotated[
    tuple[str | Listener, ...], GetPydanticSchema(lambda _source, handler: handler(_Checked))
]
"""Where clients connect, each an address alone if it has no options; one may be written without a list."""


def addresses_of(listener: str | Listener) -> tuple[str, ...]:
    """Return the addresses that a listener takes: two for both families."""
    return listened_on(listener if isinstance(listener, str) else listener.written())
