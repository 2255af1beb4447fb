"""What the run runs on, and how busy it is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tools.bench.build import ROOT, form, installed
from tools.bench.child import Failed

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_IDLE: Final = frozenset({3, 4})
"""Columns of /proc/stat that are not work: idle and iowait."""
_GUEST_FROM: Final = 8
"""The columns from here on are counted in user time already."""
_VERSIONS: Final = (
    ("HAProxy", "haproxy", "-v"),
    ("nginx", "nginx", "-v"),
    ("Envoy", "envoy", "--version"),
    ("Traefik", "traefik", "version"),
    ("OpenSSL", "openssl", "version"),
    ("wrk", "wrk", "-v"),
    ("iperf3", "iperf3", "--version"),
    ("redis-benchmark", "redis-benchmark", "--version"),
    ("pgbench", "pgbench", "--version"),
    ("cc", "cc", "--version"),
)


def busy_s() -> float:
    """Return the CPU seconds that the whole machine has worked since it started, interrupts included."""
    columns = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(n for i, n in enumerate(columns[:_GUEST_FROM]) if i not in _IDLE) / _TICKS_PER_S


def _version(program: str, option: str) -> str:
    try:
        done = subprocess.run(
            [installed(program), option], capture_output=True, text=True, timeout=10, check=False
        )
    except (Failed, OSError, subprocess.SubprocessError) as error:
        return str(error)
    found = re.search(r"\d+\.\d+[\w.+-]*", done.stdout + done.stderr)
    return found[0] if found else "unknown version"


def _model() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1].strip() if found else platform.machine()


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _interpreter() -> str:
    """Say what runs our data plane: a virtual environment has the build of the Python that it was made from."""
    given = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    debian = sys.base_prefix == "/usr" and Path("/etc/debian_version").exists()
    if "--enable-optimizations" in given:
        guided = "built with profile-guided optimisation"
    elif debian:
        guided = "Debian's build, which is profile-guided"
    else:
        guided = "built without profile-guided optimisation (no --enable-optimizations)"
    linked = f"{given} {sysconfig.get_config_var('PY_CORE_LDFLAGS') or ''}"
    lto = "with LTO" if "--with-lto" in given or "-flto" in linked else "no LTO named"
    shared = "libpython" in Path("/proc/self/maps").read_text()
    library = "libpython as a shared library" if shared else "libpython linked statically"
    return f"CPython {platform.python_version()}, {guided}, {lto}, {library}"


def describe() -> dict[str, Any]:
    """Return what a reader must know to compare figures: processors, kernel, versions, when, and how busy before."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "processor": _model(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "interpreter": _interpreter(),
        "form": form(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {
            "Python": platform.python_version(),
            "Python's OpenSSL": ssl.OPENSSL_VERSION.split()[1],
            "uvloop": importlib.metadata.version("uvloop"),
            **{title: _version(program, option) for title, program, option in _VERSIONS},
        },
    }
