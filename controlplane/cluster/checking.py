"""Checks an lb.yaml for all live nodes of its cluster, each with the variables that it tells of itself, before it is written for all."""

from __future__ import annotations

import asyncio

from controlplane.cluster.reading import read_nodes
from controlplane.desired.document import Given, Proposal, check_everywhere
from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.settings import ConsulSettings


async def check_for_all(settings: ConsulSettings, given: Given) -> Proposal:
    """Check a file for the live nodes of the cluster that it names; Consul is asked only if something differs between them.

    Raises:
        InputError: With every problem, by line; what is wrong only for some nodes names them.
        ConsulError: It is not known which nodes there are.
    """
    proposal = await asyncio.to_thread(check_everywhere, given, {})
    cluster = proposal.desired.cluster
    if cluster is None or not proposal.variables:
        return proposal
    async with connected(settings) as client:
        live = (await read_nodes(client, cluster.name)).live()
    nodes = {each.name: each.record.variables for each in live if each.record is not None}
    return await asyncio.to_thread(check_everywhere, given, nodes)
