"""What may stand behind the addresses of a version 2 header: type-length-value fields, in order, known and unknown.

Theory of operation:

1. A field is a type, a length and a value. Fields of types that are not in the specification (clouds have some of their own) are
   valid whatever they say, and may come more than once.
2. Known ones may come once, and say what the specification has them say: a name twice is two names, and who reads the other one
   is deceived. What is longer, or other characters than there, is refused.
3. A checksum covers the whole header, so it is neither kept nor passed on: each header has its own. Nor is padding.

Source: sections 2.2.1 to 2.2.7 of the same document as in the modules beside.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from dataplane.core.proxy_protocol.header import Fault, Field, ProxyError

if TYPE_CHECKING:
    from collections.abc import Iterable


class Kind(IntEnum):
    """The types of fields that the specification has."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    SSL_SIG_ALG = 0x24
    SSL_KEY_ALG = 0x25
    NETNS = 0x30


CHECKSUM_BYTES: Final = 4
HEAD_BYTES: Final = 3
"""Type and length of a field."""
NO_CHECKSUM: Final = Field(Kind.CRC32C, bytes(CHECKSUM_BYTES))
"""What a checksum is while it is computed."""
_VALUE_MAX: Final = 0xFFFF
_LONGEST: Final[dict[int, int]] = {Kind.ALPN: 255, Kind.AUTHORITY: 255, Kind.UNIQUE_ID: 128}
"""Bytes: what TLS can say (RFC 7301, section 3.1; a host name), and what the specification has for an identifier."""
_ENCODINGS: Final[dict[int, str]] = {
    Kind.AUTHORITY: "utf-8",
    Kind.NETNS: "ascii",
    Kind.SSL_VERSION: "ascii",
    Kind.SSL_CN: "utf-8",
    Kind.SSL_CIPHER: "ascii",
    Kind.SSL_SIG_ALG: "ascii",
    Kind.SSL_KEY_ALG: "ascii",
}
_PARTS: Final = (
    Kind.SSL_VERSION,
    Kind.SSL_CN,
    Kind.SSL_CIPHER,
    Kind.SSL_SIG_ALG,
    Kind.SSL_KEY_ALG,
)
_ONCE: Final = frozenset({Kind.ALPN, Kind.AUTHORITY, Kind.CRC32C, Kind.UNIQUE_ID, Kind.SSL, Kind.NETNS})
_SSL_HEAD: Final = 5
"""Client flags and the result of verification."""

CLIENT_SSL: Final = 0x01
CLIENT_CERT_CONN: Final = 0x02
CLIENT_CERT_SESS: Final = 0x04


class Ssl(NamedTuple):
    """What the field of type SSL says: how a client's TLS ended in front of the server."""

    client: int = CLIENT_SSL
    """Flags: TLS was used; the client has shown a certificate on this connection; or in this session, perhaps before."""
    verified: bool = False
    """It has shown a certificate, and that was accepted."""
    version: str = ""
    """Of TLS, such as `TLSv1.3`; empty, here and below: not told."""
    cn: str = ""
    """The common name of the client's certificate."""
    cipher: str = ""
    """By OpenSSL's name."""
    sig_alg: str = ""
    """What the certificate is signed with that the client was shown, such as `SHA256`."""
    key_alg: str = ""
    """The kind and size of its key, such as `RSA2048`."""

    def encode(self) -> bytes:
        """Return the value of the field."""
        head = bytes((self.client,)) + (0 if self.verified else 1).to_bytes(4)
        said = zip(_PARTS, (self.version, self.cn, self.cipher, self.sig_alg, self.key_alg), strict=True)
        return head + encode_fields(Field(kind, text.encode("utf-8")) for kind, text in said if text)


def encode_fields(fields: Iterable[Field]) -> bytes:
    """Write fields one behind the other."""
    return b"".join(bytes((kind,)) + len(value).to_bytes(2) + value for kind, value in fields)


def decode_ssl(value: bytes) -> Ssl | None:
    """Read the value of an SSL field; None: it is malformed."""
    fields = None if len(value) < _SSL_HEAD else split(value, _SSL_HEAD)
    if fields is None:
        return None
    parts = [field for field in fields if field.kind in _PARTS]
    told = {kind: part for kind, part in parts if _says_what_it_may(kind, part)}
    if len(told) < len(parts):  # malformed, or twice
        return None
    texts = [told.get(kind, b"").decode("utf-8") for kind in _PARTS]
    return Ssl(value[0], not any(value[1:_SSL_HEAD]), *texts)


def split(data: bytes, start: int) -> tuple[Field, ...] | None:
    """Read fields from `start` to the end; None: the last one does not end there."""
    fields = []
    position, end = start, len(data)
    while position < end:
        value = position + HEAD_BYTES
        after = value + int.from_bytes(data[position + 1 : value])
        if value > end or after > end:
            return None
        fields.append(Field(data[position], data[value:after]))
        position = after
    return tuple(fields)


def check(fields: tuple[Field, ...], header: bytes) -> None:
    """Refuse fields that are not as the specification has them, naming the header that they are from.

    Raises:
        ProxyError: One is malformed, or there twice.
    """
    seen = set()
    for kind, value in fields:
        if kind in _ONCE and kind in seen:
            raise ProxyError(Fault.TLV, header)
        seen.add(kind)
        if not _says_what_it_may(kind, value):
            raise ProxyError(Fault.TLV, header)


def _says_what_it_may(kind: int, value: bytes) -> bool:
    if kind == Kind.CRC32C:
        return len(value) == CHECKSUM_BYTES
    if kind == Kind.SSL:
        return decode_ssl(value) is not None
    if len(value) > _LONGEST.get(kind, _VALUE_MAX):
        return False
    encoding = _ENCODINGS.get(kind)
    if encoding is None:
        return True
    try:
        value.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def passed_on(accepted: tuple[Field, ...], own: tuple[Field, ...]) -> tuple[Field, ...]:
    """Return what a backend is told: what a client's balancer has said, and our `own` words where it has said nothing.

    It knows the client's end, and we what is between it and us. That it has not seen TLS at all is no word of TLS.
    """
    kept = tuple(field for field in accepted if field.kind not in {Kind.CRC32C, Kind.NOOP})
    own_kinds = {field.kind for field in own}
    if Kind.SSL in own_kinds:
        kept = tuple(field for field in kept if field.kind != Kind.SSL or field.value[0] & CLIENT_SSL)
    said = {field.kind for field in kept}
    return (*(field for field in own if field.kind not in said), *kept)
