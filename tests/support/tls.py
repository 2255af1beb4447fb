"""Certificates for tests: an authority of their own, and what it signs, as PEM files on disk.

Made within the process (`trustme`), so a key is there in a millisecond. What concerns the files of the `openssl`
program itself (its own database, keys with a password) is in `tests/support/authority.py`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

import trustme

ALGORITHMS: Final = {"ecdsa": trustme.KeyType.ECDSA, "rsa": trustme.KeyType.RSA}
"""ECDSA over P-256, RSA with 2048 bits."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, on disk."""

    cert: Path
    """The certificate, then what signed it if that is no authority of the tests; readable by all."""
    key: Path
    """For its owner only."""

    @property
    def spec(self) -> dict[str, str]:
        """As `tls.certificates` of a service, and `backend_tls`, take it."""
        return {"cert": str(self.cert), "key": str(self.key)}

    @property
    def single(self) -> Path:
        """Both in one file, as HAProxy takes it; made again each time."""
        return _write(
            self.cert.with_suffix(".both.pem"), self.cert.read_bytes() + self.key.read_bytes(), 0o600
        )

    def put(self, cert: Path, key: Path) -> None:
        """Copy it over the pair of these names, as a renewal does: each file replaced by a rename, the key first."""
        _write(key, self.key.read_bytes(), 0o600)
        _write(cert, self.cert.read_bytes(), 0o644)


class CertificateAuthority:
    """Signs certificates; what it made stays in its folder.

    Args:
        folder: For its files; made if need be.
        name: Its organization; two of one name differ in their keys.
    """

    def __init__(self, folder: Path, name: str = "livelb tests") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._authority = trustme.CA(organization_name=name)
        self.ca = _write(folder / "ca.pem", self._authority.cert_pem.bytes(), 0o644)
        """Its own certificate: what who trusts it names."""

    def issue(
        self,
        *names: str,
        algorithm: Literal["ecdsa", "rsa"] = "ecdsa",
        common_name: str | None = None,
        lasts: timedelta = timedelta(days=30),
        began: datetime | None = None,
        file: str | None = None,
    ) -> Pair:
        """Return a new certificate, for a server or a client, and its key.

        Args:
            names: Whom it is for: host names, `*.example.com`, addresses.
            algorithm: Of the key.
            common_name: Of the subject, as programs show and PROXY headers carry it; None for none.
            lasts: From now on (or from `began`); below zero, it has ended already.
            began: When it begins to hold; None for yesterday.
            file: The names of its files without their ends; None: the first name and the algorithm. One that is there
                already is replaced.
        """
        now = datetime.now(UTC)
        leaf = self._authority.issue_cert(
            *names,
            common_name=common_name,
            # before its end, whatever that is
            not_before=began or min(now, now + lasts) - timedelta(days=1),
            not_after=(began or now) + lasts,
            key_type=ALGORITHMS[algorithm],
        )
        stem = file or f"{names[0].replace('*', '_')}-{algorithm}"
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        return Pair(
            _write(self.folder / f"{stem}.pem", chain, 0o644),
            _write(self.folder / f"{stem}.key", leaf.private_key_pem.bytes(), 0o600),
        )

    def expired(self, *names: str, algorithm: Literal["ecdsa", "rsa"] = "ecdsa") -> Pair:
        """Return one that ended an hour ago; its files say `expired`."""
        stem = f"{names[0].replace('*', '_')}-{algorithm}-expired"
        return self.issue(*names, algorithm=algorithm, lasts=timedelta(hours=-1), file=stem)

    def client_context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """Return a client's context that trusts only this authority, and shows a certificate if it is given one."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        return context

    def server_context(self, pair: Pair, *, client_ca: Path | None = None) -> ssl.SSLContext:
        """Return a server's context with this pair; with `client_ca` it wants a certificate of the client."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=client_ca and str(client_ca))
        context.load_cert_chain(pair.cert, pair.key)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _write(path: Path, content: bytes, mode: int) -> Path:
    """Put a file in place by a rename, so that who reads it meanwhile reads the old or the new one."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.touch(mode=mode)
    beside.write_bytes(content)
    beside.chmod(mode)
    return beside.replace(path)
