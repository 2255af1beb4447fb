"""What a service may say besides its listeners and backends: names and defaults as in lb.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from schemas.errors import shown
from schemas.fields import (
    Cidrs,
    Count,
    Duration,
    Frozen,
    Payload,
    Percent,
    Port,
    PositiveDuration,
    Switch,
    Text,
    not_empty,
    off_word,
    refused,
    unsaid,
)

_Off = BeforeValidator(off_word)
_Small = Annotated[int, Field(strict=True, ge=1, le=1000)]
_Idle = Annotated[int, Field(strict=True, ge=0, le=65536)]
_STATUS_RANGE: Final = re.compile(r"([1-5][0-9]{2})-([1-5][0-9]{2})")


def _status(value: object) -> object:
    """Check one status, or the text of a range, and leave it as it is."""
    if isinstance(value, str):
        match = _STATUS_RANGE.fullmatch(value)
        if match is not None and match[1] <= match[2]:
            return value
    elif isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:  # noqa: PLR2004 - HTTP's
        return value
    raise ValueError(
        f"must be a status from 100 to 599, or a range of them such as 200-399, not {shown(value)}"
    )


def _status_bounds(value: int | str) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    first, _, last = value.partition("-")
    return int(first), int(last)


def _join_statuses(values: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Write a set of statuses in its one normal form: sorted, with neighbours in one range."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(map(_status_bounds, values)):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(first if first == last else f"{first}-{last}" for first, last in joined)


_Status = Annotated[
    int | str,
    BeforeValidator(_status),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 100, "maximum": 599},
                {"type": "string", "pattern": f"^{_STATUS_RANGE.pattern}$", "examples": ["200-399"]},
            ]
        }
    ),
]


class Pool(Frozen):
    """Idle connections to each backend, per node."""

    mode: Annotated[Literal["off", "preconnect", "reuse"], _Off] = "preconnect"
    """preconnect: dialled ahead, each for one client. reuse: returned for the next client after a clean end."""
    min_idle: _Idle = 0
    """Kept ready even without traffic."""
    max_idle: _Idle = 256
    """Never more than this."""
    idle_timeout: Duration = 30.0
    """Closed after being unused for so long; 0s is never."""
    max_age: Duration = 300.0
    """Closed at this age; 0s is never."""
    greeting_age: Duration = 1.0
    """preconnect: closed at this age if the backend has spoken, for then it waits for a login; 0s is never."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_idle > self.max_idle:
            raise refused(
                (("min_idle",), f"{self.min_idle} is above max_idle, which is {self.max_idle}"),
                about=("min_idle", "max_idle"),
            )
        return self


def _http_path(value: str) -> str:
    if not value.startswith("/") or " " in value or not value.isascii():
        raise ValueError('must begin with "/" and be ASCII without spaces, such as "/health"')
    return value


def _http_host(value: str) -> str:
    if " " in value or not value.isascii():
        raise ValueError('must be ASCII without spaces, such as "app.example"')
    return value


class HttpCheck(Frozen):
    """What an HTTP check asks, and what it takes for an answer."""

    path: Annotated[Text, AfterValidator(_http_path)] = "/"
    """Asked with GET."""
    status: Annotated[
        tuple[_Status, ...],
        Field(json_schema_extra={"minItems": 1}),
        AfterValidator(not_empty),
        AfterValidator(_join_statuses),
    ] = ("200-399",)
    """Each of these, numbers or ranges, means up."""
    host: Annotated[Text, AfterValidator(_http_host), Field(max_length=255)] = ""
    """Host header; the backend's address if empty."""

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """What means up, as first and last of each range."""
        return tuple(map(_status_bounds, self.status))


class ExpectCheck(Frozen):
    """What a check sends, and what it waits for in the answer."""

    send: Payload = ""
    """Sent after the connection; empty: listen only."""
    expect: Annotated[Payload, Field(min_length=1)]
    """What must occur in the first 64 KiB of the answer."""
    quit: Payload = ""
    """Sent after that, as the goodbye of the protocol (`QUIT\\r\\n`): who hangs up without one is logged by many."""

    def texts(self) -> tuple[bytes, bytes, bytes]:
        """Return what goes out, what must come back, and what goes out after that."""
        return self.send.encode("latin-1"), self.expect.encode("latin-1"), self.quit.encode("latin-1")


class ActiveCheck(Frozen):
    """How each backend is probed."""

    type: Literal["tcp", "tls", "http", "expect", "none"] = "tcp"
    """What a probe does after it has connected; tls: a handshake, and a look at the backend's certificate."""
    interval: PositiveDuration = 2.0
    """From one probe to the next."""
    timeout: PositiveDuration = 1.0
    """For the whole probe."""
    rise: _Small = 2
    """Successes in a row that mean up."""
    fall: _Small = 3
    """Failures in a row that mean down."""
    jitter: Percent = 0.1
    """Share of the interval by which a probe may be early or late."""
    port: Port | None = None
    """Probe this port instead of the backend's own."""
    http: HttpCheck = HttpCheck()
    """For type http."""
    expect: ExpectCheck | None = None
    """For type expect."""
    tls: Switch | None = Field(default=None, exclude_if=lambda said: said is None)  # false says something
    """Whether a probe is over TLS; left out: if the service has `backend_tls`, and the probe no port of its own."""

    @property
    def over_tls(self) -> str:
        """The key that says that a probe is over TLS; empty: none does."""
        return "type" if self.type == "tls" else "tls" if self.tls else ""

    @model_validator(mode="after")
    def _type_fits(self) -> Self:
        if self.type == "expect" and self.expect is None:
            raise refused(
                (("expect",), 'is required with type expect, such as {send: "PING\\r\\n", expect: "+PONG"}'),
                about=("type", "expect"),
            )
        if self.type == "tls" and self.tls is False:
            raise refused((("tls",), "must not be false with type tls"), about=("type", "tls"))
        return self


