"""TLS of services as a change is prepared: every file is read before anything runs, and one that cannot be used refuses the change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, cast

from dataplane.core.spec import ServiceSpec
from dataplane.errors import Refused
from dataplane.net.service import Service
from dataplane.node.running_service import RunningService
from dataplane.telemetry.events import Events
from dataplane.tls.files import TlsFileError, shown_time
from dataplane.tls.secrecy import keep_memory_secret
from dataplane.tls.service import CertificateView, ClientTls, ServerTls
from dataplane.tls.watch import Used

UNUSABLE: Final = "tls_files_unusable"


class ServiceTls(NamedTuple):
    """What a service has for TLS with its clients, and with its backends."""

    server: ServerTls | None = None
    client: ClientTls | None = None


_NONE: Final = ServiceTls()


async def load_tls(
    specs: Sequence[ServiceSpec], running: Mapping[str, RunningService]
) -> dict[str, ServiceTls]:
    """Return what services with TLS need for it, by name; what is configured as it runs is what runs.

    `Refused` (422) names every file that cannot be used.
    """
    found: dict[str, ServiceTls] = {}
    new: list[ServiceSpec] = []
    for spec in specs:
        if spec.tls is None and spec.backend_tls is None:
            continue
        now = tls_of(running[spec.name].service) if spec.name in running else _NONE
        kept = ServiceTls(
            now.server if now.server is not None and now.server.spec == spec.tls else None,
            now.client if now.client is not None and now.client.spec == spec.backend_tls else None,
        )
        found[spec.name] = kept
        if (kept.server is None) is not (spec.tls is None) or (kept.client is None) is not (
            spec.backend_tls is None
        ):
            new.append(spec)
    if new:
        keep_memory_secret()
        made, problems = await asyncio.to_thread(_made, new, found, time.time())
        if problems:
            said = "; ".join(f"{one['path']}: {one['message']}" for one in problems)
            raise Refused(422, UNUSABLE, said, problems)
        found |= made
    return found


def _made(
    specs: Iterable[ServiceSpec], kept: Mapping[str, ServiceTls], wall: float
) -> tuple[dict[str, ServiceTls], list[dict[str, str]]]:
    """Read what is not `kept`; return it, and what is wrong with it."""
    made: dict[str, ServiceTls] = {}
    problems: list[dict[str, str]] = []
    for spec in specs:
        server, client = kept[spec.name]
        section = "tls"
        try:
            if server is None and spec.tls is not None:
                server = ServerTls(spec.tls, wall)
            section = "backend_tls"
            if client is None and spec.backend_tls is not None:
                client = ClientTls(spec.backend_tls, wall)
        except TlsFileError as error:
            problems.append({"path": f"services.{spec.name}.{section}.{error.place}", "message": str(error)})
        made[spec.name] = ServiceTls(server, client)
    return made, problems


def tls_of(service: Service) -> ServiceTls:
    """Return what a service has."""
    return ServiceTls(cast("ServerTls | None", service.tls), cast("ClientTls | None", service.backend_tls))


def used(services: Iterable[RunningService]) -> list[Used]:
    """Return all TLS that these services have."""
    return [
        Used(running.service.name, one)
        for running in services
        for one in tls_of(running.service)
        if one is not None
    ]


def certificates_of(service: Service) -> tuple[CertificateView, ...]:
    """Return what is to be said of the certificates of a service."""
    if service.tls is None and service.backend_tls is None:
        return ()
    return tuple(view for one in tls_of(service) if one is not None for view in one.files.views())


def run_tls(service: Service, tls: ServiceTls, events: Events) -> None:
    """Have a service use this from the next handshake on, and tell of what is new in it what somebody should see to."""
    before = tls_of(service)
    service.tls, service.backend_tls = tls
    for one in tls:
        if one is None or one in before:
            continue
        for view in one.files.views():
            told = {"service": service.name, "place": view.place, "path": view.cert}
            if time.time() >= view.not_after:
                events.emit("certificate_ended", **told, ends=shown_time(view.not_after))
            if view.key_readable:
                events.emit("key_readable_by_all", **told)
