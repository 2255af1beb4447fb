"""What a TLS client sends first: the ClientHello, read without an answer being given to it.

It comes in handshake records (RFC 8446 section 5.1), whose borders mean nothing: the message may lie in one record, or be
spread over many. Only what tells where a client wants to go is looked at: its server name (RFC 6066), the protocols that
it offers (RFC 7301) and its versions. With Encrypted ClientHello (RFC 9849) that is the outer one, for the inner one is
readable to the holder of a key alone.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_BYTES: Final = 64 * 1024
"""Taken of one client. Hellos have 200 to 600 bytes, and 2 KiB with post-quantum key shares (ML-KEM-768, 1184 bytes); OpenSSL
takes up to 128 KiB, Envoy 16 KiB."""
_RECORD_HEAD: Final = 5
_MESSAGE_HEAD: Final = 4
_HEADS: Final = _RECORD_HEAD + _MESSAGE_HEAD
_EXTENSION_HEAD: Final = 4
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_MAJOR: Final = 3
"""Of all versions from SSL 3.0 to TLS 1.3, on the wire."""
_MAX_FRAGMENT: Final = 2**14
_SERVER_NAME: Final = 0
_ALPN: Final = 16
_VERSIONS: Final = 43
_RANDOM_END: Final = 34
"""Behind the version, and 32 bytes of a random."""
_HOST_NAME: Final = 0
_NAME_HEAD: Final = 5
"""The length of a list, a kind of name, and the length of the name."""
_A: Final = ord("a")
_Z: Final = ord("z")
_ZERO: Final = ord("0")
_NINE: Final = ord("9")
_HYPHEN: Final = ord("-")
_DOT: Final = ord(".")
_MAX_LABEL: Final = 63
_BEYOND: Final = "a field reaches beyond what it is part of"
_NO_LIST: Final = "an extension is not the list that it should be"
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


class HelloError(ValueError):
    """What came is no valid ClientHello; the text says what is wrong with it."""


class NotTlsError(HelloError):
    """What came is something else than TLS."""


class ClientHello(NamedTuple):
    """What a client asks for."""

    sni: str = ""
    """The server's name, in lower case and without a dot at its end; empty: none was sent."""
    alpn: tuple[str, ...] = ()
    """Protocols that it offers, the best first (Latin-1, since they may be any bytes)."""
    versions: tuple[int, ...] = ()
    """Versions that it offers: 0x0304 is TLS 1.3, 0x0303 is TLS 1.2."""


def read_hello(data: bytes) -> ClientHello | int:
    """Read a ClientHello.

    Args:
        data: Everything that the client has sent so far, from its first byte on.

    Returns:
        What it says; or, if more has to come, how many bytes there will be at least when it is complete: more than there
        are in `data`, and at most MAX_BYTES.

    Raises:
        NotTlsError: It is something else.
        HelloError: It is TLS, but no valid ClientHello, or one of more than MAX_BYTES.
    """
    end = len(data)
    if end > _HEADS and data[0] == _HANDSHAKE and data[1] == _MAJOR and data[_RECORD_HEAD] == _CLIENT_HELLO:
        # As nearly all are: in one record, and all of it is there.
        size = data[6] << 16 | data[7] << 8 | data[8]
        if size + _MESSAGE_HEAD == data[3] << 8 | data[4] <= _MAX_FRAGMENT and size + _HEADS <= end:
            return _parse(data[_HEADS : size + _HEADS])
    message = b""
    at, missing = 0, _MESSAGE_HEAD
    while missing > 0:
        _check_start(data, at)
        begin = at + _RECORD_HEAD
        if len(data) < begin:
            return _bounded(begin + missing)
        at = begin + _fragment_size(data, at)
        message += data[begin:at]
        missing = _missing(message)
        if at > len(data) and missing > 0:
            further = 0 if missing <= at - len(data) else _RECORD_HEAD
            return _bounded(len(data) + further + missing)
    return _parse(message[_MESSAGE_HEAD : len(message) + missing])


def _check_start(data: bytes, at: int) -> None:
    """Look at as much of a record's head as there is."""
    if at < len(data) and data[at] != _HANDSHAKE:
        if at:
            raise HelloError(f"a record of type {data[at]} comes in the middle of the ClientHello")
        raise NotTlsError(f"it begins with {data[:8]!r}, which is not TLS")
    if at + 1 < len(data) and data[at + 1] != _MAJOR:
        if at:
            raise HelloError(f"a record in the middle of the ClientHello has version {data[at + 1]}")
        raise NotTlsError(f"it begins with {data[:8]!r}, which is not TLS")


def _fragment_size(data: bytes, at: int) -> int:
    size = int.from_bytes(data[at + 3 : at + _RECORD_HEAD])
    if not 0 < size <= _MAX_FRAGMENT:
        raise HelloError(f"a record has {size} bytes; from 1 to {_MAX_FRAGMENT} are allowed")
    return size


