"""Version 2 of the PROXY protocol: a signature, four bytes, and as many bytes as these announce.

Theory of operation: signature, command, family and length are judged as they arrive; what follows once it is complete, so that
the work is linear in the header's length however it is cut.
"""

from __future__ import annotations

from ipaddress import IPv6Address
from struct import Struct
from typing import Final, Literal

from dataplane.core.proxy_protocol.header import (
    NEED_DATA,
    Endpoints,
    Fault,
    Header,
    NeedData,
    ProxyError,
    one_family,
    spell_v6,
)

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
V2_FIRST: Final = _SIGNATURE[0]
_HEAD: Final = 16
_PROXY: Final = 0x21
_COMMANDS: Final = (0x20, _PROXY)
_TCP4: Final = 0x11
_TCP6: Final = 0x21
_ADDRESS_SIZES: Final = {0x00: 0, _TCP4: 12, 0x12: 12, _TCP6: 36, 0x22: 36, 0x31: 216, 0x32: 216}
"""Family and transport, and how many bytes their two addresses take."""
_TLV_HEAD: Final = 3
_TLV_CRC32C: Final = 0x03
_CRC_SIZE: Final = 4

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
    _check_tlvs(header, _HEAD + _ADDRESS_SIZES[family], strict=command == _PROXY)
    return Header(2, _endpoints(header) if command == _PROXY else None), used


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


def _check_tlvs(header: bytes, start: int, *, strict: bool) -> None:
    """Walk the type-length-value fields from `start` of a complete header and verify its checksum if it has one.

    Nested fields (SSL, type 0x20) are skipped as the value they are. Malformed fields are refused if `strict`:
    behind LOCAL anything may stand ("discard", section 2.2), so there only a well-formed checksum counts.
    """
    checksum: int | None = None
    position, end = start, len(header)
    while position < end:
        value = position + _TLV_HEAD
        size = int.from_bytes(header[position + 1 : value])
        is_checksum = header[position] == _TLV_CRC32C
        if value + size > end or (is_checksum and (size != _CRC_SIZE or checksum is not None)):
            if strict:
                raise ProxyError(Fault.TLV, header)
            return
        if is_checksum:
            checksum = value
        position = value + size
    if checksum is None:
        return
    after = checksum + _CRC_SIZE
    blank = header[:checksum] + bytes(_CRC_SIZE) + header[after:]
    if crc32c(blank) != int.from_bytes(header[checksum:after]):
        raise ProxyError(Fault.CHECKSUM, header)


def crc32c(data: bytes) -> int:
    """Compute the CRC-32C (Castagnoli; RFC 3720, appendix B.4) of `data`."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _crc_entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE: Final = tuple(_crc_entry(byte) for byte in range(256))
