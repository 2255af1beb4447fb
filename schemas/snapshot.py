"""The snapshot: services with discovery resolved and every default filled in; all that is ever pushed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from json.encoder import encode_basestring_ascii
from operator import is_
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from schemas.errors import InvalidDocument, Path
from schemas.fields import BackendAddress, BackendId, Duration, Frozen, ServiceName, Text, refused, unsaid
from schemas.listeners import Listeners, addresses_of
from schemas.loops import Loops
from schemas.options import Access, Drain, Health, Limits, Pool, ProxyProtocol, Timeouts
from schemas.reading.findings import check_all, to_problems
from schemas.sharing import listener_clashes
from schemas.tls import BackendTls, Match, Tls, contradictions, sees_hello

Mode = Literal["rr", "sticky", "leastconn", "p2c", "random"]
OperatorState = Literal["enabled", "drain", "disabled"]

SLICE: Final = 250
"""Backends handled in one piece: a millisecond's work."""
R = TypeVar("R")
_MAX_GENERATION: Final = 2**63 - 1


class Backend(Frozen):
    """One server of a service; a bare address is its short form."""

    address: BackendAddress
    """Where it accepts: `host:port`, `[v6]:port` or `unix:/path`."""
    id: BackendId = Field(default_factory=lambda data: str(data["address"]))
    """Its identity across changes of address and across nodes; the address if left out."""
    weight: Annotated[int, Field(strict=True, ge=0, le=256)] = 1
    """Its share of new connections; 0 takes none."""
    tier: Annotated[int, Field(strict=True, ge=0, le=255)] = 0
    """0 serves first; the next tier takes over when none of this one is usable."""
    state: OperatorState = "enabled"
    """What people want of it."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        return {"address": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        full = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [full["properties"]["address"], full]}


def _distinct(backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    if len({backend.id for backend in backends}) == len(backends):
        return backends
    first: dict[str, int] = {}
    repeated: list[tuple[Path, str]] = []
    for index, backend in enumerate(backends):
        other = first.setdefault(backend.id, index)
        if other == index:
            continue
        if backend.id == backend.address:
            text = f"backends[{other}] has the same address {backend.address}; give each an id of its own, or remove one"
        else:
            text = f"backends[{other}] has the same id {backend.id}"
        repeated.append(((index,), text))
    raise refused(*repeated)


Backends = Annotated[tuple[Backend, ...], AfterValidator(_distinct)]
"""Servers with ids of their own."""


class ServiceOptions(Frozen):
    """All that a service says but for its backends."""

    listen: Listeners
    """Where clients connect: one address or a list."""
    mode: Mode = "rr"
    """The balancing algorithm."""
    seed: Annotated[Text, Field(max_length=255)] = ""
    """Keys the sticky hash, so that clients cannot choose their backend."""
    pool: Pool = Pool()
    """Idle backend connections, ready for a client."""
    health: Health = Health()
    """How backends are found to be up or down."""
    timeouts: Timeouts = Timeouts()
    """Deadlines of a connection; 0s is none."""
    retries: Annotated[int, Field(strict=True, ge=0, le=255)] = 3
    """Further backends tried before the first client byte has been sent to one."""
    proxy_protocol: ProxyProtocol = ProxyProtocol()
    """PROXY headers to backends and from clients."""
    limits: Limits = Limits()
    """Admission limits, per node; 0 is none."""
    access: Access = Access()
    """Who may connect, by real client address."""
    drain: Drain = Drain()
    """How long drained connections may stay."""
    slow_start: Duration = 0.0
    """Over how long a backend that came up grows to its weight; 0s is at once."""
    balance_workers: Annotated[bool, Field(strict=True)] = False
    """Hand clients over to the worker that has the fewest, for connections that are few and long."""
    match: Match | None = Field(default=None, exclude_if=unsaid)
    """Which clients of its listeners it takes, if other services share them; without it: all that no other takes."""
    tls: Tls | None = Field(default=None, exclude_if=unsaid)
    """How TLS of clients ends here; without it their bytes are passed on as they are."""
    backend_tls: BackendTls | None = Field(default=None, exclude_if=unsaid)
    """How TLS to backends begins here; without it they get what the client sends, or what was in its TLS."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses that it listens on."""
        return tuple(address for one in self.listen for address in addresses_of(one))

    @model_validator(mode="after")
    def _reuse_sends_no_header(self) -> Self:
        send = self.proxy_protocol.send
        if self.pool.mode == "reuse" and send != "off":
            raise refused(
                (
                    ("proxy_protocol", "send"),
                    f"{send} and pool.mode reuse exclude each other: a connection that carried one client's PROXY header cannot serve another; use pool.mode preconnect or off",
                )
            )
        return self

    @model_validator(mode="after")
    def _tls_fits(self) -> Self:
        knows = sees_hello(self.tls, self.match)
        checked = self.health.active.over_tls
        wrong = contradictions(self.backend_tls, self.pool.mode, checked, knows_clients=knows)
        if wrong:
            raise refused(*wrong, about=("backend_tls", "pool", "health", "tls", "match"))
        return self


