"""Certificates, keys and authorities as they stand in files: what is wrong with them, said for people.

Keys stay in here and in OpenSSL. Nothing that is logged, shown or kept has any of them, an error neither.
"""

from __future__ import annotations

import os
import re
import ssl
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from dataplane.core.spec import CertificateSpec
from schemas.x509 import Certificate, first_certificate

MAX_BYTES: Final = 1 << 20
_KEY: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----")
_LOCKED: Final = (b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED")
_MISMATCH: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})
"""The last: it looks for the certificate that is for such a kind of key."""


class TlsFileError(Exception):
    """A file cannot be used; `place` is the key below `tls` or `backend_tls` that names it."""

    def __init__(self, place: str, path: str, cause: str) -> None:
        super().__init__(place, path, cause)
        self.place = place
        self.path = path
        self.cause = cause

    def __str__(self) -> str:
        return f"{self.path} {self.cause}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and its key, which belong together; both were in files a moment ago."""

    certificate: Certificate
    cert: bytes = field(repr=False)
    key: bytes = field(repr=False)
    readable_by_all: bool
    """Whether everybody on this machine may read the key's file."""

    def load(self, context: ssl.SSLContext) -> None:
        """Put both into a context; `ssl.SSLError` if they do not belong together, or OpenSSL does not want them."""
        with ExitStack() as stack:
            cert, key = (stack.enter_context(_in_memory(one)) for one in (self.cert, self.key))
            # Of memory, and not of the files, which may be others by now: what was checked is what is used.
            context.load_cert_chain(cert, key, password=lambda: "")


def read_pair(spec: CertificateSpec, place: str = "") -> Pair:
    """Read a certificate and its key, and see that OpenSSL takes them; `TlsFileError` if not.

    Args:
        spec: Where they are.
        place: Of the mapping with `cert` and `key`, such as `certificates[0].`.
    """
    cert_place, key_place = f"{place}cert", f"{place}key"
    cert, _ = _read(cert_place, spec.cert)
    key, mode = _read(key_place, spec.key)
    try:
        certificate = first_certificate(cert)
    except ValueError as error:
        raise TlsFileError(cert_place, spec.cert, str(error)) from None
    if any(mark in key for mark in _LOCKED):
        cause = "has a passphrase, which nobody could type in; write the key without one (openssl pkey)"
        raise TlsFileError(key_place, spec.key, cause)
    if _KEY.search(key) is None:
        raise TlsFileError(key_place, spec.key, "has no private key in PEM")
    pair = Pair(certificate, cert, key, bool(mode & stat.S_IROTH))
    try:
        pair.load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    except ssl.SSLError as error:
        if error.reason in _MISMATCH:
            cause = f"is not the key of {spec.cert}"
            raise TlsFileError(key_place, spec.key, cause) from None
        raise TlsFileError(cert_place, spec.cert, f"is not taken by OpenSSL: {said(error)}") from None
    return pair


def read_authorities(path: str, place: str) -> str:
    """Read a file of authorities, and see that OpenSSL takes it; `TlsFileError` if not."""
    raw, _ = _read(place, path)
    try:
        first_certificate(raw)
        text = raw.decode("ascii", "replace")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except ssl.SSLError as error:
        raise TlsFileError(place, path, f"is not taken by OpenSSL: {said(error)}") from None
    except ValueError as error:
        raise TlsFileError(place, path, str(error)) from None
    return text


def refuse_expired(certificate: Certificate, path: str, place: str, wall: float) -> None:
    """Raise `TlsFileError` unless a certificate holds now, in Unix seconds: nobody would accept it."""
    if wall >= certificate.not_after:
        raise TlsFileError(place, path, f"ended at {shown_time(certificate.not_after)}")
    if wall < certificate.not_before:
        raise TlsFileError(
            place,
            path,
            f"holds only from {shown_time(certificate.not_before)} on; is the clock of this machine right?",
        )


def shown_time(unix_s: float) -> str:
    """Write a time of a certificate as people read it: whole seconds, UTC."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def said(error: ssl.SSLError) -> str:
    """Return OpenSSL's word for what is wrong."""
    return (error.reason or str(error)).lower().replace("_", " ")


def _read(place: str, path: str) -> tuple[bytes, int]:
    """Return the content of a file and its mode."""
    try:
        # Not blocking: a path of a FIFO would wait for somebody who writes.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(handle).st_mode
            if not stat.S_ISREG(mode):
                what = "is a directory" if stat.S_ISDIR(mode) else "is no regular file"
                raise TlsFileError(place, path, what)
            with os.fdopen(handle, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
        finally:
            os.close(handle)
    except OSError as error:
        raise TlsFileError(place, path, f"cannot be read: {_reason(error)}") from None
    if len(content) > MAX_BYTES:
        raise TlsFileError(place, path, "is larger than 1 MiB")
    return content, mode


def _reason(error: OSError) -> str:
    text = (error.strerror or str(error)).lower()
    if isinstance(error, PermissionError):
        return f"{text} (as user id {os.geteuid()}, which this process has)"
    return text


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """Yield a path at which OpenSSL finds something that is in no file system."""
    handle = os.memfd_create("tls")
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)
