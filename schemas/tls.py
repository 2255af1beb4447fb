"""What a service says of TLS: which clients of a shared listener are its own, how TLS ends here, how it begins to backends."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from schemas.errors import Path, shown
from schemas.fields import Cidrs, Frozen, Switch, Text, not_empty, refused

SYSTEM: Final = "system"
"""What `backend_tls.ca` says for the authorities that the machine trusts."""
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = rf"{_LABEL}(?:\.{_LABEL})*"
_HOST_RE: Final = re.compile(_HOST)
_NUMERIC_RE: Final = re.compile(r"(?:.*\.)?[0-9]+")
_NAME_CHARS: Final = 253  # RFC 1035
_ALPN_BYTES: Final = 255  # RFC 7301: the length of one is a byte,
_ALPN_ALL: Final = (
    1024  # and that of all two; nobody has more than a few, and a ClientHello of many records helps nobody
)
_ADDRESS_RE: Final = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*|[0-9.]+")


# --- names ------------------------------------------------------------------------------------------


def _host_name(value: str) -> str:
    """Check a name as clients send it: ASCII, in lower case, without the dot at its end."""
    name = value.lower().removesuffix(".")
    if not name.isascii():
        raise ValueError(f"must be ASCII, as clients send it{_ascii_hint(name)}, not {shown(value)}")
    if len(name) > _NAME_CHARS or _HOST_RE.fullmatch(name) is None or _NUMERIC_RE.fullmatch(name):
        raise ValueError(f'must be a host name such as "www.example.com", not {shown(value)}')
    return name


def _ascii_hint(name: str) -> str:
    try:
        found = name.encode("idna").decode("ascii")
        same = found.encode("ascii").decode("idna") == name
    except UnicodeError:
        return ""
    return f': "{found}"' if same else ""  # other names have another form in the standard of 2008


def _sni_name(value: str) -> str:
    """Check a name of `match.sni`: a host name, or `*.` and one."""
    star, _, rest = value.partition(".")
    if star == "*" and rest:
        return f"*.{_host_name(rest)}"
    if "*" in value:
        raise ValueError(
            f'may have "*" only in place of its whole first label, such as "*.example.com", not {shown(value)}'
        )
    if _ADDRESS_RE.fullmatch(value):
        raise ValueError(f"must be a host name: clients send no SNI for an address such as {shown(value)}")
    return _host_name(value)


def _server_name(value: str) -> str:
    """Check the name of a backend's certificate: a host name or an IP address; empty: none is said."""
    if not value or _ADDRESS_RE.fullmatch(value.lower()):
        return value.lower()
    return _host_name(value)


def _alpn_word(value: str) -> str:
    if not value.isascii() or not value or len(value) > _ALPN_BYTES:
        raise ValueError(
            f'must be 1 to {_ALPN_BYTES} characters of ASCII, such as "h2" or "postgresql", not {shown(value)}'
        )
    return value


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    first: dict[str, int] = {}
    again = [
        ((index,), f"{shown(value)} stands there already, at [{other}]")
        for index, value in enumerate(values)
        if (other := first.setdefault(value, index)) != index
    ]
    if again:
        raise refused(*again)
    return values


def _not_too_long(values: tuple[str, ...]) -> tuple[str, ...]:
    if sum(len(value) + 1 for value in values) > _ALPN_ALL:
        raise ValueError(f"must have no more than {_ALPN_ALL} bytes together")
    return values


def _sorted(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(values))


_NAME_PATTERN: Final = r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?\.?$"
_SniName = Annotated[
    Text,
    AfterValidator(_sni_name),
    WithJsonSchema(
        {"type": "string", "pattern": _NAME_PATTERN, "examples": ["www.example.com", "*.example.com"]}
    ),
]
_Alpn = Annotated[
    Text,
    AfterValidator(_alpn_word),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": _ALPN_BYTES,
            "examples": ["h2", "http/1.1", "postgresql"],
        }
    ),
]
_Names = Annotated[tuple[_SniName, ...], AfterValidator(_distinct), AfterValidator(_sorted)]
_Protocols = Annotated[tuple[_Alpn, ...], AfterValidator(_distinct), AfterValidator(_not_too_long)]
_ServerName = Annotated[Text, AfterValidator(_server_name), Field(max_length=_NAME_CHARS + 1)]


# --- files and ciphers ------------------------------------------------------------------------------


def _absolute(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError(
            f'must be an absolute path here, such as "/etc/lb/site.pem", not {shown(value)}: only an lb.yaml in a file '
            "has a folder that a relative path starts at"
        )
    return value


def _absolute_or_system(value: str) -> str:
    return value if value == SYSTEM else _absolute(value)


File = Annotated[
    Text, AfterValidator(_absolute), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 4096})
]
"""A file by absolute path; in an lb.yaml that is a file relative ones start at its folder (`schemas.desired.at_folder`)."""
_Authorities = Annotated[
    Text,
    AfterValidator(_absolute_or_system),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": 4096, "examples": [SYSTEM, "/etc/lb/ca.pem"]}
    ),
]


def _version(value: object) -> object:
    return str(value) if isinstance(value, float) else value  # YAML reads 1.2 as a number


def _known_ciphers(value: str) -> str:
    """Check each name of OpenSSL's list: it passes over unknown ones, so a slip of the pen would go unseen."""
    if not value:
        return value
    import ssl  # noqa: PLC0415 - few configurations name ciphers, and it costs every command that reads one

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for part in re.split(r"[:, ]+", value):
        if part[:1] in {"", "!", "-", "@"}:  # what is left out, and commands such as @STRENGTH
            continue
        try:
            context.set_ciphers(part)
        except ssl.SSLError:
            hint = ""
            if part.startswith("TLS_"):
                hint = "; this list is for TLS 1.2, and the ciphers of TLS 1.3 are always on"
            raise ValueError(
                f"has {shown(part)}, which is no cipher that this machine's OpenSSL knows{hint}"
            ) from None
    try:
        context.set_ciphers(value)
    except ssl.SSLError:
        raise ValueError("must leave at least one cipher") from None
    return value


