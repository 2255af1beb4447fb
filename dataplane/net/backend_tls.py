"""What the connection path sees of how TLS to a service's backends begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ssl

    from dataplane.core.spec import BackendSpec, BackendTlsSpec
    from dataplane.net.counters import BackendTotals
    from dataplane.net.tls import Channel


class Peer(Protocol):
    """A backend, as far as TLS to it concerns."""

    id: str
    spec: BackendSpec
    totals: BackendTotals


class BackendTls(Protocol):
    """How TLS to the backends of one service begins; it stays the same object while its settings do."""

    spec: BackendTlsSpec
    context: ssl.SSLContext
    """A renewal of its files replaces it."""

    def server_name_of(self, backend: Peer) -> str | None:
        """Return whose certificate a backend must have; None: nobody's in particular."""

    def session(self, backend: Peer) -> ssl.SSLSession | None:
        """Return what a backend may remember us by; None: nothing."""

    def remember(self, backend: Peer, channel: Channel) -> None:
        """Keep a connection's session, if it can be resumed."""