class Service(ServiceOptions):
    """A named set of listeners, a balancing mode and a backend set."""

    backends: Backends = ()
    """Its servers."""


def backend_loops(backends: Mapping[str, Sequence[Backend]], loops: Loops) -> list[tuple[Path, str]]:
    """Find backends that lead back to the services that they are of; `loops` takes all others.

    Returns for each its path below `services`, and the message.
    """
    return finish(_loop_steps(backends, loops))


def _loop_steps(
    backends: Mapping[str, Sequence[Backend]], loops: Loops
) -> Generator[None, None, list[tuple[Path, str]]]:
    found: list[tuple[Path, str]] = []
    for name, each in backends.items():
        for start in range(0, len(each), SLICE):
            addresses = [backend.address for backend in each[start : start + SLICE]]
            for index, address in enumerate(addresses if loops.may_land(addresses) else (), start):
                if message := loops.add(name, address):
                    found.append(((name, "backends", index, "address"), message))
            yield
    return found


def _clash_steps(services: Mapping[str, Service]) -> Generator[None, None, list[tuple[Path, str]]]:
    loops = Loops({name: service.addresses for name, service in services.items()})
    found = yield from _loop_steps({name: service.backends for name, service in services.items()}, loops)
    return listener_clashes(services) + found


def _no_clash(services: dict[str, Service], info: ValidationInfo) -> dict[str, Service]:
    clashes = [] if info.context else finish(_clash_steps(services))
    if clashes:
        raise refused(*clashes)
    return services


class Written:
    """Canonical JSON that was written before, of backends in slices: what is made of the same objects is not written again."""

    def __init__(self) -> None:
        self._options: dict[str, tuple[Service, str, str]] = {}
        """By name: a service, and what is written before and behind its backends."""
        self._slices: dict[tuple[str, int], tuple[tuple[Backend, ...], str]] = {}
        """By service, and where among its backends the slice begins."""

    def options(self, name: str, service: Service) -> tuple[str, str]:
        """Return what stands before and behind the elements of a service's list of backends."""
        known, head, tail = self._options.get(name, (None, "", ""))
        if known is not service:
            said = service.model_dump(mode="json", exclude={"backends"})
            # A key cannot stand within a string of JSON: its quotation marks would be escaped there.
            head, tail = _canonical({**said, "backends": []}).split('"backends":[]')
            self._options[name] = service, head, tail
        return head, tail

    def text(self, service: str, start: int, backends: tuple[Backend, ...]) -> str:
        """Return the elements of a list, without its brackets."""
        known, text = self._slices.get((service, start), ((), ""))
        if len(known) != len(backends) or not all(map(is_, known, backends)):
            text = ",".join(map(_canonical_backend, backends))
            self._slices[service, start] = backends, text
        return text

    def keep(self, services: Mapping[str, Service]) -> None:
        """Forget what these do not have."""
        self._options = {name: one for name, one in self._options.items() if name in services}
        sizes = {name: len(service.backends) for name, service in services.items()}
        self._slices = {key: one for key, one in self._slices.items() if key[1] < sizes.get(key[0], 0)}


def services_text(services: Mapping[str, Service], written: Written | None = None) -> Iterator[str]:
    """Yield the canonical JSON of services (sorted keys, no spaces) in pieces of at most SLICE backends.

    Whoever must not hold up others does something else between two pieces.
    """
    written = written or Written()
    opening = "{"
    for name in sorted(services):
        service = services[name]
        head, tail = written.options(name, service)
        yield f'{opening}{_canonical(name)}:{head}"backends":['
        backends = service.backends
        for start in range(0, len(backends), SLICE):
            yield ("," if start else "") + written.text(name, start, backends[start : start + SLICE])
        yield f"]{tail}"
        opening = ","
    yield "{}" if opening == "{" else "}"


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _canonical_backend(backend: Backend) -> str:
    """Write what `_canonical` makes of a backend, in a fifth of its time: a snapshot has 10,000 of them."""
    address, id_ = encode_basestring_ascii(backend.address), encode_basestring_ascii(backend.id)
    return (
        f'{{"address":{address},"id":{id_},"state":"{backend.state}",'
        f'"tier":{backend.tier},"weight":{backend.weight}}}'
    )


def digest(services: Mapping[str, Service]) -> str:
    """Hash the content of a snapshot: sha256 of canonical JSON, in hexadecimal.

    Equal on every machine, and for every spelling of the same content.
    """
    return finish(_digest_steps(services))


