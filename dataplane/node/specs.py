"""Pydantic ends here: a snapshot's services become the frozen specs that the connection path uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dataplane.core.spec import (
    AccessSpec,
    ActiveCheckSpec,
    BackendSpec,
    CheckType,
    DrainSpec,
    LimitsSpec,
    ListenSpec,
    Mode,
    OperatorState,
    PassiveSpec,
    PoolMode,
    PoolSpec,
    ProxyAccept,
    ProxySend,
    ProxySpec,
    Resets,
    ServiceSpec,
    TimeoutsSpec,
)
from schemas.listeners import addresses_of

if TYPE_CHECKING:
    from schemas.snapshot import Backend, Service

__all__ = ["backend_spec", "service_spec"]


def backend_spec(backend: Backend) -> BackendSpec:
    """Convert one backend."""
    return BackendSpec(
        backend.id, backend.address, backend.weight, backend.tier, OperatorState(backend.state)
    )


def service_spec(name: str, service: Service) -> ServiceSpec:
    """Convert one service with everything in it."""
    pool, timeouts, limits, drain = service.pool, service.timeouts, service.limits, service.drain
    passive = service.health.passive
    return ServiceSpec(
        name=name,
        listen=service.addresses,
        listen_options=_listen_options(service),
        mode=Mode(service.mode),
        seed=service.seed,
        backends=tuple(backend_spec(backend) for backend in service.backends),
        pool=PoolSpec(
            PoolMode(pool.mode),
            pool.min_idle,
            pool.max_idle,
            pool.idle_timeout,
            pool.max_age,
            pool.greeting_age,
        ),
        active=_active_check(service),
        passive=PassiveSpec(
            passive.failures,
            passive.ejection,
            passive.max_ejection,
            passive.max_ejected,
            Resets(passive.resets),
        ),
        panic=service.health.panic,
        timeouts=TimeoutsSpec(
            timeouts.connect, timeouts.idle, timeouts.half_closed, timeouts.lifetime, timeouts.proxy_header
        ),
        retries=service.retries,
        proxy=ProxySpec(
            ProxySend(service.proxy_protocol.send),
            ProxyAccept(service.proxy_protocol.accept),
            tuple(service.proxy_protocol.trusted),
        ),
        limits=LimitsSpec(
            limits.connections,
            limits.per_backend,
            limits.per_client,
            limits.client_rate,
            limits.queue,
            limits.queue_timeout,
            limits.queue_abandoned == "drop",
        ),
        access=AccessSpec(tuple(service.access.allow), tuple(service.access.deny)),
        drain=DrainSpec(drain.timeout, drain.close),
        slow_start_s=service.slow_start,
        balance_workers=service.balance_workers,
    )


def _listen_options(service: Service) -> tuple[tuple[str, ListenSpec], ...]:
    return tuple(
        (address, ListenSpec(one.freebind, int(one.mode, 8) if one.mode else None, one.owner, one.group))
        for one in service.listen
        if not isinstance(one, str)
        for address in addresses_of(one)
    )


def _active_check(service: Service) -> ActiveCheckSpec:
    check = service.health.active
    return ActiveCheckSpec(
        type=CheckType(check.type),
        interval_s=check.interval,
        timeout_s=check.timeout,
        rise=check.rise,
        fall=check.fall,
        jitter=check.jitter,
        port=check.port,
        http_path=check.http.path,
        http_status=check.http.ranges,
        http_host=check.http.host,
        expect_send=check.expect.send_bytes if check.expect else b"",
        expect_expect=check.expect.expect_bytes if check.expect else b"",
        expect_quit=check.expect.quit_bytes if check.expect else b"",
    )
