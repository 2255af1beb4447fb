"""PROXY protocol, versions 1 and 2: a codec for the header that carries a client's addresses.

Theory of operation. The first byte tells the version: `P` or CR; nothing else starts a header.

1. Version 1 is one line of text, judged as it arrives: fields that are complete in full, the last one by
   whether anything that may follow makes it valid. So a wrong line is refused at its first wrong byte.
2. Version 2 is a signature, four bytes and as many bytes as these announce. Signature, command, family and
   length are judged as they arrive; what follows once it is complete, so that the work is linear in the
   header's length however it is cut.
3. A header without usable addresses (LOCAL, UNKNOWN, other transports than TCP) is valid and has no endpoints.
4. Addresses come out in one spelling each, the kernel's; a pair of IPv4-mapped ones comes out as IPv4.

Source: "The PROXY protocol, versions 1 & 2" (haproxy.org, doc/proxy-protocol.txt), sections 2.1 to 2.2.6. Where
it leaves the receiver a choice, the strict one is taken.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Address
from struct import Struct
from typing import Final, Literal


class NeedData(Enum):
    """The type of `NEED_DATA`."""

    NEED_DATA = "need_data"


NEED_DATA: Final = NeedData.NEED_DATA


class Fault(Enum):
    """What is wrong with a header."""

    START = "starts like neither version"
    KEYWORD = "not TCP4, TCP6 or UNKNOWN"
    ADDRESS = "malformed address, or one of another family"
    PORT = "malformed port"
    FIELDS = "more or fewer than four fields"
    LINE_END = "CR or LF other than the CR LF at the end"
    TOO_LONG = "line of more than 107 bytes"
    SIGNATURE = "wrong signature"
    COMMAND = "version other than 2, or a command that does not exist"
    FAMILY = "family and transport that do not exist"
    LENGTH = "shorter than the addresses of its family"
    TLV = "malformed type-length-value field"
    CHECKSUM = "wrong checksum"


class ProxyError(Exception):
    """These bytes are not, and will not become, a valid header.

    Attributes:
        fault: What is wrong.
        head: The first bytes that arrived, at most 32, for the log.
    """

    def __init__(self, fault: Fault, head: bytes) -> None:
        super().__init__(fault, head)
        self.fault = fault
        self.head = head[:32]

    def __str__(self) -> str:
        return f"invalid PROXY header: {self.fault.value}: {self.head!r}"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The two ends of the client's connection: IP literals and ports, both of one family."""

    source: tuple[str, int]
    destination: tuple[str, int]


@dataclass(frozen=True, slots=True)
class Header:
    """A valid header."""

    version: int
    endpoints: Endpoints | None
    """None: the addresses of the connection itself hold."""


