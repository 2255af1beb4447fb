"""The certificates that all contenders end TLS with."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tools.bench.build import installed
from tools.bench.child import Failed
from tools.bench.contenders import CERTIFICATES, KEYS, NAME

_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "ecdsa": ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        "rsa": ("rsa:2048",),
    }
)


@functools.cache
def make_certificates() -> None:
    """Make a pair with a key of each kind, signed by itself: a chain of one, so that nobody sends more than another.

    Raises:
        Failed: There is no openssl, or it refuses.
    """
    CERTIFICATES.mkdir(parents=True, exist_ok=True)
    for kind in KEYS:
        file = CERTIFICATES / f"{kind}.pem"
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.touch(0o600)
        argv = [
            installed("openssl"), "req", "-x509", "-newkey", *_OPTIONS[kind], "-nodes", "-days", "7",
            "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", "-", "-out", "-",
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"openssl req: {done.stderr.strip()[-300:]}")
        unfinished.write_text(done.stdout)
        unfinished.replace(file)
