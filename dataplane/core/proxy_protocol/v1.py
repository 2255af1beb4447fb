"""Version 1 of the PROXY protocol: one line of text.

Theory of operation: a line is judged as it arrives: fields that are complete in full, the last one by whether anything that may
follow makes it valid. So a wrong line is refused at its first wrong byte.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Final

from dataplane.core.proxy_protocol.header import Endpoints, Fault, ProxyError, one_family, spell_v6

V1_FIRST: Final = b"P"[0]
V1_MAX: Final = 107
"""Bytes of the longest line, its CR LF included."""
_TCP: Final = (b"PROXY TCP4 ", b"PROXY TCP6 ")
_UNKNOWN: Final = b"PROXY UNKNOWN"
_FIELDS: Final = 4

_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_V4: Final = re.compile(rf"(?:{_OCTET}\.){{3}}{_OCTET}")
_V4_START: Final = re.compile(rf"(?:{_OCTET}\.){{0,3}}{_OCTET}?")
_V6_CHARACTERS: Final = re.compile(r"[0-9A-Fa-f:.]*")
_V6_TAILS: Final = ("", "0", ":", "::", ".0", "0.0", ".0.0", "0.0.0", ".0.0.0")
"""What is cut off of an IPv6 address can be completed by one of these, or by nothing at all."""
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_PORT_MAX: Final = 65535


def encode_v1(source: tuple[str, int] | None, destination: tuple[str, int] | None) -> bytes:
    """Build a version 1 line from a client's IP literal and port, and what it connected to, as the kernel spells them.

    TCP4 if both are IPv4 or IPv4-mapped, UNKNOWN if one is missing (None), else TCP6 with an IPv4 side mapped.
    """
    if source is None or destination is None:
        return b"PROXY UNKNOWN\r\n"
    client, server = source[0], destination[0]
    if ":" in client or ":" in server:
        client, server = one_family(client, server)
    family = "TCP6" if ":" in client else "TCP4"
    return f"PROXY {family} {client} {server} {source[1]} {destination[1]}\r\n".encode("ascii")


def parse_line(line: bytes) -> Endpoints | None:
    """Read a complete version 1 line without its CR LF; None: UNKNOWN."""
    if line.startswith(_UNKNOWN):
        _check_unknown(line)
        return None
    if not line.startswith(_TCP):
        raise ProxyError(Fault.KEYWORD, line)
    fields = line[len(_TCP[0]) :].decode("latin-1").split(" ")
    is_v6 = line.startswith(_TCP[1])
    if len(fields) != _FIELDS:
        raise ProxyError(Fault.FIELDS, line)
    _check_fields(fields, line, is_v6=is_v6)
    ips = one_family(spell_v6(fields[0]), spell_v6(fields[1])) if is_v6 else (fields[0], fields[1])
    return Endpoints((ips[0], int(fields[2])), (ips[1], int(fields[3])))


def check_cut_line(head: bytes) -> None:
    """Refuse a beginning without CR LF that no valid version 1 line has."""
    line = head.removesuffix(b"\r")
    if b"\r" in line or b"\n" in line:
        raise ProxyError(Fault.LINE_END, head)
    if len(line) > V1_MAX - 2:
        raise ProxyError(Fault.TOO_LONG, head)
    if line != head:
        parse_line(line)
    elif line.startswith(_UNKNOWN):
        _check_unknown(line)
    elif line.startswith(_TCP):
        fields = line[len(_TCP[0]) :].decode("latin-1").split(" ")
        if len(fields) > _FIELDS:
            raise ProxyError(Fault.FIELDS, head)
        is_v6 = line.startswith(_TCP[1])
        _check_fields(fields[:-1], head, is_v6=is_v6)
        _check_last_field(fields, head, is_v6=is_v6)
    elif not any(start.startswith(line) for start in (*_TCP, _UNKNOWN)):
        raise ProxyError(Fault.KEYWORD, head)


def _check_unknown(line: bytes) -> None:
    rest = line[len(_UNKNOWN) :]
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
