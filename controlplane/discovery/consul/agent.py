"""What the node's own Consul agent says of the node: its name, and the address that the other nodes know."""

from __future__ import annotations

import asyncio
import json
from typing import Final

from controlplane.discovery.consul.client import connected
from controlplane.discovery.consul.settings import ConsulError, ConsulSettings

ANSWER_S: Final = 3.0
"""For all of it: somebody waits for a file to be checked."""
_PATHS: Final = {"NODE_NAME": ("Config", "NodeName"), "NODE_IP": ("Member", "Addr")}


async def ask_agent(settings: ConsulSettings, timeout_s: float = ANSWER_S) -> dict[str, str]:
    """Return `NODE_NAME` and `NODE_IP`, as far as the agent tells them.

    Raises:
        ConsulError: There is no answer that can be used.
    """
    try:
        async with asyncio.timeout(timeout_s), connected(settings) as client:
            reply = await client.get("/v1/agent/self", timeout_s=timeout_s)
    except TimeoutError:
        raise ConsulError("timeout", f"{settings.address()}: no answer within {timeout_s:g} s") from None
    try:
        answer = json.loads(reply.body)
        found = {name: answer[section][key] for name, (section, key) in _PATHS.items()}
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ConsulError("protocol", f"{settings.address()}: an answer that is no agent's") from None
    return {name: value for name, value in found.items() if isinstance(value, str)}
