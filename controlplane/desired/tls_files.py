"""What is wrong with files of TLS that an lb.yaml names, as far as it can be seen from here.

Whoever validates may be elsewhere, and need not be allowed to read keys: data planes read them. So all of it is a warning, and
what may not be looked at is left out.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from schemas.x509 import first_certificate

if TYPE_CHECKING:
    from schemas.desired import DesiredService
    from schemas.tls import BackendTls, Tls

SOON_S: Final = 7 * 86400
_MAX_BYTES: Final = 1 << 20
_ABSENT: Final = "is not on this machine"
_MISMATCH: Final = frozenset({"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"})


def file_warnings(services: Mapping[str, DesiredService], wall: float) -> list[str]:
    """Return what is wrong with the files that services name, each with its place; `wall` is the time in Unix seconds."""
    found: list[str] = []
    for name, service in services.items():
        for place, text in _of_service(service.tls, service.backend_tls, wall):
            found.append(f"services.{name}.{place}: {text}")
    return found


def _of_service(tls: Tls | None, begun: BackendTls | None, wall: float) -> Iterator[tuple[str, str]]:
    if tls is not None:
        for index, pair in enumerate(tls.certificates):
            yield from _pair(f"tls.certificates[{index}]", pair.cert, pair.key, wall)
        if tls.client_ca is not None:
            yield from _certificate("tls.client_ca", tls.client_ca)
    if begun is not None:
        if begun.cert is not None and begun.key is not None:
            yield from _pair("backend_tls", begun.cert, begun.key, wall)
        if begun.ca.startswith("/"):
            yield from _certificate("backend_tls.ca", begun.ca)


def _pair(place: str, cert: str, key: str, wall: float) -> Iterator[tuple[str, str]]:
    wrong = list(_certificate(f"{place}.cert", cert, wall))
    yield from wrong
    try:
        readable_by_all = os.stat(key).st_mode & 0o004  # noqa: PTH116 - a text is what is at hand
    except FileNotFoundError:
        yield f"{place}.key", f"{key} {_ABSENT}"
        return
    except OSError:
        return
    if readable_by_all:
        yield f"{place}.key", f"{key} may be read by everybody on this machine; take that from others"
    if not wrong and os.access(key, os.R_OK) and not _belong_together(cert, key):
        yield f"{place}.key", f"{key} is not the key of {cert}"


def _certificate(place: str, path: str, wall: float | None = None) -> Iterator[tuple[str, str]]:
    """Look at a file of certificates; with a time, at whether the first one holds then."""
    try:
        with Path(path).open("rb") as file:
            known = first_certificate(file.read(_MAX_BYTES))
    except FileNotFoundError:
        yield place, f"{path} {_ABSENT}"
    except OSError:
        return
    except ValueError as error:
        yield place, f"{path} {error}"
    else:
        if wall is None or known.not_before <= wall < known.not_after - SOON_S:
            return
        if wall < known.not_before:
            yield place, f"{path} holds only from {_shown(known.not_before)} on"
        else:
            yield (
                place,
                f"{path} {'ends' if wall < known.not_after else 'ended'} at {_shown(known.not_after)}",
            )


def _belong_together(cert: str, key: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        return error.reason not in _MISMATCH
    except OSError:
        return True
    return True


def _shown(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")
