"""A private authority for tests, made and used with the real openssl."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

_NEW_KEY: Final = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
_CONFIGURATION: Final = """
[ca]
default_ca = it
[it]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = {names}
"""


class Authority:
    """Signs certificates; its own is `ca`.

    Args:
        folder: For its files; made if need be.
        name: Its common name; two of one name differ in their keys.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.ca = folder / "ca.pem"
        (folder / "index.txt").touch()
        usage = ("-addext", "keyUsage=critical,keyCertSign,digitalSignature")
        subject = ("-x509", "-days", "2", "-subj", f"/CN={name}")
        self._openssl(*_NEW_KEY, *subject, "-keyout", "ca.key", "-out", "ca.pem", *usage)

    def issue(
        self, name: str, *, names: str = "IP:127.0.0.1", dates: tuple[str, str] | None = None
    ) -> tuple[Path, Path]:
        """Return the files of a new certificate and its key.

        Args:
            name: Of the files, and the common name.
            names: Whom it is for, as `IP:127.0.0.1,DNS:localhost`.
            dates: From and until, as `20200101000000Z`; None: two days from now.
        """
        (self.folder / "ca.cnf").write_text(_CONFIGURATION.format(names=names))
        self._openssl(*_NEW_KEY, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        valid = ("-days", "2") if dates is None else ("-startdate", dates[0], "-enddate", dates[1])
        signing = ("ca", "-batch", "-notext", "-config", "ca.cnf", "-extensions", "leaf")
        with_key = ("-cert", "ca.pem", "-keyfile", "ca.key")
        self._openssl(*signing, *with_key, *valid, "-in", f"{name}.csr", "-out", f"{name}.pem")
        return self.folder / f"{name}.pem", self.folder / f"{name}.key"

    def encrypt(self, key: Path) -> Path:
        """Return a copy of a key that needs a password."""
        encrypted = key.with_suffix(".encrypted")
        self._openssl("pkey", "-in", str(key), "-aes256", "-passout", "pass:secret", "-out", str(encrypted))
        return encrypted

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=self.folder)