_V1_MAX: Final = 107
"""Bytes of the longest line, its CR LF included."""
_V1_TCP: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ")
_V1_UNKNOWN: Final = b"PROXY UNKNOWN"
_V1_FIELDS: Final = 4

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_V4: Final = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")
_V4_START: Final = re.compile(rf"(?:{_OCTET}\.){{0,3}}{_OCTET}?")
_V6_CHARACTERS: Final = re.compile(r"[0-9A-Fa-f:.]*")
_V6_TAILS: Final = ("", "0", ":", "::", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0")
"""What is cut off of an IPv6 address can be completed by one of these, or by nothing at all."""
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_PORT_MAX: Final = 65535

_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD: Final = 16
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


def decode(data: bytes | bytearray | memoryview) -> tuple[Header, int] | Literal[NeedData.NEED_DATA]:
    """Read the header at the start of what a peer has sent so far.

    Args:
        data: Every byte since the connection began; what follows the header is not looked at.

    Returns:
        The header and the number of bytes it took (the payload begins there), or `NEED_DATA`.

    Raises:
        ProxyError: No continuation makes this a valid header.
    """
    if not len(data):
        return NEED_DATA
    if data[0] == _SIGNATURE[0]:
        return _decode_v2(data)
    head = bytes(data[:_V1_MAX])
    if data[0] != _V1_UNKNOWN[0]:
        raise ProxyError(Fault.START, head)
    end = head.find(b"\r\n")
    if end < 0:
        _check_cut_line(head)
        return NEED_DATA
    return Header(1, _parse_line(head[:end])), end + 2


def encode_v1(source: tuple[str, int] | None, destination: tuple[str, int] | None) -> bytes:
    """Build a version 1 line from a client's IP literal and port, and what it connected to, as the kernel spells them.

    TCP4 if both are IPv4 or IPv4-mapped, UNKNOWN if one is missing (None), else TCP6 with an IPv4 side mapped.
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    client, server = source[0], destination[0]
    if ":" in client or ":" in server:
        client, server = _one_family(client, server)
    family = "TCP6" if ":" in client else "TCP4"
    return f"PROXY {family} {client} {server} {source[1]} {destination[1]}\r\n".encode("ascii")


def encode_v2(source: tuple[str, int] | None, destination: tuple[str, int] | None) -> bytes:
    """Build a version 2 header; LOCAL if an address is missing, else as `encode_v1` chooses the family.

    LOCAL is also for a connection on nobody's behalf, such as an active check.
    """
    if source is None or destination is None:
        return _LOCAL
    client, server = source[0], destination[0]
    if ":" in client or ":" in server:
        client, server = _one_family(client, server)
        if ":" in client:
            ends = IPv6Address(client).packed, IPv6Address(server).packed
            return _TCP6_HEADER.pack(_TCP6_START, *ends, source[1], destination[1])
    # 0.6 us an address against 2.0 us through IPv4Address; struct refuses a wrong count or range
    octets = map(int, f"{client}.{server}".split("."))
    return _TCP4_HEADER.pack(_TCP4_START, *octets, source[1], destination[1])


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


def _ipv4_of(ip: str) -> str | None:
    """Return an IPv4 literal, or the IPv4 address that an IPv6 literal maps, else None."""
    if ":" not in ip:
        return ip
    tail = ip.removeprefix("::ffff:")  # as the kernel spells every IPv4 client of a dual-stack listener
    if "." in tail and ":" not in tail:
        return tail
    if ip[0] not in ":0":  # a mapped address begins with a group of zeros: most need no parsing
        return None
    mapped = IPv6Address(ip.partition("%")[0]).ipv4_mapped
    return None if mapped is None else str(mapped)


def _one_family(source: str, destination: str) -> tuple[str, str]:
    """Spell two addresses as IPv4 if both can be, else as IPv6 without a scope."""
    source4, destination4 = _ipv4_of(source), _ipv4_of(destination)
    if source4 is not None and destination4 is not None:
        return source4, destination4
    return (
        source.partition("%")[0] if source4 is None else f"::ffff:{source4}",
        destination.partition("%")[0] if destination4 is None else f"::ffff:{destination4}",
    )


def _parse_line(line: bytes) -> Endpoints | None:
    """Read a complete version 1 line without its CR LF; None: UNKNOWN."""
    if line.startswith(_V1_UNKNOWN):
        _check_unknown(line)
        return None
    if not line.startswith(_V1_TCP):
        raise ProxyError(Fault.KEYWORD, line)
    fields = line[len(_V1_TCP[0]) :].decode("latin-1").split(" ")
    is_v6 = line.startswith(_V1_TCP[1])
    if len(fields) != _V1_FIELDS:
        raise ProxyError(Fault.FIELDS, line)
    _check_fields(fields, line, is_v6=is_v6)
    ips = _one_family(_spell_v6(fields[0]), _spell_v6(fields[1])) if is_v6 else (fields[0], fields[1])
    return Endpoints((ips[0], int(fields[2])), (ips[1], int(fields[3])))


def _check_cut_line(head: bytes) -> None:
    """Refuse a beginning without CR LF that no valid version 1 line has."""
    line = head.removesuffix(b"\r")
    if b"\r" in line or b"\n" in line:
        raise ProxyError(Fault.LINE_END, head)
    if len(line) > _V1_MAX - 2:
        raise ProxyError(Fault.TOO_LONG, head)
    if line != head:
        _parse_line(line)
    elif line.startswith(_V1_UNKNOWN):
        _check_unknown(line)
    elif line.startswith(_V1_TCP):
        fields = line[len(_V1_TCP[0]) :].decode("latin-1").split(" ")
        if len(fields) > _V1_FIELDS:
            raise ProxyError(Fault.FIELDS, head)
        is_v6 = line.startswith(_V1_TCP[1])
        _check_fields(fields[:-1], head, is_v6=is_v6)
        _check_last_field(fields, head, is_v6=is_v6)
    elif not any(start.startswith(line) for start in (*_V1_TCP, _V1_UNKNOWN)):
        raise ProxyError(Fault.KEYWORD, head)


def _check_unknown(line: bytes) -> None:
    rest = line[len(_V1_UNKNOWN) :]
    if rest and not rest.startswith(b" "):
        raise ProxyError(Fault.KEYWORD, line)
    if b"\r" in rest or b"\n" in rest:
        raise ProxyError(Fault.LINE_END, line)


def _check_fields(fields: list[str], line: bytes, *, is_v6: bool) -> None:
    """Refuse malformed fields among the first of two addresses and two ports, all complete."""
    for index, field in enumerate(fields):
        if index < 2:  # noqa: PLR2004 - two addresses, then two ports
            if not (_is_v6(field) if is_v6 else _V4.fullmatch(field)):
                raise ProxyError(Fault.ADDRESS, line)
        elif not _is_port(field):
            raise ProxyError(Fault.PORT, line)


def _check_last_field(fields: list[str], line: bytes, *, is_v6: bool) -> None:
    """Refuse a last field that nothing can complete; empty ones can be."""
    last = fields[-1]
    if len(fields) > 2:  # noqa: PLR2004 - a port: each beginning of a valid one is valid itself
        if last and not _is_port(last):
            raise ProxyError(Fault.PORT, line)
    elif not (any(_is_v6(last + tail) for tail in _V6_TAILS) if is_v6 else _V4_START.fullmatch(last)):
        raise ProxyError(Fault.ADDRESS, line)


def _is_port(field: str) -> bool:
    return _PORT.fullmatch(field) is not None and int(field) <= _PORT_MAX


def _is_v6(field: str) -> bool:
    # ipaddress takes a scope (`%eth0`), which inet_pton does not
    if _V6_CHARACTERS.fullmatch(field) is None:
        return False
    try:
        IPv6Address(field)
    except ValueError:
        return False
    return True


def _spell_v6(address: str | bytes) -> str:
    """Spell an address as the kernel's tools do; ipaddress writes a mapped one in hexadecimal before 3.13."""
    parsed = IPv6Address(address)
    return str(parsed) if parsed.ipv4_mapped is None else f"::ffff:{parsed.ipv4_mapped}"


def _decode_v2(data: bytes | bytearray | memoryview) -> tuple[Header, int] | Literal[NeedData.NEED_DATA]:
    head = bytes(data[:_V2_HEAD])
    if not _SIGNATURE.startswith(head[:12]):
        raise ProxyError(Fault.SIGNATURE, head)
    if len(head) > 12 and head[12] not in _COMMANDS:  # noqa: PLR2004 - offsets of the specification, 2.2
        raise ProxyError(Fault.COMMAND, head)
    if len(head) > 13 and head[13] not in _ADDRESS_SIZES:  # noqa: PLR2004
        raise ProxyError(Fault.FAMILY, head)
    if len(head) < _V2_HEAD:
        # half a length proves nothing: with 0 there, 255 bytes may follow, enough for every family
        return NEED_DATA
    command, family, size = head[12], head[13], int.from_bytes(head[14:])
    if command == _PROXY and size < _ADDRESS_SIZES[family]:
        raise ProxyError(Fault.LENGTH, head)
    used = _V2_HEAD + size
    if len(data) < used:
        return NEED_DATA
    header = bytes(data[:used])
    _check_tlvs(header, _V2_HEAD + _ADDRESS_SIZES[family], strict=command == _PROXY)
    return Header(2, _v2_endpoints(header) if command == _PROXY else None), used


def _v2_endpoints(header: bytes) -> Endpoints | None:
    """Read the addresses of a complete header; None: not TCP."""
    family = header[13]
    if family == _TCP4:
        source, destination, *ports = _TCP4_BLOCK.unpack_from(header, _V2_HEAD)
        ips = ".".join(map(str, source)), ".".join(map(str, destination))
    elif family == _TCP6:
        source, destination, *ports = _TCP6_BLOCK.unpack_from(header, _V2_HEAD)
        ips = _one_family(_spell_v6(source), _spell_v6(destination))
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
