"""What grows with nodes and services, and how far each may: the arithmetic of `model_cluster`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from controlplane.core.canary_record import MAX_CONTENT_BYTES
from controlplane.core.node_record import MAX_BYTES as MAX_RECORD_BYTES
from controlplane.core.record_pace import numbers_every_s, read_pause_s, room_share
from controlplane.daemon.registration import TTL_S
from controlplane.dataplanes.pusher import Timing
from controlplane.discovery.consul.kv import MAX_VALUE_BYTES
from controlplane.discovery.consul.watch import Pace
from controlplane.operations.options import ApplyOptions
from schemas.http.answers import MAX_BODY_BYTES
from schemas.options import ActiveCheck
from schemas.reading.document import MAX_BYTES
from tools.model_measures import Measured, Size, record

KIB: Final = 1024
MIB: Final = 1024 * KIB
SERVERS: Final = 3
"""Of Consul."""
QUERY_BYTES: Final = 25 * KIB
"""What Consul 1.8.7 keeps for a blocking query: its memory before and with 4,000 of them over HTTP on one agent."""
AGENT_CONNECTIONS: Final = 200
"""Consul's `limits.http_max_conns_per_client`."""
LINK_BYTES: Final = 125 * MIB
"""Of one gigabit, in a second."""
OWN_CONNECTIONS: Final = 4
"""Of a node that has no discovery: the key, the records, the session, and whether the agent answers."""
CHECKED_EVERY_S: Final = ActiveCheck().interval
REGISTRATION_S: Final = 0.001
"""Of a call to an agent on the same machine that does nothing else."""


@dataclass(frozen=True, slots=True)
class Load:
    """Something that grows with nodes or services."""

    name: str
    formula: str
    amount: Callable[[Size, Measured], float]
    unit: str
    limit: float | None = None
    """In the same unit; None: it is only shown."""
    whose: str = ""
    """Whose limit it is."""
    then: str = ""
    """What happens beyond it, and what to do."""
    timed: bool = False
    """It depends on this machine's speed."""


def record_bytes(size: Size) -> float:
    """Return the bytes of one node's record."""
    return len(record(math.ceil(size.services), room_share(math.ceil(size.nodes))))


def record_reads(size: Size) -> float:
    """Return how often a second one node reads the records of all: whenever one was written, as far as it may."""
    return min(size.nodes / numbers_every_s(math.ceil(size.nodes)), 1 / read_pause_s(math.ceil(size.nodes)))


