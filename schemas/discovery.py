"""Where backends come from when lb.yaml does not list them: Consul, and how far it is believed."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from schemas.errors import shown
from schemas.fields import Count, Duration, Frozen, Percent, Port, Switch, Text, Word, Words, refused


def _consul_name(value: str) -> str:
    if not value or "/" in value or value in {".", ".."}:  # it becomes a step of a URL's path
        raise ValueError(f'must be a name without "/", not {shown(value)}')
    return value


_Name = Annotated[Text, Field(max_length=255), AfterValidator(_consul_name)]
_ADDRESS_SOURCE: Final = re.compile(r"service|node|tagged:[A-Za-z0-9_-]{1,64}")


def _address_source(value: str) -> str:
    if _ADDRESS_SOURCE.fullmatch(value) is None:
        raise ValueError(
            f'must be service, node or a tagged address such as "tagged:wan", not {shown(value)}'
        )
    return value


_AddressSource = Annotated[
    Text,
    AfterValidator(_address_source),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": f"^({_ADDRESS_SOURCE.pattern})$",
            "examples": ["service", "node", "tagged:wan"],
        }
    ),
]


class ConsulQuery(Frozen):
    """Which instances of Consul are a service's backends; of `service` and `prepared_query` exactly one."""

    service: _Name | None = None
    """Name of a Consul service."""
    prepared_query: _Name | None = None
    """Name or id of a prepared query, asked at intervals."""
    tags: tuple[Word, ...] = ()
    """An instance must have all of them."""
    passing: Switch = True
    """false keeps instances that are critical in Consul, so that our own checks decide."""
    datacenter: Words = ()
    """One, or several in order of preference; empty: the agent's own."""
    filter: Text = ""
    """Consul's filter expression."""
    near: Text = ""
    """Sort by distance from this node; _agent is the agent's."""
    namespace: Text = ""
    """Consul Enterprise."""
    partition: Text = ""
    """Consul Enterprise."""
    address_source: _AddressSource = "service"
    """service (the node's if it has none), node, or a tagged address such as tagged:lan or tagged:wan_ipv4."""
    port: Port | None = None
    """Use this port instead of the registered one."""
    allow_hostnames: Switch = False
    """Take host names for addresses, not only IP addresses."""
    allow_link_local: Switch = False
    """Take link-local addresses, where clouds keep their credentials."""

    @model_validator(mode="after")
    def _asks_one_question(self) -> Self:
        if (self.service is None) == (self.prepared_query is None):
            raise refused(
                ((), "must have either service or prepared_query"), about=("service", "prepared_query")
            )
        if self.prepared_query is not None and (self.tags or self.filter):
            key = "tags" if self.tags else "filter"
            raise refused(
                ((key,), "has no effect on a prepared query; write it into the query itself"),
                about=("prepared_query", "tags", "filter"),
            )
        return self


class Discover(Frozen):
    """Where a service's backends are found."""

    consul: ConsulQuery
    """In Consul."""


_SCHEMES: Final = frozenset({"http", "https"})
_FilePath = Annotated[Text, Field(min_length=1)]
CONSUL_FILES: Final = ("token_file", "ca_file", "cert_file", "key_file")
"""The keys of lb.yaml that name files, all of them in `consul`."""


def _agent_address(value: str) -> str:
    wrong = ValueError(
        'must be an address such as "http://127.0.0.1:8500", "https://consul.example:8501" or '
        f'"unix:///run/consul.sock", not {shown(value)}'
    )
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme == "unix":
        good = not parts.netloc and len(parts.path) > 1
    else:
        # Credentials would end in logs and status; a path or query would be dropped unseen.
        bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
        good = parts.scheme in _SCHEMES and bool(parts.hostname) and bare and port != 0
    if not good or " " in value:
        raise wrong
    return value


class Consul(Frozen):
    """The Consul agent, and the files with what it asks for; relative paths start at lb.yaml's folder."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    address: Annotated[Text, AfterValidator(_agent_address)] = "http://127.0.0.1:8500"
    """http://, https:// or unix://."""
    token_file: _FilePath | None = None
    """Holds the ACL token."""
    ca_file: _FilePath | None = None
    """Signs the agent's certificate; the system's authorities if left out."""
    cert_file: _FilePath | None = None
    """Our certificate."""
    key_file: _FilePath | None = None
    """Its key; in cert_file if left out."""
    datacenter: Word | None = None
    """The default of every query."""
    register_services: Annotated[Switch, Field(alias="register")] = False
    """Whether our own services are registered in Consul; listeners that only this machine reaches are left out."""

    @model_validator(mode="after")
    def _files_fit(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise refused((("key_file",), "needs cert_file beside it"), about=("cert_file", "key_file"))
        for key in ("ca_file", "cert_file"):
            if getattr(self, key) is not None and self.address.startswith("http:"):
                raise refused(((key,), "needs an https address"), about=("address", key))
        return self


class Guard(Frozen):
    """How much discovery may take away before a person is asked."""

    max_shrink: Percent = 0.5
    """A change that takes more backends than this share of a service's is held."""
    allow_empty: Switch = False
    """Whether a service may lose its last backend."""
    hold: Duration = 15.0
    """How long a held change must stay the same before it is believed."""
    min_backends: Count = 0
    """A change that leaves fewer is held."""
    absent_ttl: Duration = 300.0
    """How long a backend that vanished is kept while its own checks succeed."""
