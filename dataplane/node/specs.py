"""Pydantic ends here: a snapshot's services become the frozen specs that the connection path uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from dataplane.core import spec
from schemas.listeners import addresses_of
from schemas.snapshot import Backend, Service
from schemas.tls import BackendTls, Match, Tls

Known = Mapping[int, spec.BackendSpec]
"""By `id` of a backend as a snapshot has it: its spec."""


def known_specs(service: Service | None, configured: Mapping[str, spec.BackendSpec]) -> Known:
    """Return the specs of a service that runs, if it does; valid as long as `service` lives."""
    if service is None or len(configured) != len(service.backends):
        return {}
    return dict(zip(map(id, service.backends), configured.values(), strict=True))


def backend_specs(backends: Iterable[Backend], known: Known) -> list[spec.BackendSpec]:
    """Convert backends; those that are `known` have the same spec as before."""
    return [known.get(id(one)) or _backend_spec(one) for one in backends]


def _backend_spec(one: Backend) -> spec.BackendSpec:
    return spec.BackendSpec(one.id, one.address, one.weight, one.tier, _STATES[one.state])


_STATES: Final = {state.value: state for state in spec.OperatorState}


def service_spec(
    name: str, service: Service, backends: Sequence[spec.BackendSpec] | None = None
) -> spec.ServiceSpec:
    """Convert one service with everything in it, or with `backends`, if these have been converted already."""
    if backends is None:
        backends = backend_specs(service.backends, {})
    pool, drain = service.pool, service.drain
    passive = service.health.passive
    return spec.ServiceSpec(
        name=name,
        listen=service.addresses,
        listen_options=_listen_options(service),
        mode=spec.Mode(service.mode),
        seed=service.seed,
        backends=tuple(backends),
        pool=spec.PoolSpec(
            spec.PoolMode(pool.mode),
            pool.min_idle,
            pool.max_idle,
            pool.idle_timeout,
            pool.max_age,
            pool.greeting_age,
        ),
        active=_active_check(service),
        passive=spec.PassiveSpec(
            passive.failures,
            passive.ejection,
            passive.max_ejection,
            passive.max_ejected,
            spec.Resets(passive.resets),
        ),
        panic=service.health.panic,
        timeouts=_timeouts(service),
        retries=service.retries,
        proxy=spec.ProxySpec(
            spec.ProxySend(service.proxy_protocol.send),
            spec.ProxyAccept(service.proxy_protocol.accept),
            tuple(service.proxy_protocol.trusted),
            service.proxy_protocol.send_tls,
            service.proxy_protocol.pass_tlvs,
            service.proxy_protocol.checksum,
        ),
        limits=_limits(service),
        access=spec.AccessSpec(tuple(service.access.allow), tuple(service.access.deny)),
        drain=spec.DrainSpec(drain.timeout, drain.close),
        slow_start_s=service.slow_start,
        balance_workers=service.balance_workers,
        match=_match(service.match),
        tls=_tls(service.tls),
        backend_tls=_backend_tls(service.backend_tls),
    )


def _match(match: Match | None) -> spec.MatchSpec | None:
    return None if match is None else spec.MatchSpec(match.sni, match.alpn, tuple(match.source))


def _tls(tls: Tls | None) -> spec.TlsSpec | None:
    if tls is None:
        return None
    return spec.TlsSpec(
        tuple(spec.CertificateSpec(one.cert, one.key) for one in tls.certificates),
        tls.client_ca or "",
        tls.min_version,
        tls.alpn,
        tls.ciphers,
    )


def _backend_tls(tls: BackendTls | None) -> spec.BackendTlsSpec | None:
    if tls is None:
        return None
    return spec.BackendTlsSpec(
        tls.ca,
        tls.server_name,
        tls.verify,
        tls.cert or "",
        tls.key or "",
        tls.alpn,
        tls.pass_sni,
        tls.pass_alpn,
    )


def _timeouts(service: Service) -> spec.TimeoutsSpec:
    timeouts = service.timeouts
    return spec.TimeoutsSpec(
        timeouts.connect,
        timeouts.idle,
        timeouts.half_closed,
        timeouts.lifetime,
        timeouts.proxy_header,
        timeouts.client_hello,
        timeouts.tls_handshake,
    )


def _limits(service: Service) -> spec.LimitsSpec:
    limits = service.limits
    return spec.LimitsSpec(
        limits.connections,
        limits.per_backend,
        limits.per_client,
        limits.client_rate,
        limits.queue,
        limits.queue_timeout,
        limits.queue_abandoned == "drop",
    )


def _listen_options(service: Service) -> tuple[tuple[str, spec.ListenSpec], ...]:
    return tuple(
        (address, spec.ListenSpec(one.freebind, int(one.mode, 8) if one.mode else None, one.owner, one.group))
        for one in service.listen
        if not isinstance(one, str)
        for address in addresses_of(one)
    )


def _active_check(service: Service) -> spec.ActiveCheckSpec:
    check = service.health.active
    own_port = service.backend_tls is not None and check.port is None
    sent, expected, goodbye = check.expect.texts() if check.expect else (b"", b"", b"")
    return spec.ActiveCheckSpec(
        type=spec.CheckType(check.type),
        interval_s=check.interval,
        timeout_s=check.timeout,
        rise=check.rise,
        fall=check.fall,
        jitter=check.jitter,
        port=check.port,
        http_path=check.http.path,
        http_status=check.http.ranges,
        http_host=check.http.host,
        expect_send=sent,
        expect_expect=expected,
        expect_quit=goodbye,
        tls=check.type == "tls" or (check.tls if check.tls is not None else own_port),
    )
