"""The certificates that all contenders end TLS with."""

from __future__ import annotations

import fcntl
import functools
import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tools.bench.build import installed
from tools.bench.child import Failed
from tools.bench.contenders import CERTIFICATES, KEYS, NAME

_FRESH_S: Final = 86_400.0
_OPTIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "ecdsa": ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        "rsa": ("rsa:2048",),
    }
)


@functools.cache
def make_certificates() -> None:
    """Make a pair with a key of each kind, signed by itself: a chain of one, so that nobody sends more than another.

    What is younger than a day stays: another run may be using it now.

    Raises:
        Failed: There is no openssl, or it refuses.
    """
    CERTIFICATES.mkdir(parents=True, exist_ok=True)
    with (CERTIFICATES / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for kind in KEYS:
            file = CERTIFICATES / f"{kind}.pem"
            if not file.exists() or time.time() - file.stat().st_mtime > _FRESH_S:
                _make(kind, file)


def _make(kind: str, file: Path) -> None:
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
