"""What a node is called."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from controlplane.dataplanes.requests import here

if TYPE_CHECKING:
    from schemas.cluster import Cluster

_MAX_CHARS: Final = 64


def node_name(cluster: Cluster) -> str:
    """Return what lb.yaml calls this node, else the machine's name, made fit for a step of a key's path."""
    return cluster.node or re.sub(r"[^A-Za-z0-9._-]", "-", here())[:_MAX_CHARS]
