"""TLS to `https://` data planes, for both clients: the files that the options name, as they are now, and what went wrong.

A context is made of the files at the first `https://` connection, never for Unix sockets. Each new connection gets one of
the files as they are then (`schemas.http.reloaded`); connections in place go on.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from controlplane.dataplanes.endpoint import Endpoint, unreachable
from controlplane.errors import InputError, UnreachableError
from schemas.http.authorities import trusting
from schemas.http.reloaded import Renewed
from schemas.system.ownership import explain_error

# X509_V_ERR_* of OpenSSL's x509_vfy.h: nobody who is trusted has signed it; a date; a name.
_UNTRUSTED: Final = frozenset({2, 18, 19, 20, 21})
_DATES: Final = frozenset({9, 10})
_NAMES: Final = frozenset({62, 64})
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
"""What OpenSSL, by its version, makes of an answer that is plain text."""


@dataclass(frozen=True, slots=True)
class PemFile:
    """A file and who named it."""

    path: Path
    label: str
    """For messages: `--ca-file PATH`, or `LB_CA_FILE=PATH`."""


class Tls:
    """What `https://` data planes are spoken to with; shared by all clients, in any thread.

    Args:
        ca: The authorities to trust; None: the system's.
        cert: The certificate to present, those between it and its authority behind it; None: none.
        key: Its key; None: it is in the same file.
    """

    def __init__(
        self, ca: PemFile | None = None, cert: PemFile | None = None, key: PemFile | None = None
    ) -> None:
        self._ca = ca
        self._cert = cert
        self._key = key
        self._context = Renewed(self._paths(), self._made, wrong=InputError)

    @property
    def trouble(self) -> str | None:
        """Why the newest files are not in use; None: they are, or nothing was read yet."""
        return None if self._context.trouble is None else str(self._context.trouble)

    def load(self) -> ssl.SSLContext:
        """Return the context for one new connection. Blocks: it looks at the files.

        Raises:
            InputError: They cannot be used, and never could.
        """
        return self._context.now()

    def context(self, endpoint: Endpoint) -> ssl.SSLContext:
        """Return what `load` returns, for a client of one data plane.

        Raises:
            UnreachableError: The files cannot be used.
        """
        try:
            return self.load()
        except InputError as error:
            raise UnreachableError(endpoint.name, f"{endpoint.location}: {error}") from error

    def unreachable(self, endpoint: Endpoint, error: BaseException) -> UnreachableError:
        """Return what to raise about a data plane that could not be asked: why, and what to do."""
        if isinstance(error, PermissionError) and not endpoint.is_url:
            told: str | None = explain_error(Path(endpoint.location), error)
        else:
            told = self.words(endpoint, error)
        told = told or getattr(error, "strerror", None) or str(error) or type(error).__name__
        return unreachable(endpoint, told + endpoint.advice)

    def words(self, endpoint: Endpoint, error: BaseException) -> str | None:
        """Tell what a failed connection means, and what to do; None if TLS has no part in it."""
        if not endpoint.is_url:
            return None
        chain = tuple(_chain(error))
        cut = any(
            isinstance(each, ConnectionResetError | BrokenPipeError | ssl.SSLEOFError) for each in chain
        )
        if not endpoint.is_https:
            return "closed without an answer; if it has --tls-cert, say https://" if cut else None
        told = next(filter(None, map(self._said, chain)), self._cut() if cut else None)
        if told is not None and self.trouble is not None:
            return f"{told} (files of before are in use; newer ones cannot be: {self.trouble})"
        return told

    def _paths(self) -> list[Path]:
        named = [each.path for each in (self._ca, self._cert, self._key) if each is not None]
        system = None if self._ca else ssl.get_default_verify_paths().cafile
        return [*named, Path(system)] if system else named

    def _made(self) -> ssl.SSLContext:
        context = self._trusting()
        if self._cert is not None:
            _present(context, self._cert, self._key or self._cert)
        elif self._key is not None:
            _wrong(self._key, "its certificate is not named: --cert-file")
        return context

    def _trusting(self) -> ssl.SSLContext:
        if self._ca is None:
            return trusting(ssl.Purpose.SERVER_AUTH, None)
        _read(self._ca)
        try:
            return trusting(ssl.Purpose.SERVER_AUTH, self._ca.path)
        except (ssl.SSLError, OSError) as error:
            _wrong(self._ca, f"no certificate in PEM form ({_plain(error)})")

    def _trusted(self) -> str:
        """Name the authorities that were used."""
        if self._ca is not None:
            return self._ca.label
        system = ssl.get_default_verify_paths()
        return f"this system's authorities ({system.cafile or system.capath or 'it has none'})"

    def _said(self, error: BaseException) -> str | None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return self._distrust(error)
        if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):
            return self._alert(error)
        return None

    def _distrust(self, error: ssl.SSLCertVerificationError) -> str:
        what = f"certificate verify failed: {error.verify_message.rstrip('.')}"
        if error.verify_code in _NAMES:
            return f"{what}: call it by a name in its certificate, or put this one there (subjectAltName)"
        what = f"{what}, checked with {self._trusted()}"
        if error.verify_code in _DATES:
            return f"{what}: renew its --tls-cert or that authority, unless a clock is wrong"
        if error.verify_code not in _UNTRUSTED:
            return what
        if self._ca is None:
            return f"{what}: name the authority that signed it with --ca-file"
        return f"{what}: the authority that signed it has to be in there"

    def _alert(self, error: ssl.SSLError) -> str:
        reason = error.reason or ""
        if reason in _NO_TLS:
            return "no TLS is spoken there: say http://, or name another port"
        what = _plain(error)
        if "_ALERT_" not in reason:
            return what
        return f"it refused the handshake ({what}): {self._remedy('if it asks for a certificate')}"

    def _cut(self) -> str:
        # asyncio's server closes after a failed handshake, and its alert is never sent.
        return f"it closed the connection without an answer: {self._remedy('if it has --tls-client-ca')}"

    def _remedy(self, when: str) -> str:
        if self._cert is None:
            return f"{when}, name a certificate with --cert-file"
        must = f"its --tls-client-ca must hold the authority that signed {self._cert.label}"
        return f"{must}, which must be in date and for clients"


def tls_of(environ: Mapping[str, str], **options: Path | None) -> Tls:
    """Make it of the options `ca_file`, `cert_file` and `key_file`, each in place of its variable (`LB_CA_FILE`).

    Reads no file yet.
    """

    def named(name: str) -> PemFile | None:
        if (path := options.get(name)) is not None:
            return PemFile(path, f"--{name.replace('_', '-')} {path}")
        variable = f"LB_{name.upper()}"
        if value := environ.get(variable):
            return PemFile(Path(value), f"{variable}={value}")
        return None

    return Tls(named("ca_file"), named("cert_file"), named("key_file"))


class _EncryptedError(Exception):
    """OpenSSL asks for a password; without an answer it would ask at the terminal, in the daemon as well."""


def _no_password() -> NoReturn:
    raise _EncryptedError


def _present(context: ssl.SSLContext, cert: PemFile, key: PemFile) -> None:
    """Load a certificate and its key.

    Raises:
        InputError: That they cannot be used, with the file to blame.
    """
    if b"CERTIFICATE-----" not in _read(cert):
        _wrong(cert, "no certificate in PEM form")
    if b"PRIVATE KEY-----" not in _read(key):
        more = ": put it there, or name its file with --key-file" if key is cert else " in PEM form"
        _wrong(key, f"no private key{more}")
    try:
        context.load_cert_chain(cert.path, key.path, password=_no_password)
    except _EncryptedError:
        _wrong(key, "the key is encrypted, and has to be in plain, in a file that only its owner can read")
    except ssl.SSLError as error:
        if error.reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH"}:
            where = "the first certificate there" if key is cert else f"the first certificate of {cert.label}"
            _wrong(key, f"the key does not fit {where}")
        _wrong(cert if key is cert else key, f"with {cert.label}: {_plain(error)}")
    except OSError as error:  # it went between the look and the load
        _wrong(cert, error.strerror or str(error))


def _wrong(file: PemFile, message: str) -> NoReturn:
    raise InputError(file.label, [{"path": "", "message": message}]) from None


def _read(file: PemFile) -> bytes:
    try:
        return file.path.read_bytes()
    except OSError as error:
        _wrong(file, error.strerror or str(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was made of."""
    while error is not None:
        yield error
        error = error.__cause__


def _plain(error: BaseException) -> str:
    """Return OpenSSL's words without its module and C file: `[SSL: X] words (_ssl.c:1)`."""
    words = (getattr(error, "strerror", None) or str(error)).rpartition(" (_ssl.c")[0] or str(error)
    return words.partition("] ")[2] or words