# --- the sections -----------------------------------------------------------------------------------


class Match(Frozen):
    """Which clients of a listener are this service's, where several services share it."""

    sni: _Names = ()
    """Names that clients ask for: whole ones, or with `*.` for one label in front."""
    alpn: Annotated[_Protocols, AfterValidator(_sorted)] = ()
    """Protocols of which a client offers at least one."""
    source: Cidrs = ()
    """Networks that clients come from, by real address."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not (self.sni or self.alpn or self.source):
            raise refused(
                ((), "must have sni, alpn or source; the service for all other clients has no match"),
                about=("sni", "alpn", "source"),
            )
        return self


class Certificate(Frozen):
    """A certificate and its key, in PEM; both may be in one file, and are taken when they are renewed."""

    cert: File
    """The certificate, followed by those that lead to its authority."""
    key: File
    """Its private key, without a passphrase."""


def _different(values: tuple[Certificate, ...]) -> tuple[Certificate, ...]:
    first: dict[str, int] = {}
    again = [
        ((index, "cert"), f"is that of certificates[{other}]")
        for index, one in enumerate(values)
        if (other := first.setdefault(one.cert, index)) != index
    ]
    if again:
        raise refused(*again)
    return values


class Tls(Frozen):
    """How TLS of clients ends here."""

    certificates: Annotated[
        tuple[Certificate, ...],
        Field(json_schema_extra={"minItems": 1}),
        AfterValidator(not_empty),
        AfterValidator(_different),
    ]
    """Chosen by the name that a client asks for; the first is the default."""
    client_ca: File | None = None
    """Authorities; clients must have a certificate of one. Left out: clients need none."""
    min_version: Annotated[
        Literal["1.2", "1.3"],
        BeforeValidator(_version),
        WithJsonSchema({"enum": ["1.2", "1.3", 1.2, 1.3]}),
    ] = "1.2"
    """The oldest version of TLS that clients may speak."""
    alpn: _Protocols = ()
    """Protocols that are agreed to, the preferred first; empty: none is negotiated."""
    ciphers: Annotated[Text, AfterValidator(_known_ciphers)] = ""
    """OpenSSL's list of ciphers for TLS 1.2; empty: those with forward secrecy and authenticated encryption."""


class BackendTls(Frozen):
    """How TLS to backends begins here."""

    ca: _Authorities = SYSTEM
    """Authorities that certificates of backends must be of: `system`, or a file."""
    server_name: _ServerName = ""
    """Sent as SNI, and verified; empty: the host of the backend's address, of which an IP address is not sent."""
    verify: Switch = True
    """Whether the backend's certificate is verified; without that anybody in between can read and change what passes."""
    cert: File | None = None
    """Our own certificate, for backends that ask for one."""
    key: File | None = None
    """Its private key, without a passphrase."""
    alpn: _Protocols = ()
    """Protocols that are offered to backends, the preferred first."""
    pass_sni: Switch = False
    """Send the name that the client has asked for; what is verified stays. Needs `tls`, or `match` by name or protocol."""
    pass_alpn: Switch = False
    """Offer the protocol that was agreed on with the client, or those that it offers where its TLS does not end here. Needs the same."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wrong: list[tuple[Path, str]] = []
        about: tuple[str, ...] = ()
        if (self.cert is None) != (self.key is None):
            there, missing = ("cert", "key") if self.key is None else ("key", "cert")
            wrong.append(((there,), f"needs {missing} beside it; they may be one file"))
            about += ("cert", "key")
        if not self.verify and self.ca != SYSTEM:
            wrong.append((("ca",), "has no effect with verify: false; leave one of them out"))
            about += ("ca", "verify")
        if self.pass_alpn and self.alpn:
            wrong.append((("alpn",), "excludes pass_alpn: what is offered is the client's"))
            about += ("alpn", "pass_alpn")
        if wrong:
            raise refused(*wrong, about=about)
        return self


def contradictions(
    begun: BackendTls | None, pool_mode: str, checked: str, *, knows_clients: bool
) -> list[tuple[Path, str]]:
    """Find what contradicts a service's `backend_tls`: paths below the service, and messages.

    Args:
        begun: The section; None: there is none.
        pool_mode: Which pool the service has.
        checked: Which key of `health.active` says that its checks are over TLS; empty: none.
        knows_clients: Whether what clients say in TLS is seen here: see `sees_hello`.
    """
    if begun is None:
        lacking = "needs backend_tls, which says how TLS begins and what is verified"
        return [(("health", "active", checked), lacking)] if checked else []
    if not knows_clients:
        why = (
            "needs tls, or a match with sni or alpn: without them nobody reads what the client asks for, and "
            "nothing could be passed on; add one of them, or leave this out"
        )
    elif pool_mode != "off":
        why = f"needs pool.mode off, not {pool_mode}: a connection that is made ahead knows nothing of its client"
    else:
        return []
    return [(("backend_tls", key), why) for key in ("pass_sni", "pass_alpn") if getattr(begun, key)]


def sees_hello(ended: Tls | None, match: Match | None) -> bool:
    """Return whether a service knows what its clients say in TLS: it ends there, or tells whose they are."""
    return ended is not None or (match is not None and bool(match.sni or match.alpn))
