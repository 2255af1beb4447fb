"""Which nodes belong together, and what this one is called among them."""

from __future__ import annotations

import re
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, WithJsonSchema

from schemas.errors import shown
from schemas.fields import Frozen, Text

NAME_PATTERN: Final = r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}"
"""Of a cluster and of a node: both become a step of a key's path in Consul."""
_NAME: Final = re.compile(NAME_PATTERN)
_MAX_ADDRESS: Final = 255


def _name(value: str) -> str:
    if _NAME.fullmatch(value) is None:
        raise ValueError(
            f'must consist of 1 to 64 letters, digits, ".", "_" and "-", and be neither "." nor "..", not {shown(value)}'
        )
    return value


def _api_address(value: str) -> str:
    wrong = ValueError(
        f'must be the address of this node\'s API (run --http), such as "http://10.0.0.1:9100", not {shown(value)}'
    )
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise wrong from None
    bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not bare or port == 0 or " " in value:
        raise wrong
    return value.removesuffix("/")


_Name = Annotated[
    Text,
    AfterValidator(_name),
    WithJsonSchema({"type": "string", "pattern": f"^{NAME_PATTERN}$", "examples": ["edge", "node-1"]}),
]


class Cluster(Frozen):
    """The nodes that belong together: each tells the others, through Consul, that it is there and what it runs."""

    name: _Name
    """The same on all of its nodes: 1 to 64 letters, digits, ".", "_" and "-"."""
    node: _Name | None = None
    """What this node is called, by no other one; the machine's host name if left out."""
    address: Annotated[Text, Field(max_length=_MAX_ADDRESS), AfterValidator(_api_address)] | None = None
    """Where other machines reach this node's API: an http:// or https:// address of `lb-control run --http`."""
