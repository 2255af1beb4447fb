"""Reads of a certificate what operators are told of it: its names, when it holds, the kind of its key.

X.509 (RFC 5280) in DER (X.690), in PEM (RFC 7468). Nothing is verified here: who accepts a certificate is OpenSSL.
"""

from __future__ import annotations

import binascii
import calendar
import ipaddress
import re
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

_PEM: Final = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x06, 0x30, 0x31
_UTC_TIME, _TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87
_COMMON_NAME: Final = bytes.fromhex("550403")
_ALT_NAMES: Final = bytes.fromhex("551d11")
_KEYS: Final = {
    bytes.fromhex("2a864886f70d010101"): "rsa",
    bytes.fromhex("2a8648ce3d0201"): "ecdsa",
    bytes.fromhex("2b6570"): "ed25519",
    bytes.fromhex("2b6571"): "ed448",
}
_LONG: Final = 0x80
_MOST_LENGTH_BYTES: Final = 4


class Certificate(NamedTuple):
    """What a certificate says of itself."""

    names: tuple[str, ...]
    """Host names in lower case and IP addresses that it is for; its common name where it has none."""
    not_before: float
    """When it begins to hold, in Unix seconds."""
    not_after: float
    """When it ends, in Unix seconds."""
    key: str
    """`rsa`, `ecdsa`, `ed25519`, `ed448`, or the object identifier of another kind, in hexadecimal."""
    serial: str
    """Its number, in hexadecimal: together with its issuer it names one certificate."""


class _Item(NamedTuple):
    tag: int
    content: memoryview


def first_certificate(pem: bytes) -> Certificate:
    """Read the first certificate of a PEM file, which is the one that it is about; ValueError says what is wrong."""
    found = _PEM.search(pem)
    if found is None:
        raise ValueError("has no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----")
    try:
        return certificate(binascii.a2b_base64(found[1]))
    except (binascii.Error, ValueError, IndexError, StopIteration) as error:
        raise ValueError("has a certificate that is damaged") from error


def certificate(der: bytes) -> Certificate:
    """Read a certificate in DER; ValueError, IndexError or StopIteration: it is none."""
    whole = next(_items(memoryview(der)))
    parts = list(_items(_of(next(_items(whole.content)), _SEQUENCE)))
    if parts[0].tag == _VERSION:
        del parts[0]
    serial, _, _, validity, subject, key = parts[:6]
    first, last = _items(_of(validity, _SEQUENCE))
    algorithm = bytes(_of(next(_items(_of(next(_items(key.content)), _SEQUENCE))), _OID))
    return Certificate(
        _names(parts[6:]) or _common_names(subject),
        _unix(first),
        _unix(last),
        _KEYS.get(algorithm, algorithm.hex()),
        bytes(_of(serial, _INTEGER)).hex(),
    )


def _items(data: memoryview) -> Iterator[_Item]:
    """Yield what stands one behind the other."""
    at = 0
    while at < len(data):
        tag, size = data[at], data[at + 1]
        at += 2
        if size >= _LONG:
            count = size - _LONG
            if not 0 < count <= _MOST_LENGTH_BYTES or at + count > len(data):
                raise ValueError("a length that DER does not have")
            size = int.from_bytes(data[at : at + count], "big")
            at += count
        if at + size > len(data):
            raise ValueError("a length beyond the end")
        yield _Item(tag, data[at : at + size])
        at += size


def _of(item: _Item, tag: int) -> memoryview:
    if item.tag != tag:
        raise ValueError("not what was expected there")
    return item.content


def _unix(item: _Item) -> float:
    text = bytes(item.content).decode("ascii")
    if item.tag == _UTC_TIME:  # RFC 5280, 4.1.2.5.1: years from 50 on are of the last century
        text = ("19" if text[:2] >= "50" else "20") + text
    elif item.tag != _TIME:
        raise ValueError("no time")
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))


def _names(rest: list[_Item]) -> tuple[str, ...]:
    for part in rest:
        if part.tag != _EXTENSIONS:
            continue
        for extension in _items(next(_items(part.content)).content):
            fields = list(_items(extension.content))
            if bytes(fields[0].content) == _ALT_NAMES:
                names = _items(next(_items(_of(fields[-1], _OCTETS))).content)
                return tuple(dict.fromkeys(filter(None, map(_name, names))))
    return ()


def _name(item: _Item) -> str:
    if item.tag == _DNS_NAME:
        return bytes(item.content).decode("ascii", "replace").lower()
    if item.tag == _IP_ADDRESS:
        return str(ipaddress.ip_address(bytes(item.content)))
    return ""


def _common_names(subject: _Item) -> tuple[str, ...]:
    found = []
    for group in _items(subject.content):
        for pair in _items(_of(group, _SET)):
            kind, value = _items(pair.content)
            if bytes(kind.content) == _COMMON_NAME:
                found.append(bytes(value.content).decode("utf-8", "replace").lower())
    return tuple(found)
