"""The programs of the run: compiled from C, or found on this machine."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tools.bench.child import Failed

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
CACHE: Final = ROOT / ".tools" / "bench"
INTERPRETED: Final[Mapping[str, str]] = MappingProxyType({"LIVELB_INTERPRETED": "1"})
"""What in its environment makes our data plane run interpreted, even where it is compiled."""
COMPILED: Final = "compiled"
_FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Wno-unused-result")
_LIBRARIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"tls_load": ("-lssl", "-lcrypto")})
_HEADERS: Final = MappingProxyType({"openssl/ssl.h": "libssl-dev"})
"""What is not installed if the compiler does not find them."""


@functools.cache
def compiled(name: str) -> str:
    """Return the path of one of our C programs, compiled if its source, or a header of ours, is new.

    Raises:
        Failed: There is no compiler, or it refuses.
    """
    source = HERE / f"{name}.c"
    sources = [source, *sorted(HERE.glob("*.h"))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sources)).hexdigest()[:12]
    program = CACHE / f"{name}-{digest}"
    if program.exists():
        return str(program)
    CACHE.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [installed("cc"), *_FLAGS, "-o", str(unfinished), str(source), *_LIBRARIES.get(name, ())],
        capture_output=True,
        text=True,
        check=False,
    )
    for header, package in _HEADERS.items():
        if f"{header}: No such file" in done.stderr:
            raise Failed(f"{package} is not installed: {name}.c needs {header}")
    if done.returncode != 0:
        raise Failed(f"{name}.c does not compile: {done.stderr[-400:]}")
    unfinished.replace(program)
    return str(program)


@functools.cache
def installed(name: str) -> str:
    """Return the path of a program: from the peers' own virtual environment, or from PATH.

    Raises:
        Failed: It is not installed.
    """
    where = os.pathsep.join(
        [str(CACHE / "peers" / "bin"), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    )
    found = shutil.which(name, path=where)
    if found is None:
        raise Failed(f"{name} is not installed")
    return found


def ours() -> str:
    """Return the path of our data plane."""
    return _beside("lb-dataplane")


@functools.cache
def form(*, interpreted: bool = False) -> str:
    """Return which form of our data plane runs here, as it says itself: `compiled` or `interpreted`.

    Args:
        interpreted: Ask for the interpreted form, which is there in any case.

    Raises:
        Failed: It does not start.
    """
    done = subprocess.run(
        [ours(), "--version"],
        env={**os.environ, **(INTERPRETED if interpreted else {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(f"lb-dataplane --version: {done.stderr.strip()[-300:]}")
    words = set(re.findall(r"\w+", done.stdout))
    return COMPILED if COMPILED in words and "interpreted" not in words else "interpreted"


def control_plane() -> str:
    """Return the path of our control plane."""
    return _beside("lb-control")


def _beside(name: str) -> str:
    """Return the path of a program in the virtual environment that runs this, or in PATH."""
    beside = Path(sysconfig.get_path("scripts")) / name
    return str(beside) if beside.exists() else installed(name)


@functools.cache
def postgres(name: str) -> str:
    """Return the path of a server program of PostgreSQL, which Debian keeps out of PATH.

    Raises:
        Failed: It is not installed.
    """
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else installed(name)