LOADS: Final = (
    Load(
        "lb.yaml in its key, backends from Consul",
        "services x {discovered_bytes:.0f} B",
        lambda size, measured: size.services * measured.discovered_bytes,
        "bytes",
        MAX_VALUE_BYTES,
        "Consul, `kv_max_value_size`",
        "`apply --to` refuses; what runs goes on. `defaults` for what is common, or a key for each group of nodes.",
    ),
    Load(
        "lb.yaml in its key, backends listed",
        "services x {listed_bytes:.0f} B",
        lambda size, measured: size.services * measured.listed_bytes,
        "bytes",
        MAX_VALUE_BYTES,
        "Consul, `kv_max_value_size`",
        "`apply --to` refuses; what runs goes on. `defaults` for what is common, or a key for each group of nodes.",
    ),
    Load(
        "lb.yaml of a canary, backends from Consul",
        "services x {discovered_bytes:.0f} B",
        lambda size, measured: size.services * measured.discovered_bytes,
        "bytes",
        MAX_CONTENT_BYTES,
        "ours: Consul takes 512 KiB for a transaction, in base64",
        "`apply --canary` refuses; without `--canary` it goes. A key for each group of nodes.",
    ),
    Load(
        "lb.yaml in a file, backends listed",
        "services x {listed_bytes:.0f} B",
        lambda size, measured: size.services * measured.listed_bytes,
        "bytes",
        MAX_BYTES,
        "ours",
        "It is refused with its size; what runs goes on.",
    ),
    Load(
        "the snapshot that a data plane is pushed",
        "services x {snapshot_bytes:.0f} B: with every option said",
        lambda size, measured: size.services * measured.snapshot_bytes,
        "bytes",
        MAX_BODY_BYTES,
        "ours, the API's body",
        "The data plane refuses it (413); what runs goes on. A key for each group of nodes.",
    ),
    Load(
        "a data plane's check of the snapshot",
        "services x {take_us:.0f} us",
        lambda size, measured: size.services * measured.take_s,
        "s",
        ApplyOptions().timeout_s / 6,
        "ours, of the default `--timeout`",
        "`plan` and `apply` call the data plane late; a longer `--timeout`.",
        timed=True,
    ),
    Load(
        "reading, checking and compiling, in the daemon",
        "services x {compile_us:.0f} us",
        lambda size, measured: size.services * (measured.read_s + measured.compile_s),
        "s",
        timed=True,
    ),
    Load(
        "memory of the daemon to read and compile",
        "services x {daemon_kib:.0f} KiB",
        lambda size, measured: size.services * measured.daemon_kib * KIB,
        "bytes",
        timed=True,
    ),
    Load(
        "one change of the key, out of Consul",
        "nodes x the key",
        lambda size, measured: size.nodes * size.services * measured.discovered_bytes,
        "bytes",
        SERVERS * LINK_BYTES,
        "a second of a gigabit at each of three servers",
        "Nodes get it one after the other, later; nothing is lost.",
    ),
    Load(
        "sessions, each renewed every 3 s",
        "nodes",
        lambda size, _: size.nodes,
        "",
    ),
    Load(
        "a node's record",
        "with clients on every service, of which the busiest are told one by one",
        lambda size, _: record_bytes(size),
        "bytes",
        MAX_RECORD_BYTES,
        "ours",
    ),
    Load(
        "records into Raft",
        "nodes x the record / 5 s, from 20 nodes on 4 records/s",
        lambda size, _: size.nodes * record_bytes(size) / numbers_every_s(math.ceil(size.nodes)),
        "bytes/s",
        MIB,
        "1 MiB/s, as a rule",
        "Each server writes it to its disk, beside what else Consul is for.",
    ),
    Load(
        "reads of all records, by all nodes",
        "each node after each write, all together at most 20/s",
        lambda size, _: size.nodes * record_reads(size),
        "/s",
    ),
    Load(
        "records out of the servers",
        "reads of all records x nodes x the record",
        lambda size, _: size.nodes * record_reads(size) * size.nodes * record_bytes(size),
        "bytes/s",
        SERVERS * LINK_BYTES / 10,
        "a tenth of a gigabit at each of three servers",
        "Links of the servers are full, and elections follow.",
    ),
    Load(
        "reading all records, cores of a node",
        "reads x nodes x the record x {parse_us:.0f} us/KiB",
        lambda size, measured: record_reads(size) * size.nodes * record_bytes(size) / KIB * measured.parse_s,
        "cores",
        0.2,
        "a fifth of a core, as a rule",
        "The daemon is late with what else it does.",
        timed=True,
    ),
    Load(
        "connections to a node's agent",
        "questions + {own}, for the node's own keys",
        lambda size, _: size.queries + OWN_CONNECTIONS,
        "",
        AGENT_CONNECTIONS,
        "Consul, `http_max_conns_per_client`",
        "The agent closes what is beyond it: some services are never known. Raise it on each node's agent, and its "
        "limit of descriptors with it; or have services ask the same.",
    ),
    Load(
        "blocking queries at the servers",
        "nodes x (questions + 2)",
        lambda size, _: size.nodes * (size.queries + 2),
        "",
    ),
    Load(
        "memory of each server for blocking queries",
        "25 KiB for each, over three servers",
        lambda size, _: size.nodes * (size.queries + 2) * QUERY_BYTES / SERVERS,
        "bytes",
        2 * KIB * MIB,
        "2 GiB, as a rule",
        "Servers swap and elections follow; nodes keep what they have. Have services ask the same, or list backends, or a "
        "Consul for each group of nodes.",
    ),
    Load(
        "reads of each server, as queries end without news",
        "nodes x (questions + 2) / {wait:.0f} s, over three servers",
        lambda size, _: size.nodes * (size.queries + 2) / Pace().wait_s / SERVERS,
        "/s",
        5000.0,
        "5,000/s, as a rule",
        "Answers are late, and elections may follow. The same as for their memory.",
    ),
    Load(
        "nodes that wake when one instance changes",
        "nodes",
        lambda size, _: size.nodes,
        "",
    ),
    Load(
        "instances of `consul.register`",
        "nodes x services",
        lambda size, _: size.nodes * size.services,
        "",
        100_000.0,
        "100,000 in one catalogue, as a rule",
        "Leave `register` out: BGP or VRRP brings the clients.",
    ),
    Load(
        "a round of checks of `consul.register`",
        "services x 1 ms, one after the other",
        lambda size, _: size.services * REGISTRATION_S,
        "s",
        TTL_S * 2 / 3,
        "ours: a check lives for 10 s, and a round begins every 3.3 s",
        "Checks run out while the node is well. Leave `register` out.",
    ),
    Load(
        "checks that a backend gets",
        "nodes / {interval:g} s",
        lambda size, _: size.nodes / CHECKED_EVERY_S,
        "/s",
        10.0,
        "10/s, as a rule",
        "Backends feel it. A longer `health.active.interval`: passive health notices most of what happens.",
    ),
    Load(
        "checks that a node makes, cores",
        "services x {backends} backends / {interval:g} s x {dial_us:.0f} us",
        lambda size, measured: size.services * size.backends / CHECKED_EVERY_S * measured.dial_s,
        "cores",
        0.5,
        "half a core, as a rule",
        "Relaying has less of the core. A longer `health.active.interval`.",
        timed=True,
    ),
    Load(
        "memory for the tables of sticky services, if all are",
        "services x {table_kib:.0f} KiB, in each worker",
        lambda size, measured: size.services * measured.table_bytes,
        "bytes",
        4 * KIB * MIB,
        "4 GiB, as a rule",
        "The worker is killed for its memory. `sticky` where it is needed.",
    ),
    Load(
        "building the tables of sticky services, if all are",
        "services x {table_ms:.0f} ms",
        lambda size, measured: size.services * measured.table_s,
        "s",
        Timing().push_s,
        "ours, of a push",
        "The daemon says that the data plane does not answer, until it has built them; what ran goes on. `sticky` where it is needed.",
        timed=True,
    ),
)