def _digest_steps(
    services: Mapping[str, Service], written: Written | None = None
) -> Generator[None, None, str]:
    state = hashlib.sha256()
    for piece in services_text(services, written):
        state.update(piece.encode("ascii"))
        yield
    return state.hexdigest()


class Snapshot(Frozen):
    """Everything that a data plane runs."""

    version: Literal[1] = 1
    """Of this format."""
    generation: Annotated[int, Field(strict=True, ge=0, le=_MAX_GENERATION)]
    """Grows with every change; no part of the hash."""
    services: Annotated[dict[ServiceName, Service], AfterValidator(_no_clash)]
    """By name."""
    hash: str = Field(default="", validate_default=True)
    """The digest of `services`; computed if left out, refused if it differs."""

    @field_validator("hash", mode="before")
    @classmethod
    def _hash_fits(cls, value: object, info: ValidationInfo) -> object:
        if "services" not in info.data:
            return ""
        actual = info.context["digest"] if info.context else digest(info.data["services"])
        if value not in ("", actual):
            raise ValueError(
                f"is not the hash of these services, which is {actual}; leave it out to have it computed"
            )
        return actual

    def text(self, written: Written | None = None) -> Iterator[str]:
        """Yield what travels, every default resolved, as the pieces of one JSON text (see `services_text`)."""
        yield f'{{"version":{self.version},"generation":{self.generation},"hash":"{self.hash}","services":'
        yield from services_text(self.services, written)
        yield "}"

    def body(self) -> dict[str, Any]:
        """Return what travels as JSON, every default resolved."""
        body: dict[str, Any] = json.loads("".join(self.text()))
        return body


def parse_snapshot(data: object) -> Snapshot:
    """Check a decoded `PUT /v1/snapshot` body and fill in its defaults.

    InvalidDocument has every problem found, by path.
    """
    findings, snapshot = check_all(Snapshot, data)
    if findings or snapshot is None:
        raise InvalidDocument(to_problems(findings, data))
    return snapshot


def parse_snapshot_steps(
    data: object, before: Mapping[str, Service] = MappingProxyType({}), written: Written | None = None
) -> Generator[None, None, Snapshot]:
    """Do what `parse_snapshot` does in slices of SLICE backends; the generator returns the snapshot.

    Of many backends those that a service had `before` are taken from there: what did not change is not checked again, and is
    the same object. What is wrong is found at once, by `parse_snapshot` itself: a refusal is rare, and wants every problem.
    """
    try:
        if not isinstance(data, dict) or not isinstance(data.get("services"), dict):
            return parse_snapshot(data)
        services = {}
        for name, service in data["services"].items():
            services[name] = yield from _backends_checked(service, before.get(name))
        checked = {
            name: before[name] if service == before.get(name) else service
            for name, service in _SERVICES.validate_python(services).items()
        }
        yield
        if (yield from _clash_steps(checked)):
            return parse_snapshot(data)
        actual = yield from _digest_steps(checked, written)
        return Snapshot.model_validate({**data, "services": checked}, context={"digest": actual})
    except ValidationError:
        return parse_snapshot(data)


def _backends_checked(service: object, before: Service | None) -> Generator[None, None, object]:
    """Return a raw service whose backends, if they are many, are models already."""
    backends = service.get("backends") if isinstance(service, dict) else None
    if not isinstance(service, dict) or not isinstance(backends, list) or len(backends) <= SLICE:
        return service
    there: tuple[Backend, ...] = () if before is None else before.backends
    known: dict[str, Backend] = {}
    checked: list[Backend] = []
    for start in range(0, len(backends), SLICE):
        rows, same = backends[start : start + SLICE], there[start : start + SLICE]
        if rows == [vars(backend) for backend in same] and _whole(rows):
            checked += same
        else:
            known = known or {backend.id: backend for backend in there}
            found = [_unchanged(row, known) for row in rows]
            others = [row for row, backend in zip(rows, found, strict=True) if backend is None]
            made = iter(_BACKENDS.validate_python(others))
            checked += [next(made) if backend is None else backend for backend in found]
        yield
    return {**service, "backends": checked}


def _unchanged(row: Any, known: Mapping[str, Backend]) -> Backend | None:
    """Return the one of the `known` backends, by id, that a raw one describes to the letter; None: it has to be checked."""
    try:
        backend = known.get(row["id"])
    except (TypeError, KeyError):
        return None
    return backend if backend is not None and row == vars(backend) and _whole((row,)) else None


def _whole(rows: Iterable[Mapping[str, object]]) -> bool:
    """Return whether what is equal to whole numbers is: 1.0 and true are equal to 1."""
    return {type(row[name]) for row in rows for name in ("weight", "tier")} == {int}


def finish(steps: Generator[None, None, R]) -> R:
    """Run a sliced computation to its end and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: R = stop.value
            return result


_BACKENDS: Final = TypeAdapter(list[Backend])
_SERVICES: Final = TypeAdapter(dict[ServiceName, Service])
