"""Consul health entries become instances: what each is, and what is wrong with the ones that are skipped.

One bad entry never costs the others: it is skipped, with its reason. Conditions, best first:

- `passing`: every check passes, or there is none.
- `warning`: the worst of its checks warns.
- `lost`: its own checks are fine and only `serfHealth` is critical, so the agent beside it is silent. The service
  may well be running: after `kill -9` of an agent, Consul lists everything on that node so.
- `maintenance`: somebody asked for it (`_node_maintenance`, `_service_maintenance:ID`).
- `critical`: a check says that it does not work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, cast

from controlplane.core.endpoints import EndpointRules, RefusedEndpoint, endpoint

MAX_INSTANCES = 10_000  # HAProxy's server-template stops at 2**16, Envoy's own advice at some thousands
MAX_WEIGHT = 999_999_999  # Consul's own limit is 65,535; `weights` makes a balancer's 0..256 of it
MAX_TIER = 255
MAX_ID = 255
MAX_SHOWN = 100  # remarks in a status; their number is always whole
_AGENT_CHECK = "serfHealth"
_NODE_MAINTENANCE = "_node_maintenance"
_SERVICE_MAINTENANCE = "_service_maintenance:"


Names = frozenset[tuple[str, str]]
"""Whom entries are about, whatever is said of them: pairs of a node and a service id."""


class Condition(StrEnum):
    """What Consul says of an instance."""

    PASSING = "passing"
    WARNING = "warning"
    LOST = "lost"
    MAINTENANCE = "maintenance"
    CRITICAL = "critical"


_PREFERENCE = {condition: rank for rank, condition in enumerate(Condition)}


@dataclass(frozen=True, slots=True)
class Instance:
    """One registered instance of a service that can be used."""

    id: str
    """`node/service-id`, with `datacenter/` in front where several datacenters are asked."""
    address: str
    weight: int = 1
    """From 0 on, after its condition and its meta data have been heard; what it means is its share (`weights`)."""
    tier: int = 0
    condition: Condition = Condition.PASSING


@dataclass(frozen=True, slots=True)
class InstanceRules(EndpointRules):
    """How entries of one query are read."""

    address_source: str = "service"
    """`service` (with the node's address where it has none), `node`, or `tagged:NAME`."""
    port: int | None = None
    """Takes the place of the registered port."""
    keep_critical: bool = False
    """Take a critical instance for a warning one: the balancer's own checks decide."""
    datacenter: str = ""
    """Goes in front of every id unless empty."""

    def ids(self, names: Names) -> frozenset[str]:
        """Return the ids that instances of these names have."""
        return frozenset(_joined(node, service, self.datacenter) for node, service in names)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that an operator should know about one entry."""

    id: str
    why: str


@dataclass(frozen=True, slots=True)
class Classified:
    """One reply, read."""

    instances: tuple[Instance, ...] = ()
    """Sorted by id; no id and no address twice."""
    rejected: tuple[Remark, ...] = ()
    """Entries that were skipped."""
    warnings: tuple[Remark, ...] = ()
    """Entries that are used, in part against what they ask for."""

    def counts(self) -> dict[str, int]:
        """Return the number of instances by condition, and of rejected ones."""
        found = Counter(instance.condition.value for instance in self.instances)
        return {condition.value: found[condition.value] for condition in Condition} | {
            "rejected": len(self.rejected)
        }


class _Rejected(ValueError):  # noqa: N818 - a verdict on one entry
    """An entry that cannot be used; the text says why."""


def classify(entries: Sequence[object], rules: InstanceRules) -> Classified:
    """Read the entries of `/v1/health/service/NAME`; never raises for what they hold."""
    kept: dict[str, Instance] = {}
    rejected: list[Remark] = []
    warnings: list[Remark] = []
    for number, entry in enumerate(entries):
        name = _name(entry, number)
        try:
            instance, remarks = _read(entry, rules)
            if instance.id in kept:
                raise _Rejected("this id was already registered")  # noqa: TRY301 - one way out for all verdicts
            if len(kept) >= MAX_INSTANCES:
                raise _Rejected(f"more than {MAX_INSTANCES} instances")  # noqa: TRY301 - the same
        except (_Rejected, RefusedEndpoint) as refusal:
            rejected.append(Remark(name, str(refusal)))
        else:
            kept[instance.id] = instance
            warnings.extend(Remark(instance.id, why) for why in remarks)
    instances, twins = _merge(kept.values())
    return Classified(instances, _sorted([*rejected, *twins]), _sorted(warnings))


def with_rejected(
    sources: Iterable[Mapping[str, Any]], rejected: Mapping[str, Sequence[Remark]]
) -> list[dict[str, Any]]:
    """Add to the rows of sources what services, by name, do not use of what they found."""
    rows = []
    for source in sources:
        remarks = [remark for name in source["services"] for remark in rejected.get(name, ())]
        unused = dict.fromkeys(remarks)  # what two services do not use is one instance
        counts = {**source["counts"], "rejected": source["counts"]["rejected"] + len(unused)}
        shown = [*source["rejected"], *({"id": remark.id, "why": remark.why} for remark in unused)]
        rows.append({**source, "counts": counts, "rejected": shown[:MAX_SHOWN]})
    return rows


def listed(entries: Sequence[object]) -> Names:
    """Return whom entries are about, usable or not; never raises for what they hold."""
    pairs = (
        (_text(_object(entry, "Node"), "Node"), _text(_object(entry, "Service"), "ID")) for entry in entries
    )
    return frozenset(pair for pair in pairs if all(pair))


def _sorted(remarks: Iterable[Remark]) -> tuple[Remark, ...]:
    return tuple(sorted(remarks, key=lambda remark: (remark.id, remark.why)))


def _merge(instances: Iterable[Instance]) -> tuple[tuple[Instance, ...], list[Remark]]:
    """Keep one instance per address: the healthiest, then the first by id, with the highest weight of them."""
    chosen: dict[str, Instance] = {}
    twins: list[Remark] = []
    for instance in sorted(instances, key=lambda item: (_PREFERENCE[item.condition], item.id)):
        first = chosen.get(instance.address)
        if first is None:
            chosen[instance.address] = instance
            continue
        twins.append(Remark(instance.id, f"{instance.address} is already used by {first.id}"))
        if instance.condition is first.condition:
            chosen[instance.address] = replace(first, weight=max(first.weight, instance.weight))
    return tuple(sorted(chosen.values(), key=lambda item: item.id)), twins


def _name(entry: object, number: int) -> str:
    """Return what an operator can find an entry by, even if half of it is missing."""
    node = _text(_object(entry, "Node"), "Node")
    service = _text(_object(entry, "Service"), "ID")
    shown = "/".join(part for part in (node, service) if part)
    return ascii(shown)[1:-1][:MAX_ID] if shown else f"entry {number}"


def _read(entry: object, rules: InstanceRules) -> tuple[Instance, list[str]]:
    """Return an instance and what was wrong with it without harm."""
    node, service = _object(entry, "Node"), _object(entry, "Service")
    instance_id = _identity(_text(node, "Node"), _text(service, "ID"), rules.datacenter)
    host, port = _location(node, service, rules)
    condition = _condition(entry)
    if rules.keep_critical and condition is Condition.CRITICAL:
        condition = Condition.WARNING
    meta = _object(service, "Meta")
    remarks: list[str] = []
    weight = _weight(_object(service, "Weights"), condition, remarks)
    asked = _option(meta, "lb.weight", MAX_WEIGHT, remarks)
    if asked is not None and condition is not Condition.WARNING:
        weight = asked
    instance = Instance(
        id=instance_id,
        address=endpoint(host, port, rules),
        weight=weight,
        tier=_option(meta, "lb.tier", MAX_TIER, remarks) or 0,
        condition=condition,
    )
    return instance, remarks


def _identity(node: str, service: str, datacenter: str) -> str:
    """Return the backend's id: a service id is unique on its node only."""
    if not node or not service:
        raise _Rejected("no node name or no service id")
    identity = _joined(node, service, datacenter)
    if len(identity) > MAX_ID:
        raise _Rejected(f"an id of more than {MAX_ID} characters")
    if not identity.isprintable() or " " in identity:
        raise _Rejected("an id with blanks or control characters")
    return identity


def _joined(node: str, service: str, datacenter: str) -> str:
    return f"{datacenter}/{node}/{service}" if datacenter else f"{node}/{service}"


def _location(
    node: Mapping[str, object], service: Mapping[str, object], rules: InstanceRules
) -> tuple[object, object]:
    """Return the address and the port that the rules choose."""
    host: object = service.get("Address") or node.get("Address")
    port = service.get("Port")
    kind, _, tag = rules.address_source.partition(":")
    if kind == "node":
        host = node.get("Address")
    elif kind == "tagged":
        tagged = _object(_object(service, "TaggedAddresses"), tag)
        host = tagged.get("Address") or _object(node, "TaggedAddresses").get(tag)
        port = tagged.get("Port") or port
        if not host:
            raise _Rejected(f"no tagged address {tag!r}")
    return host, port if rules.port is None else rules.port


def _condition(entry: object) -> Condition:
    """Return the condition that an instance's checks add up to."""
    checks = entry.get("Checks") if isinstance(entry, dict) else None
    agent_lost = False
    worst = Condition.PASSING
    for check in checks if isinstance(checks, list) else ():
        check_id, status = _text(check, "CheckID"), _text(check, "Status")
        if check_id == _NODE_MAINTENANCE or check_id.startswith(_SERVICE_MAINTENANCE):
            return Condition.MAINTENANCE
        if check_id == _AGENT_CHECK:
            agent_lost = status == "critical"
        elif status == "warning" and worst is Condition.PASSING:
            worst = Condition.WARNING
        elif status not in ("passing", "warning"):
            worst = Condition.CRITICAL
    return Condition.LOST if agent_lost and worst is not Condition.CRITICAL else worst


def _weight(weights: Mapping[str, object], condition: Condition, remarks: list[str]) -> int:
    """Return the registered weight for a condition; 1 for none or a bad one, as Consul's own default."""
    name = "Warning" if condition is Condition.WARNING else "Passing"
    value = weights.get(name, 1)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_WEIGHT:
        remarks.append(f"Weights.{name} {ascii(value)[:40]} ignored: not a number from 0 to {MAX_WEIGHT}")
        return 1
    return value


def _option(meta: Mapping[str, object], name: str, highest: int, remarks: list[str]) -> int | None:
    """Return a number up to `highest` from the service's meta data; None if there is none, with a remark if it is bad.

    Consul 1.8 refuses dots in keys, so `lb.weight` may also be written `lb-weight` or `lb_weight`.
    """
    spelled = next(
        (key for key in (name, name.replace(".", "-"), name.replace(".", "_")) if key in meta), name
    )
    value = meta.get(spelled)
    if value is None:
        return None
    digits = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 9  # noqa: PLR2004 - below 2**31
    number = int(cast("str", value)) if digits else -1
    if not 0 <= number <= highest:
        remarks.append(f"{spelled} {ascii(value)[:40]} ignored: not a whole number from 0 to {highest}")
        return None
    return number


def _object(value: object, key: str) -> Mapping[str, object]:
    """Return the object under a key, or an empty one: null, absent and misplaced are the same."""
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, dict) else {}


def _text(value: object, key: str) -> str:
    inner = value.get(key) if isinstance(value, dict) else None
    return inner if isinstance(inner, str) else ""
