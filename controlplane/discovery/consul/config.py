"""From lb.yaml's words about Consul to the values that discovery works with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from controlplane.core.endpoints import EndpointRules
from controlplane.core.guard import GuardPolicy
from controlplane.core.instances import InstanceRules
from controlplane.discovery.consul.query import Query, Selection
from controlplane.discovery.consul.settings import ConsulSettings, with_address

if TYPE_CHECKING:
    from schemas.desired import Desired
    from schemas.discovery import Consul, ConsulQuery, Guard

__all__ = ["policy_of", "selection_of", "selections_of", "settings_of"]


def settings_of(consul: Consul) -> ConsulSettings:
    """Return the agent and its credentials.

    Raises:
        SettingsError: The address cannot be used.
    """

    def path(text: str | None) -> Path | None:
        return None if text is None else Path(text)

    return replace(
        with_address(consul.address),
        token_file=path(consul.token_file),
        ca_file=path(consul.ca_file),
        cert_file=path(consul.cert_file),
        key_file=path(consul.key_file),
    )


def policy_of(guard: Guard) -> GuardPolicy:
    """Return the guard's limits."""
    return GuardPolicy(
        max_shrink=guard.max_shrink,
        allow_empty=guard.allow_empty,
        min_backends=guard.min_backends,
        hold_s=guard.hold,
        absent_s=guard.absent_ttl,
    )


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
    """Return what one `discover.consul` asks for.

    Args:
        query: It.
        default_datacenter: Where to ask if it names none; None: in the agent's own.

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
            endpoints=EndpointRules(
                allow_link_local=query.allow_link_local, allow_hostnames=query.allow_hostnames
            ),
        ),
    )
