"""The files that an lb.yaml names: relative paths are made absolute by whoever knows its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.discovery import CONSUL_FILES
from schemas.tls import SYSTEM

if TYPE_CHECKING:
    from schemas.reading.document import Document  # what reads it is loaded where a file is read

_Made = Callable[[str], str]
SERVICE_FILES: Final = {"tls": ("client_ca",), "backend_tls": ("ca", "cert", "key")}
"""The keys of a service's sections that name files, besides those of `tls.certificates`."""
CERTIFICATE_FILES: Final = ("cert", "key")


def at_folder(document: Document, folder: Path | None) -> Document:
    """Return an lb.yaml whose relative paths of files start at a folder, its own: all of them are absolute.

    Whoever reads an lb.yaml knows its folder; the daemon, the history and a later start do not. What is wrong with a path
    stays as it is.

    Args:
        document: The lb.yaml.
        folder: None: it has none, such as a key of Consul's. Files of `consul` are looked for where this process was
            started, as this machine alone has them; those of services have to be absolute, and stay as they are.
    """
    value = document.value
    if not isinstance(value, dict):
        return document
    base = Path().absolute() if folder is None else folder
    changed = dict(value)
    consul = value.get("consul")
    if isinstance(consul, dict):
        changed["consul"] = _joined(consul, CONSUL_FILES, lambda path: str(base / path))
    if folder is not None:
        defaults, services = value.get("defaults"), value.get("services")
        made: _Made = lambda path: path if path == SYSTEM else str(base / path)  # noqa: E731 - two lines for one
        if isinstance(defaults, dict):
            changed["defaults"] = _service(defaults, made)
        if isinstance(services, dict):
            changed["services"] = {name: _service(one, made) for name, one in services.items()}
    return replace(document, value=changed)


def _service(service: object, made: _Made) -> object:
    if not isinstance(service, dict) or not service.keys() & SERVICE_FILES.keys():
        return service
    changed = dict(service)
    for section, keys in SERVICE_FILES.items():
        said = service.get(section)
        if not isinstance(said, dict):
            continue
        changed[section] = said = _joined(said, keys, made)
        pairs = said.get("certificates")
        if section == "tls" and isinstance(pairs, list):
            said["certificates"] = [
                _joined(pair, CERTIFICATE_FILES, made) if isinstance(pair, dict) else pair for pair in pairs
            ]
    return changed


def _joined(mapping: Mapping[str, Any], keys: tuple[str, ...], made: _Made) -> dict[str, Any]:
    paths = {key: made(path) for key in keys if isinstance(path := mapping.get(key), str) and path}
    return {**mapping, **paths}
