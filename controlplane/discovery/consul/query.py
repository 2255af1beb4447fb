"""What is asked of Consul, and what its answers hold: queries as values, so that equal ones share a watch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from controlplane.core.instances import InstanceRules
from controlplane.core.track import Trust
from controlplane.discovery.consul.settings import ConsulError, SettingsError

if TYPE_CHECKING:
    from controlplane.discovery.consul.client import Reply
    from schemas.desired import Desired
    from schemas.discovery import ConsulQuery

# A reply from a server that heard nothing from its leader for this long is doubted.
MAX_CONTACT_MS = 10_000
# What Go's router would read as a path of its own is no name.
_NAME = re.compile(r"(?!\.{1,2}$)[^/\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True, slots=True)
class Query:
    """One question to one datacenter."""

    service: str = ""
    prepared: str = ""
    """The name or id of a prepared query; then `service` is empty, and answers are polled."""
    tags: tuple[str, ...] = ()
    """All of them must be there."""
    datacenter: str = ""
    filter: str = ""
    near: str = ""
    namespace: str = ""
    partition: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.service or self.prepared):
            raise SettingsError(f"{self.service or self.prepared!r} is no name of a Consul service or query")

    def path(self) -> str:
        """Return the path to ask."""
        if self.prepared:
            return f"/v1/query/{self.prepared}/execute"
        return f"/v1/health/service/{self.service}"

    def params(self) -> list[tuple[str, str]]:
        """Return the parameters that choose, without those that say how to read."""
        named = {
            "dc": self.datacenter,
            "filter": self.filter,
            "near": self.near,
            "ns": self.namespace,
            "partition": self.partition,
        }
        return [("tag", tag) for tag in self.tags] + [(name, value) for name, value in named.items() if value]

    def whole(self) -> Query | None:
        """Return the question for all of the service; None if this one asks for no less, or cannot tell."""
        if self.prepared or not (self.tags or self.filter):
            return None
        return replace(self, tags=(), filter="", near="")

    def entries(self, reply: Reply) -> list[object]:
        """Return the entries of an answer.

        Raises:
            ConsulError: It is no answer to this question.
        """
        if reply.status != 200:  # noqa: PLR2004 - HTTP's "OK"
            if self.prepared:
                raise ConsulError("misconfigured", f"there is no prepared query {self.prepared!r}")
            raise ConsulError("protocol", f"status {reply.status}: this is no Consul agent")
        try:
            value = json.loads(reply.body)
        except (ValueError, RecursionError):
            raise ConsulError("protocol", "an answer that is not JSON") from None
        if self.prepared and isinstance(value, dict):
            value = value.get("Nodes")
        if not isinstance(value, list):
            raise ConsulError("protocol", f"an answer that is no list but {type(value).__name__}")
        return value


@dataclass(frozen=True, slots=True)
class Selection:
    """What one `discover.consul` says: a query, where to ask it, and how to read the answers."""

    query: Query
    datacenters: tuple[str, ...] = ("",)
    """In order of preference; "" is the agent's own."""
    rules: InstanceRules = field(default_factory=InstanceRules)

    def queries(self) -> tuple[Query, ...]:
        """Return the question for each datacenter."""
        return tuple(replace(self.query, datacenter=name) for name in self.datacenters)

    def rules_for(self, index: int) -> InstanceRules:
        """Return how to read the answers of one datacenter: several tell their instances apart by its name."""
        return (
            replace(self.rules, datacenter=self.datacenters[index])
            if len(self.datacenters) > 1
            else self.rules
        )

    def name(self) -> str:
        """Return a name for status and logs."""
        return (
            f"consul:query/{self.query.prepared}" if self.query.prepared else f"consul:{self.query.service}"
        )

    def key(self) -> str:
        """Return a text that is equal for equal selections, also in another process."""
        rules = self.rules
        parts: list[Any] = [
            self.query.path(),
            self.query.params(),
            self.datacenters,
            rules.address_source,
            rules.port,
            rules.keep_critical,
            rules.allow_hostnames,
            rules.allow_link_local,
        ]
        return json.dumps(parts, separators=(",", ":"))


def selections_of(desired: Desired) -> dict[str, Selection]:
    """Return what the services of an lb.yaml ask Consul for, by service.

    Raises:
        SettingsError: A name in one cannot be asked for.
    """
    return {
        name: selection_of(service.discover.consul, desired.consul.datacenter)
        for name, service in desired.services.items()
        if service.discover is not None
    }


def selection_of(query: ConsulQuery, default_datacenter: str | None = None) -> Selection:
    """Return what one `discover.consul` asks for, in this datacenter if it names none; None: in the agent's own.

    Raises:
        SettingsError: A name in it cannot be asked for.
    """
    return Selection(
        query=Query(
            service=query.service or "",
            prepared=query.prepared_query or "",
            tags=query.tags,
            filter=query.filter,
            near=query.near,
            namespace=query.namespace,
            partition=query.partition,
        ),
        datacenters=query.datacenter or (default_datacenter or "",),
        rules=InstanceRules(
            address_source=query.address_source,
            port=query.port,
            keep_critical=not query.passing,
            allow_link_local=query.allow_link_local,
            allow_hostnames=query.allow_hostnames,
        ),
    )


def trust_of(headers: Mapping[str, str], *, from_leader: bool) -> Trust:
    """Tell how far an answer can be believed.

    From Consul 1.10 on, blocking queries do not say whether a leader is known, so no header is no sign of trouble:
    it only costs a second question before something is taken away.
    """
    known = headers.get("X-Consul-KnownLeader", "").lower()
    contact = headers.get("X-Consul-LastContact", "0")
    silent = contact.isdecimal() and len(contact) < 16 and int(contact) > MAX_CONTACT_MS  # noqa: PLR2004 - an int64's
    return Trust(
        confirmed=from_leader and known != "false",
        doubted=not from_leader and (known != "true" or silent),
        denied=headers.get("X-Consul-Results-Filtered-By-ACLs", "").lower() == "true",
    )
