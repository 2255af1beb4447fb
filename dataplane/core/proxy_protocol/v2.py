"""Version 2 of the PROXY protocol: a signature, four bytes, and as many bytes as these announce.

Theory of operation: signature, command, family and length are judged as they arrive; what follows once it is complete, so that
the work is linear in the header's length however it is cut.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from struct import Struct
from typing import TYPE_CHECKING, Final, Literal

from dataplane.core.proxy_protocol.checksum import crc32c
from dataplane.core.proxy_protocol.fields import (
    CHECKSUM_BYTES,
    HEAD_BYTES,
    NO_CHECKSUM,
    Kind,
    check,
    encode_fields,
    split,
)
from dataplane.core.proxy_protocol.header import (
    NEED_DATA,
    Endpoints,
    Fault,
    Field,
    Header,
    NeedData,
    ProxyError,
    one_family,
    spell_v6,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V2_FIRST: Final = _SIGNATURE[0]
_HEAD: Final = 16
_PROXY: Final = 0x21
_COMMANDS: Final = (0x20, _PROXY)
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_ADDRESS_SIZES: Final = {0x00: 0, _TCP4: 12, 0x12: 12, _TCP6: 36, 0x22: 36, 0x31: 216, 0x32: 216}
"""Family and transport, and how many bytes their two addresses take."""
_LENGTH_MAX: Final = 0xFFFF

_TCP4_BLOCK: Final = Struct("!4s4sHH")
_TCP6_BLOCK: Final = Struct("!16s16sHH")
_TCP4_HEADER: Final = Struct("!16s4B4BHH")
_TCP6_HEADER: Final = Struct("!16s16s16sHH")
_TCP4_START: Final = _SIGNATURE + bytes((_PROXY, _TCP4, 0, 12))
_TCP6_START: Final = _SIGNATURE + bytes((_PROXY, _TCP6, 0, 36))
_LOCAL: Final = _SIGNATURE + bytes((0x20, 0, 0, 0))


def encode_v2(source: tuple[str, int] | None, destination: tuple[str, int] | None) -> bytes:
    """Build a version 2 header; LOCAL if an address is missing, else as `v1.encode_v1` chooses the family.

    LOCAL is also for a connection on nobody's behalf, such as an active check.
    """
    if source is None or destination is None:
        return _LOCAL
    client, server = source[0], destination[0]
    if ":" in client or ":" in server:
        client, server = one_family(client, server)
        if ":" in client:
            ends = IPv6Address(client).packed, IPv6Address(server).packed
            return _TCP6_HEADER.pack(_TCP6_START, *ends, source[1], destination[1])
    # 0.6 us an address against 2.0 us through IPv4Address; struct refuses a wrong count or range
    octets = map(int, f"{client}.{server}".split("."))
    return _TCP4_HEADER.pack(_TCP4_START, *octets, source[1], destination[1])


def with_fields(header: bytes, fields: Iterable[Field], *, checksum: bool = False) -> bytes:
    """Return a header that has no fields yet with `fields`, and with a checksum of it all behind them if wanted.

    LOCAL becomes PROXY for an unspecified family, since nobody reads what stands behind LOCAL. Fields that find no room in what a
    header may hold are left out, the last ones first.
    """
    room = _LENGTH_MAX - (len(header) - _HEAD) - (HEAD_BYTES + CHECKSUM_BYTES if checksum else 0)
    block = b""
    for field in fields:
        one = encode_fields((field,))
        if len(block) + len(one) > room:
            break
        block += one
    command = _PROXY if block else header[12]
    if checksum:
        block += encode_fields((NO_CHECKSUM,))
    if not block:
        return header
    length = len(header) - _HEAD + len(block)
    whole = _SIGNATURE + bytes((command, header[13])) + length.to_bytes(2) + header[_HEAD:] + block
    return whole[:-CHECKSUM_BYTES] + crc32c(whole).to_bytes(CHECKSUM_BYTES) if checksum else whole


def decode_v2(data: bytes | bytearray | memoryview) -> tuple[Header, int] | Literal[NeedData.NEED_DATA]:
    """Do as `decode` does, with what begins as this version."""
    head = bytes(data[:_HEAD])
    if not _SIGNATURE.startswith(head[:12]):
        raise ProxyError(Fault.SIGNATURE, head)
    if len(head) > 12 and head[12] not in _COMMANDS:  # noqa: PLR2004 - offsets of the specification, 2.2
        raise ProxyError(Fault.COMMAND, head)
    if len(head) > 13 and head[13] not in _ADDRESS_SIZES:  # noqa: PLR2004
        raise ProxyError(Fault.FAMILY, head)
    if len(head) < _HEAD:
        # half a length proves nothing: with 0 there, 255 bytes may follow, enough for every family
        return NEED_DATA
    command, family, size = head[12], head[13], int.from_bytes(head[14:])
    if command == _PROXY and size < _ADDRESS_SIZES[family]:
        raise ProxyError(Fault.LENGTH, head)
    used = _HEAD + size
    if len(data) < used:
        return NEED_DATA
    header = bytes(data[:used])
    fields = _read_fields(header, _HEAD + _ADDRESS_SIZES[family], strict=command == _PROXY)
    return (Header(2, _endpoints(header), fields) if command == _PROXY else Header(2, None)), used


def _endpoints(header: bytes) -> Endpoints | None:
    """Read the addresses of a complete header; None: not TCP."""
    family = header[13]
    if family == _TCP4:
        source, destination, *ports = _TCP4_BLOCK.unpack_from(header, _HEAD)
        ips = ".".join(map(str, source)), ".".join(map(str, destination))
    elif family == _TCP6:
        source, destination, *ports = _TCP6_BLOCK.unpack_from(header, _HEAD)
        ips = one_family(spell_v6(source), spell_v6(destination))
    else:
        return None
    return Endpoints((ips[0], ports[0]), (ips[1], ports[1]))


def _read_fields(header: bytes, start: int, *, strict: bool) -> tuple[Field, ...]:
    """Read the fields from `start` of a complete header, and verify its checksum if it has one.

    Behind LOCAL anything may stand ("discard", section 2.2), so there only a well-formed checksum counts: not `strict`.
    """
    fields = split(header, start)
    if strict:
        if fields is None:
            raise ProxyError(Fault.TLV, header)
        check(fields, header)
    sums = [field for field in fields or () if field.kind == Kind.CRC32C]
    if fields is None or len(sums) != 1 or len(sums[0].value) != CHECKSUM_BYTES:
        return fields or ()
    at = start + HEAD_BYTES
    for field in fields:
        if field is sums[0]:
            break
        at += HEAD_BYTES + len(field.value)
    blank = header[:at] + bytes(CHECKSUM_BYTES) + header[at + CHECKSUM_BYTES :]
    if crc32c(blank) != int.from_bytes(sums[0].value):
        raise ProxyError(Fault.CHECKSUM, header)
    return fields
