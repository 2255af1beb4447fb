"""Which form of the connection path runs: compiled, or interpreted from the same text.

Theory of operation:

1. The modules of COMPILED are Python and run as such. Where a C compiler is, tools/compile.py makes an extension module of
   each, from the same text and from the `.pxd` beside it, if there is one. Nothing else knows of it: who imports a module
   gets one of the two.
2. Extension modules are in `_compiled/DIGEST/`, where the digest is of everything that they were made from. It is taken of the
   files as they are now, at each start (a millisecond), so that what was made from other text is never found: after an edit
   a checkout runs interpreted, and says so, until tools/setup has compiled it.
3. It is all of them or none, since compiled modules know the layout of each other's objects. So the folder is made under
   another name, and gets its own when everything is in it.
4. A room that has such modules puts its part of that folder in front of its `__path__`, and Python's import does the rest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final, Literal

COMPILED: Final = (
    "dataplane.core.admission",
    "dataplane.core.balance.base",
    "dataplane.core.balance.leastconn",
    "dataplane.core.balance.p2c",
    "dataplane.core.balance.random",
    "dataplane.core.balance.rr",
    "dataplane.core.balance.sticky",
    "dataplane.core.client_hello",
    "dataplane.core.outlier",
    "dataplane.core.pool",
    "dataplane.core.recent",
    "dataplane.core.routing",
    "dataplane.core.selection",
    "dataplane.net.backend",
    "dataplane.net.backend_handshake",
    "dataplane.net.calls",
    "dataplane.net.client_hello",
    "dataplane.net.connect",
    "dataplane.net.counters",
    "dataplane.net.deadlines",
    "dataplane.net.dialer",
    "dataplane.net.flow",
    "dataplane.net.goal",
    "dataplane.net.handshake",
    "dataplane.net.idle",
    "dataplane.net.leg",
    "dataplane.net.listener",
    "dataplane.net.pool",
    "dataplane.net.proxy_header",
    "dataplane.net.reactor",
    "dataplane.net.refiller",
    "dataplane.net.router",
    "dataplane.net.service",
    "dataplane.net.tls",
    "dataplane.net.tls_leg",
)
"""What a connection passes through, but for what only declares."""

SUFFIX: Final = EXTENSION_SUFFIXES[0]
"""How the file of an extension module ends: with the Python and the machine that it is for."""

_PACKAGE: Final = Path(__file__).parent


def _set(name: str) -> bool:
    return os.environ.get(name, "0") not in {"", "0"}


ROOT: Final = Path(os.environ.get("LIVELB_COMPILED") or _PACKAGE / "_compiled")
"""Has a folder for each state of the sources that was compiled; the variable names another one, for other flags of C."""


def sources(module: str) -> Iterator[Path]:
    """Yield the files that say what a module is: what the compiler reads first, and its types if it has some."""
    text = _PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    calls = text.with_suffix(".pyx")  # net.calls alone has a text of its own for each form
    yield calls if calls.exists() else text
    types = text.with_suffix(".pxd")
    if types.exists():
        yield types


def digest() -> str:
    """Return a name for what all compiled modules are made from and for, in 16 hexadecimal digits."""
    files = [path for module in COMPILED for path in sources(module)]
    headers = [path for room in {path.parent for path in files} for path in room.glob("*.h")]
    found = hashlib.sha256(SUFFIX.encode())
    for path in (*files, *sorted(headers)):
        content = path.read_bytes()
        found.update(f"\n{path.relative_to(_PACKAGE)} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:16]


_FOLDER: Final = None if _set("LIVELB_INTERPRETED") or not ROOT.is_dir() else ROOT / digest()

BUILD: Final[Literal["compiled", "interpreted"]] = (
    "compiled" if _FOLDER is not None and _FOLDER.is_dir() else "interpreted"
)
"""The form that this process runs."""


def stale() -> bool:
    """Return whether this process runs interpreted only because something was edited after it was compiled."""
    return BUILD == "interpreted" and _FOLDER is not None and any(ROOT.glob(f"*/*/*{SUFFIX}"))


def folders(package: str) -> list[str]:
    """Return where modules of a package are looked for before its own folder: one place, or none.

    Args:
        package: Its name, `dataplane` with it.
    """
    if _FOLDER is None or BUILD == "interpreted":
        return []
    return [str(_FOLDER.joinpath(*package.split(".")[1:]))]
