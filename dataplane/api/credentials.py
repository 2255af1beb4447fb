"""What clients of the API over TCP are asked for, and shown: a token, certificates.

Both are in files, which are looked at again whenever somebody connects or calls: what is renewed there counts from then
on, without a restart, and what cannot be used leaves the last good one in force.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NoReturn

from dataplane.telemetry.events import rfc3339
from schemas.http.authorities import trusting
from schemas.http.headers import parse_token
from schemas.http.reloaded import Renewed

WRONG: Final = (OSError, ValueError)
"""What is raised for files that cannot be used; ssl.SSLError and UnicodeError are among them."""
_RENEW: Final = "clients refuse it: renew it, and the next connection takes the new one"
_TODO: Final = "what was read before is in force; put it right, and the next connection takes it"
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_VERSION: Final = 0xA0
_FORMATS: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""Of UTCTime and GeneralizedTime."""
_LONG: Final = 0x80


@dataclass(frozen=True, slots=True)
class CredentialFiles:
    """Where they are; None: not asked for."""

    token: Path | None
    cert: Path | None
    key: Path | None
    """Given if `cert` is."""
    client_ca: Path | None
    """The authorities of which clients need a certificate."""


class Credentials:
    """What is in the files now. It tells of what is renewed, not renewed, or expired (`credentials_renewed` and so on).

    Raises:
        OSError: A file cannot be read.
        ValueError: It cannot be used.
    """

    def __init__(self, files: CredentialFiles, emit: Callable[..., None] = lambda *_, **__: None) -> None:
        self.emit = emit
        token, cert, key, client_ca = files.token, files.cert, files.key, files.client_ca
        self._token: Renewed[str] | None = None
        self._tls: Renewed[ssl.SSLContext] | None = None
        if token is not None:
            self._token = Renewed(
                [token], lambda: _read_token(token), wrong=WRONG, told=self._teller("token", token)
            )
            self._token.now()
        if cert is not None and key is not None:
            self._tls = Renewed(
                [path for path in (cert, key, client_ca) if path is not None],
                lambda: self._context(cert, key, client_ca),
                wrong=WRONG,
                told=self._teller("certificate", cert),
            )
            self._tls.now()

    def token(self) -> str | None:
        """Return the token; None if no call needs one."""
        return None if self._token is None else self._token.now()

    def tls(self) -> ssl.SSLContext | None:
        """Return what to listen with, now and later: each handshake takes the certificates of its moment; None: no TLS."""
        if self._tls is None:
            return None
        context = self._tls.now()
        context.sni_callback = self._on_hello
        return context

    def _on_hello(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        """Have a handshake go on with the newest context. OpenSSL asks without a server name, too."""
        assert self._tls is not None  # noqa: S101 - or there would be no handshake
        connection.context = self._tls.now()

    def _context(self, cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
        context = _context(cert, key, client_ca)
        with contextlib.suppress(*WRONG):  # OpenSSL takes it; what cannot be read here is not missed
            ends = not_after(cert.read_text(encoding="ascii", errors="replace"))
            if ends < time.time():
                self.emit("credentials_expired", path=str(cert), not_after=rfc3339(ends), todo=_RENEW)
        return context

    def _teller(self, what: str, path: Path) -> Callable[[Exception | None], None]:
        def told(trouble: Exception | None) -> None:
            if trouble is None:
                self.emit("credentials_renewed", what=what, path=str(path))
            else:
                self.emit(
                    "credentials_not_renewed", what=what, path=str(path), cause=str(trouble), todo=_TODO
                )

        return told


def _read_token(path: Path) -> str:
    with _named(f"--token-file {path}"):
        return parse_token(path.read_bytes())


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    """Say of what is wrong with a file which option names it; not all that OpenSSL raises says which file it is."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{what}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _context(cert: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """Make a server context; with `client_ca`, clients need a certificate of it."""
    with _named(f"--tls-client-ca {client_ca}"):
        context = trusting(ssl.Purpose.CLIENT_AUTH, client_ca)
    for option, path in (("--tls-cert", cert), ("--tls-key", key)):
        with _named(f"{option} {path}"):
            path.read_bytes()
    with _named(f"--tls-cert {cert}, --tls-key {key}"):
        context.load_cert_chain(cert, key, password=_no_password)
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    # No session is resumed: who was let in by an authority that is gone since then would come back without being asked.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    return context


def _no_password() -> NoReturn:
    """Refuse: OpenSSL would ask at the terminal."""
    raise ValueError("the key is encrypted; it has to be in plain, in a file that only its owner can read")


def not_after(pem: str) -> float:
    """Return when the first certificate of a PEM file expires, in Unix seconds.

    It is the one field of X.509 (RFC 5280, 4.1) that the ssl module does not tell of our own.

    Raises:
        ValueError: There is none.
    """
    start, end = pem.index(_BEGIN), pem.index(_END) + len(_END)
    der = ssl.PEM_cert_to_DER_cert(pem[start:end])
    try:
        ((_, certificate),) = _elements(der)
        (_, signed), *_ = _elements(certificate)
        fields = [content for tag, content in _elements(signed) if tag != _VERSION]
        _serial, _algorithm, _issuer, validity, *_ = fields
        _, (tag, text) = _elements(validity)
        return datetime.strptime(text.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC).timestamp()
    except (IndexError, KeyError) as error:
        raise ValueError("is no certificate") from error


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element."""
    at = 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & _LONG:  # it is the number of bytes that say the size
            count = size & ~_LONG
            size = int.from_bytes(der[at : at + count], "big")
            at += count
        yield tag, der[at : at + size]
        at += size