class PassiveCheck(Frozen):
    """When a backend is ejected for what clients' connections met."""

    failures: Count = 5
    """Failures in a row that eject; 0 is never."""
    ejection: PositiveDuration = 30.0
    """How long the first ejection lasts."""
    max_ejection: PositiveDuration = 300.0
    """How long repeated ejections may become."""
    max_ejected: Percent = 0.1
    """Share of a service's backends that may be ejected; one always may."""
    resets: Annotated[Literal["off", "unprovoked", "any"], _Off] = "unprovoked"
    """Which resets before a backend's first byte count beside failed connects: none, those that no client can have
    caused, or all. Clients cause them by sending what the backend refuses unread."""

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.ejection > self.max_ejection:
            raise refused((("ejection",), "is above max_ejection"), about=("ejection", "max_ejection"))
        return self


class Health(Frozen):
    """How backends are found to be up or down."""

    active: ActiveCheck = ActiveCheck()
    """Probes."""
    passive: PassiveCheck = PassiveCheck()
    """What clients' connections meet."""
    panic: Percent = 0.5
    """Below this share of usable backends health is ignored; 0% is never."""


class Timeouts(Frozen):
    """Deadlines of a connection; 0s is none."""

    connect: Duration = 2.0
    """For the connection to one backend."""
    idle: Duration = 600.0
    """Without a byte either way."""
    half_closed: Duration = 30.0
    """Without a byte after the backend has finished; a client that finished waits for its answer, as long as `idle`."""
    lifetime: Duration = 0.0
    """For the whole connection."""
    proxy_header: Duration = 5.0
    """For the client's PROXY header."""
    client_hello: Duration = Field(default=5.0, exclude_if=lambda seconds: seconds == 5.0)  # noqa: PLR2004 - the default
    """For the beginning of the client's TLS, where services share a listener."""
    tls_handshake: Duration = Field(default=10.0, exclude_if=lambda seconds: seconds == 10.0)  # noqa: PLR2004 - the same
    """For the client's TLS handshake, where TLS ends here; the backend's has what is left of `connect`."""


class ProxyProtocol(Frozen):
    """PROXY headers, which carry the client's address."""

    send: Annotated[Literal["off", "v1", "v2"], _Off] = "off"
    """To backends."""
    accept: Annotated[Literal["off", "required"], _Off] = "off"
    """From clients."""
    trusted: Cidrs = ()
    """Networks whose headers are believed; anybody else is closed."""
    send_tls: Switch = Field(default=True, exclude_if=bool)
    """With send v2, add what is known of a client's TLS: the name that it asks for, and if its TLS ends here the protocol, the
    version, the cipher and the name in its certificate."""
    pass_tlvs: Switch = Field(default=False, exclude_if=unsaid)
    """With send v2, pass on the fields (TLVs) of the v2 headers that clients begin with."""
    checksum: Switch = Field(default=False, exclude_if=unsaid)
    """With send v2, add a checksum (CRC-32C)."""

    @model_validator(mode="after")
    def _fields_have_their_version(self) -> Self:
        wanted = [name for name in ("pass_tlvs", "checksum") if getattr(self, name)]
        if wanted and self.send != "v2":
            raise refused(
                *(((name,), f"needs send v2, and send is {self.send}") for name in wanted),
                about=("send", *wanted),
            )
        if self.pass_tlvs and self.accept == "off":
            raise refused(
                (("pass_tlvs",), "needs accept required: without it there is nothing to pass on"),
                about=("accept", "pass_tlvs"),
            )
        return self

    @model_validator(mode="after")
    def _somebody_is_trusted(self) -> Self:
        if self.accept == "required" and not self.trusted:
            raise refused(
                (("trusted",), 'must not be empty with accept required, such as ["10.0.0.0/8"]'),
                about=("accept", "trusted"),
            )
        return self


class Limits(Frozen):
    """Admission limits of a node; 0 is none."""

    connections: Count = 0
    """Of the service."""
    per_backend: Count = 0
    """Of each backend, pooled ones included."""
    per_client: Count = 0
    """Of each client address."""
    client_rate: Annotated[
        float, Field(strict=True, ge=0, le=1_000_000, allow_inf_nan=False), AfterValidator(abs)
    ] = 0.0  # -0.0 is equal to 0.0, and would have another hash
    """New connections a second and client address, with a burst of one second."""
    queue: Count = 0
    """Clients that may wait for a place."""
    queue_timeout: Duration = 5.0
    """How long they may wait."""
    queue_abandoned: Literal["keep", "drop"] = "keep"
    """What becomes of a client whose FIN comes while it waits for a place or a dial."""


class Access(Frozen):
    """Networks, matched with the real client address."""

    allow: Cidrs = ()
    """Only these; empty: everybody."""
    deny: Cidrs = ()
    """Never these, even if allowed."""


class Drain(Frozen):
    """How long the connections of a drained backend may stay."""

    timeout: Duration = 60.0
    """Then what is left is closed,"""
    close: Duration = 10.0
    """spread over this time."""
