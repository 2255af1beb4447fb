"""The words for every way that a connection, a pooled connection or a pick can end.

One word each, and the same word in metrics, access log, API and documentation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Source(StrEnum):
    """Whose doing an end was."""

    CLIENT = "client"
    BACKEND = "backend"
    LOCAL = "local"


class Harm(StrEnum):
    """What a client met though it did all that it should."""

    REFUSED = "refused"
    """It got no backend."""
    CUT = "cut"
    """It had one, and lost it."""


class CloseReason(StrEnum):
    """Why a client's connection ended, whose doing that was, and how it harms an honest client."""

    source: Source
    harm: Harm | None
    """By what an honest client is harmed that nobody wanted: `status` judges a service by it. None: the client's own
    doing, or what the configuration or an operator says shall happen."""

    def __new__(cls, word: str, source: Source, harm: Harm | None = None) -> Self:
        """Make a reason that is equal to its word."""
        reason = str.__new__(cls, word)
        reason._value_ = word
        reason.source, reason.harm = source, harm
        return reason

    CLIENT_CLOSED = "client_closed", Source.CLIENT
    """Both sides finished, the client first."""
    BACKEND_CLOSED = "backend_closed", Source.BACKEND
    """Both sides finished, the backend first."""
    CLIENT_RESET = "client_reset", Source.CLIENT
    """The client reset the connection, or its network went away."""
    BACKEND_RESET = "backend_reset", Source.BACKEND, Harm.CUT
    """The backend reset the connection, or its network went away."""
    CLIENT_GONE = "client_gone", Source.CLIENT
    """The client reset before a backend was connected."""
    ABANDONED = "abandoned", Source.CLIENT
    """The client finished before a backend was connected, and `limits.queue_abandoned` is `drop`."""
    IDLE_TIMEOUT = "idle_timeout", Source.LOCAL
    """No byte either way for `timeouts.idle`."""
    HALF_CLOSED_TIMEOUT = "half_closed_timeout", Source.LOCAL
    """The backend finished, and the client was silent for `timeouts.half_closed`."""
    LIFETIME = "lifetime", Source.LOCAL
    """The connection reached `timeouts.lifetime`."""
    DENIED = "denied", Source.LOCAL
    """`access` refuses the client's address."""
    LIMIT_CONNECTIONS = "limit_connections", Source.LOCAL, Harm.REFUSED
    """`limits.connections` is reached, and there is no queue."""
    LIMIT_PER_BACKEND = "limit_per_backend", Source.LOCAL, Harm.REFUSED
    """Every usable backend is at `limits.per_backend`, and there is no queue."""
    LIMIT_PER_CLIENT = "limit_per_client", Source.LOCAL
    """The client's address has `limits.per_client` connections."""
    CLIENT_RATE = "client_rate", Source.LOCAL
    """The client's address opens more than `limits.client_rate` connections a second."""
    QUEUE_FULL = "queue_full", Source.LOCAL, Harm.REFUSED
    """`limits.queue` clients wait already."""
    QUEUE_TIMEOUT = "queue_timeout", Source.LOCAL, Harm.REFUSED
    """No place came free within `limits.queue_timeout`."""
    NO_BACKEND = "no_backend", Source.BACKEND, Harm.REFUSED
    """No backend is usable."""
    CONNECT_FAILED = "connect_failed", Source.BACKEND, Harm.REFUSED
    """Every backend that was tried refused or failed."""
    CONNECT_TIMEOUT = "connect_timeout", Source.BACKEND, Harm.REFUSED
    """The last backend that was tried did not answer within `timeouts.connect`."""
    PROXY_UNTRUSTED = "proxy_untrusted", Source.CLIENT
    """A PROXY header is required, and the peer is not in `proxy_protocol.trusted`."""
    PROXY_INVALID = "proxy_invalid", Source.CLIENT
    """The PROXY header is malformed, or the peer left before it was complete."""
    PROXY_TIMEOUT = "proxy_timeout", Source.CLIENT
    """The PROXY header was not complete within `timeouts.proxy_header`."""
    NO_ROUTE = "no_route", Source.CLIENT
    """No service of the listener matches the client's TLS name, protocols and address."""
    NOT_TLS = "not_tls", Source.CLIENT
    """The client sends something else than TLS, and nothing but TLS is taken."""
    CLIENT_HELLO_TIMEOUT = "client_hello_timeout", Source.CLIENT
    """The client's ClientHello was not complete within `timeouts.client_hello`."""
    TLS_FAILED = "tls_failed", Source.CLIENT
    """The TLS handshake with the client failed."""
    TLS_TIMEOUT = "tls_timeout", Source.CLIENT
    """The TLS handshake with the client was not complete within `timeouts.tls_handshake`."""
    BACKEND_TLS_FAILED = "backend_tls_failed", Source.BACKEND, Harm.REFUSED
    """The TLS handshake failed with every backend that was tried, or its certificate was not accepted."""
    DRAIN_TIMEOUT = "drain_timeout", Source.LOCAL
    """Its backend or service was drained or removed, and `drain.timeout` is over."""
    SHUTDOWN = "shutdown", Source.LOCAL
    """The process ends, and `drain.timeout` is over."""
    LOCAL_ERROR = "local_error", Source.LOCAL, Harm.REFUSED
    """This machine ran out of something: descriptors, ports or memory."""


ENDED_WELL: Final = (CloseReason.CLIENT_CLOSED, CloseReason.BACKEND_CLOSED)
"""Both sides finished. Every other reason cut somebody short, and is an error to logs and spans (HAProxy's `dontlog-normal`
draws the same line: resets and timeouts are no normal ends). A tuple: members are compared by identity first, which
hashing them is not."""


class DiscardCause(StrEnum):
    """Why a pooled backend connection was closed without serving a client (again)."""

    IDLE = "idle"
    """Unused for `pool.idle_timeout`."""
    AGE = "age"
    """Older than `pool.max_age`."""
    EOF = "eof"
    """The backend closed or reset it."""
    GREETED = "greeted"
    """`preconnect`: the backend has spoken, and it is older than `pool.greeting_age`."""
    UNREAD = "unread"
    """`reuse`: the backend sent something that nobody had asked for."""
    FULL = "full"
    """`reuse`: the pool was at `pool.max_idle`."""
    SURPLUS = "surplus"
    """More than the target, after demand fell or the pool's size was lowered."""
    UNUSABLE = "unusable"
    """The backend was removed, drained, disabled, down or ejected."""
    CHANGED = "changed"
    """The backend's address or the pool's mode changed."""
    DISPLACED = "displaced"
    """A client needed its place under `limits.per_backend`."""


class SkipReason(StrEnum):
    """Why `explain` does not name a backend among the candidates."""

    DRAIN = "drain"
    DISABLED = "disabled"
    WEIGHT_ZERO = "weight_zero"
    DOWN = "down"
    EJECTED = "ejected"
    UNREACHABLE = "unreachable"
    UNRESOLVED = "unresolved"
    LOOP = "loop"
    LIMIT_PER_BACKEND = "limit_per_backend"