def _missing(message: bytes) -> int:
    """Return how many bytes a handshake message lacks at least; below 0: so many are another message's."""
    if message and message[0] != _CLIENT_HELLO:
        raise HelloError(f"the first handshake message has type {message[0]}, and is no ClientHello")
    if len(message) < _MESSAGE_HEAD:
        return _MESSAGE_HEAD - len(message)
    return _bounded(_MESSAGE_HEAD + int.from_bytes(message[1:_MESSAGE_HEAD])) - len(message)


def _bounded(size: int) -> int:
    if size > MAX_BYTES:
        raise HelloError(f"the ClientHello has {size} bytes or more; up to {MAX_BYTES} are taken")
    return size


class _Fields:
    """The fields of a message, one after the other."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        begin = self._at
        self._at = begin + size
        if self._at > len(self._data):
            raise HelloError(_BEYOND)
        return self._data[begin : self._at]

    def number(self, size: int) -> int:
        """Return the next number."""
        return int.from_bytes(self.take(size))

    def vector(self, size: int) -> bytes:
        """Return what stands behind its length, of so many bytes."""
        return self.take(self.number(size))


def _parse(body: bytes) -> ClientHello:
    """Read the message itself (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2).

    There may be dozens of extensions, and all clients of a listener pass here: so this is done without `_Fields`.
    """
    end = len(body)
    at = _behind(body, _RANDOM_END, 1)  # session id
    at = _behind(body, at, 2)  # cipher suites
    at = _behind(body, at, 1)  # compression methods
    server_name = protocols = versions = None
    if at < end:
        if _behind(body, at, 2) < end:
            raise HelloError("there are bytes behind its extensions")
        at += 2
    seen = set()
    while at < end:
        kind = body[at] << 8 | body[at + 1] if at + 1 < end else -1
        begin = at + _EXTENSION_HEAD
        at = _behind(body, at + 2, 2)
        if kind in seen:
            raise HelloError(f"extension {kind} is there twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            server_name = body[begin:at]
        elif kind == _ALPN:
            protocols = body[begin:at]
        elif kind == _VERSIONS:
            versions = body[begin:at]
    return ClientHello(
        _server_name(server_name),
        _protocols(protocols),
        _versions(versions) or (body[0] << 8 | body[1],),
    )


def _behind(data: bytes, at: int, size: int) -> int:
    """Return what is behind a vector whose length is at `at`, in one byte or two."""
    begin, end = at + size, len(data)
    if begin > end:
        raise HelloError(_BEYOND)
    begin += data[at] if size == 1 else data[at] << 8 | data[at + 1]
    if begin > end:
        raise HelloError(_BEYOND)
    return begin


def _list_in(extension: bytes, size: int) -> _Fields:
    """Return the elements of an extension that is one list."""
    outer = _Fields(extension)
    listed = _Fields(outer.vector(size))
    if outer or not listed:
        raise HelloError(_NO_LIST)
    return listed


def _server_name(extension: bytes | None) -> str:
    if extension is None:
        return ""
    size = len(extension)
    if size > _NAME_HEAD and not extension[2]:
        listed_size, name_size = extension[0] << 8 | extension[1], extension[3] << 8 | extension[4]
        if listed_size == size - 2 and name_size == size - _NAME_HEAD:  # one name, as nearly always
            return _host(extension[_NAME_HEAD:])
    listed = _list_in(extension, 2)
    found = ""
    while listed:
        kind, name = listed.number(1), listed.vector(2)
        if kind != _HOST_NAME:
            continue
        if found:
            raise HelloError("two server names are there")
        found = _host(name)
    return found


def _host(name: bytes) -> str:
    if _is_plain(name):
        return name.decode("ascii")
    found = name.decode("latin-1").lower().removesuffix(".")
    if _HOST.fullmatch(found) is None:
        raise HelloError(f"the server name {name[:80]!r} is no host name")
    return found


def _is_plain(name: bytes) -> bool:
    """Return whether a name is one that `_HOST` takes as it is: as nearly all are, in a loop that the compiler makes short."""
    label = 0
    for byte in name:
        if _A <= byte <= _Z or _ZERO <= byte <= _NINE or byte == _HYPHEN:
            label += 1
        elif byte != _DOT or not label:
            return False
        else:
            label = 0
    return label > 0 and len(name) <= _MAX_LABEL


def _protocols(extension: bytes | None) -> tuple[str, ...]:
    if extension is None:
        return ()
    listed = _list_in(extension, 2)
    found = []
    while listed:
        protocol = listed.vector(1)
        if not protocol:
            raise HelloError("an ALPN protocol is empty")
        found.append(protocol.decode("latin-1"))
    return tuple(found)


def _versions(extension: bytes | None) -> tuple[int, ...]:
    if extension is None:
        return ()
    size = len(extension)
    if size < 2 or extension[0] != size - 1:  # noqa: PLR2004 - its length, and something
        raise HelloError(_NO_LIST)
    if not size % 2:
        raise HelloError(_BEYOND)
    found = []
    for at in range(1, size, 2):
        found.append(extension[at] << 8 | extension[at + 1])  # noqa: PERF401 - compiled, this makes no generator
    return tuple(found)
