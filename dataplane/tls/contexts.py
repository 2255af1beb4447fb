"""What OpenSSL needs for a service's TLS: versions, ciphers, certificates by name, authorities."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Final

from dataplane.core.spec import BackendTlsSpec, TlsSpec
from dataplane.net.tls import harden, note_sni
from dataplane.tls.files import Pair

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption alone, which everybody has who is ten years old or less."""
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def server_context(spec: TlsSpec, pairs: Sequence[Pair], authorities: str) -> ssl.SSLContext:
    """Return what ends TLS of clients.

    Certificates for the same names with keys of different kinds stand side by side in one context, and OpenSSL takes what a
    client can verify. Where there are several groups of names, a client's name chooses: a whole name, then one with `*.`,
    else the first.

    Args:
        spec: As configured.
        pairs: Of `spec.certificates`, in order; at least one.
        authorities: Of `spec.client_ca`, in PEM; empty: clients need no certificate.
    """
    groups = grouped(pairs)
    contexts = [_server_context(spec, group, authorities) for group in groups]
    default = contexts[0]
    by_name: dict[str, ssl.SSLContext] = {}
    for group, context in zip(groups, contexts, strict=True):
        for name in group[0].certificate.names:
            by_name.setdefault(name, context)
    default.sni_callback = _Chooser(by_name, default).choose if len(contexts) > 1 else _note
    return default


def grouped(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Put together what has the same names, and keys of different kinds."""
    groups: list[list[Pair]] = []
    for pair in pairs:
        names = set(pair.certificate.names)
        for group in groups:
            kinds = {one.certificate.key for one in group}
            if set(group[0].certificate.names) == names and pair.certificate.key not in kinds:
                group.append(pair)
                break
        else:
            groups.append([pair])
    return groups


def _note(tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
    """Keep the name that a client asks for, for logs and for backends: nothing else tells it (`SSLContext.sni_callback`)."""
    note_sni(tls, name)


class _Chooser:
    """Gives a handshake the context of the name that its client asks for."""

    def __init__(self, by_name: Mapping[str, ssl.SSLContext], default: ssl.SSLContext) -> None:
        self._by_name = by_name
        self._default = default

    def choose(self, tls: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Do so (`SSLContext.sni_callback`)."""
        note_sni(tls, name)
        if name is None:
            return
        name = name.lower()
        context = self._by_name.get(name) or self._by_name.get(f"*.{name.partition('.')[2]}")
        if context is not None and context is not self._default:
            tls.context = context


def _server_context(spec: TlsSpec, pairs: Sequence[Pair], authorities: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    harden(context)
    context.minimum_version = _VERSIONS[spec.min_version]
    context.set_ciphers(spec.ciphers or CIPHERS)
    if spec.alpn:
        context.set_alpn_protocols(list(spec.alpn))
    if authorities:
        context.verify_mode = ssl.CERT_REQUIRED
        # One in the middle of a chain may be named alone: who is trusted is what the file says.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=authorities)
    for pair in pairs:
        pair.load(context)
    return context


def backend_context(spec: BackendTlsSpec, pair: Pair | None, authorities: str) -> ssl.SSLContext:
    """Return what begins TLS to backends.

    Args:
        spec: As configured.
        pair: Our own certificate, if there is one.
        authorities: Of `spec.ca`, in PEM; empty: the system's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    harden(context)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not spec.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif authorities:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=authorities)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if spec.alpn:
        context.set_alpn_protocols(list(spec.alpn))
    if pair is not None:
        pair.load(context)
    return context
