"""What `GET /v1/nodes` of a daemon returns: plain dictionaries. Moments are RFC 3339 in UTC."""

from __future__ import annotations

from typing import Literal, TypedDict


class FirstByteTimes(TypedDict):
    """Times from connected to the backend's first byte, of connections that have ended, counted since the node's daemon began."""

    count: int
    sum: float
    """In milliseconds."""
    buckets: dict[str, int]
    """How many took at most as many milliseconds as the bound, and more than the one below, by the bound: `250`, `+Inf`."""


class NodeOutcomes(TypedDict):
    """What the clients of a service met on one node, counted since its daemon began, and the backends that it has now."""

    connections: int
    """Clients accepted."""
    failures: int
    """Those that got no backend, or were cut off by one, by no doing of their own."""
    ejections: int
    usable: int
    """Backends that get clients, by what is wanted and seen there."""
    backends: int
    first_byte_ms: FirstByteTimes


class NodeDraining(TypedDict):
    """How far a node has got with being drained."""

    phase: str
    by: str
    """Who has said so."""
    since: str


class NodeRecord(TypedDict):
    """What a node says of itself: the JSON in `livelb/CLUSTER/nodes/NODE`, with `version` 1 beside."""

    node: str
    at: str
    """When it was written: at once when anything but numbers changes, every 5 s while those do, and every 30 s."""
    started: str
    """When the node's daemon began."""
    livelb: str
    """The version of the program."""
    address: str | None
    """Where its API is for other machines: `cluster.address`."""
    left: str | None
    """When its daemon ended in good order."""
    key: str | None
    """The key in Consul that it follows; null: none."""
    content: str | None
    """SHA-256 of the lb.yaml that it has taken; null: none, or somebody has applied something else there."""
    canary: str | None
    """The id of the canary whose content that is."""
    generation: int
    """Each node numbers its own."""
    hash: str
    """Of what should run there: what was discovered, and what differs from node to node, is in it."""
    converged: bool
    """Whether all its data planes run that."""
    error: str | None
    """Why the newest lb.yaml is not what runs."""
    ready: bool
    reason: str
    """Why it is not ready."""
    since: str
    """Since when it is ready, or is not."""
    drain: NodeDraining | None
    table_hashes: dict[str, str]
    """By sticky service; `*` is one for those that a record has no room for."""
    active: int
    """Clients' connections now."""
    variables: dict[str, str]
    """What an lb.yaml can take from the node, by name."""
    uses: list[str]
    """Which of them its own does: with another value of one, it has another hash by right."""
    share: int | None
    """By how many nodes limits of the whole cluster are divided there."""
    outcomes: dict[str, NodeOutcomes]
    """By service, the busiest ones; `*` is the sum of the others."""


class Node(TypedDict):
    """One node, as it looks from here."""

    name: str
    presence: Literal["live", "gone", "left", "unreadable"]
    """`live`: its session in Consul is alive. `gone`: it has ended, for the daemon was killed, the machine is off, or it is
    cut off from Consul. `left`: its daemon has ended in good order. `unreadable`: its key holds no record."""
    since: str | None
    """Since when it is gone, at the earliest, or has left."""
    problem: str | None
    """Why it is unreadable."""
    behind: str | None
    """What it does not run that its key says, or most nodes have, and why if it says so; null: nothing."""
    disagrees: list[str]
    """In what it differs from those that should be like it: version, key, content, hash, or the table of a sticky service."""
    record: NodeRecord | None
    """null: unreadable."""


class Nodes(TypedDict):
    """`GET /v1/nodes`: the picture of the cluster."""

    cluster: str
    node: str | None
    """The one that answers; null: none, Consul was read by the command itself."""
    known: bool
    """false: Consul has not answered since the daemon began, and nothing is known."""
    age_s: float
    """How old the picture is: a Consul that is well says at least every 30 s that nothing has changed."""
    error: str | None
    """Why the picture gets older, or others do not see this node; null: all is well."""
    error_since: str | None
    live: int
    converged: bool
    """Whether there are live nodes, and none of them is behind or disagrees."""
    nodes: list[Node]
    """By name; who has been gone for a day is left out."""
