"""The words for every way that a connection, a pooled connection or a pick can end.

One word each, and the same word in metrics, access log, API and documentation.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["HARMS", "REASONS", "CloseReason", "DiscardCause", "Harm", "SkipReason", "Source"]


class Source(StrEnum):
    """Whose doing an end was."""

    CLIENT = "client"
    BACKEND = "backend"
    LOCAL = "local"


class CloseReason(StrEnum):
    """Why a client's connection ended. `REASONS` tells whose doing each one is."""

    CLIENT_CLOSED = "client_closed"
    """Both sides finished, the client first."""
    BACKEND_CLOSED = "backend_closed"
    """Both sides finished, the backend first."""
    CLIENT_RESET = "client_reset"
    """The client reset the connection, or its network went away."""
    BACKEND_RESET = "backend_reset"
    """The backend reset the connection, or its network went away."""
    CLIENT_GONE = "client_gone"
    """The client reset before a backend was connected."""
    ABANDONED = "abandoned"
    """The client finished before a backend was connected, and `limits.queue_abandoned` is `drop`."""
    IDLE_TIMEOUT = "idle_timeout"
    """No byte either way for `timeouts.idle`."""
    HALF_CLOSED_TIMEOUT = "half_closed_timeout"
    """The backend finished, and the client was silent for `timeouts.half_closed`."""
    LIFETIME = "lifetime"
    """The connection reached `timeouts.lifetime`."""
    DENIED = "denied"
    """`access` refuses the client's address."""
    LIMIT_CONNECTIONS = "limit_connections"
    """`limits.connections` is reached, and there is no queue."""
    LIMIT_PER_BACKEND = "limit_per_backend"
    """Every usable backend is at `limits.per_backend`, and there is no queue."""
    LIMIT_PER_CLIENT = "limit_per_client"
    """The client's address has `limits.per_client` connections."""
    CLIENT_RATE = "client_rate"
    """The client's address opens more than `limits.client_rate` connections a second."""
    QUEUE_FULL = "queue_full"
    """`limits.queue` clients wait already."""
    QUEUE_TIMEOUT = "queue_timeout"
    """No place came free within `limits.queue_timeout`."""
    NO_BACKEND = "no_backend"
    """No backend is usable."""
    CONNECT_FAILED = "connect_failed"
    """Every backend that was tried refused or failed."""
    CONNECT_TIMEOUT = "connect_timeout"
    """The last backend that was tried did not answer within `timeouts.connect`."""
    PROXY_UNTRUSTED = "proxy_untrusted"
    """A PROXY header is required, and the peer is not in `proxy_protocol.trusted`."""
    PROXY_INVALID = "proxy_invalid"
    """The PROXY header is malformed, or the peer left before it was complete."""
    PROXY_TIMEOUT = "proxy_timeout"
    """The PROXY header was not complete within `timeouts.proxy_header`."""
    DRAIN_TIMEOUT = "drain_timeout"
    """Its backend or service was drained or removed, and `drain.timeout` is over."""
    SHUTDOWN = "shutdown"
    """The process ends, and `drain.timeout` is over."""
    LOCAL_ERROR = "local_error"
    """This machine ran out of something: descriptors, ports or memory."""


REASONS: Final[dict[CloseReason, Source]] = {
    CloseReason.CLIENT_CLOSED: Source.CLIENT,
    CloseReason.BACKEND_CLOSED: Source.BACKEND,
    CloseReason.CLIENT_RESET: Source.CLIENT,
    CloseReason.BACKEND_RESET: Source.BACKEND,
    CloseReason.CLIENT_GONE: Source.CLIENT,
    CloseReason.ABANDONED: Source.CLIENT,
    CloseReason.IDLE_TIMEOUT: Source.LOCAL,
    CloseReason.HALF_CLOSED_TIMEOUT: Source.LOCAL,
    CloseReason.LIFETIME: Source.LOCAL,
    CloseReason.DENIED: Source.LOCAL,
    CloseReason.LIMIT_CONNECTIONS: Source.LOCAL,
    CloseReason.LIMIT_PER_BACKEND: Source.LOCAL,
    CloseReason.LIMIT_PER_CLIENT: Source.LOCAL,
    CloseReason.CLIENT_RATE: Source.LOCAL,
    CloseReason.QUEUE_FULL: Source.LOCAL,
    CloseReason.QUEUE_TIMEOUT: Source.LOCAL,
    CloseReason.NO_BACKEND: Source.BACKEND,
    CloseReason.CONNECT_FAILED: Source.BACKEND,
    CloseReason.CONNECT_TIMEOUT: Source.BACKEND,
    CloseReason.PROXY_UNTRUSTED: Source.CLIENT,
    CloseReason.PROXY_INVALID: Source.CLIENT,
    CloseReason.PROXY_TIMEOUT: Source.CLIENT,
    CloseReason.DRAIN_TIMEOUT: Source.LOCAL,
    CloseReason.SHUTDOWN: Source.LOCAL,
    CloseReason.LOCAL_ERROR: Source.LOCAL,
}


class Harm(StrEnum):
    """What a client met though it did all that it should."""

    REFUSED = "refused"
    """It got no backend."""
    CUT = "cut"
    """It had one, and lost it."""


HARMS: Final[dict[CloseReason, Harm | None]] = {
    CloseReason.CLIENT_CLOSED: None,
    CloseReason.BACKEND_CLOSED: None,
    CloseReason.CLIENT_RESET: None,
    CloseReason.BACKEND_RESET: Harm.CUT,
    CloseReason.CLIENT_GONE: None,
    CloseReason.ABANDONED: None,
    CloseReason.IDLE_TIMEOUT: None,
    CloseReason.HALF_CLOSED_TIMEOUT: None,
    CloseReason.LIFETIME: None,
    CloseReason.DENIED: None,
    CloseReason.LIMIT_CONNECTIONS: Harm.REFUSED,
    CloseReason.LIMIT_PER_BACKEND: Harm.REFUSED,
    CloseReason.LIMIT_PER_CLIENT: None,
    CloseReason.CLIENT_RATE: None,
    CloseReason.QUEUE_FULL: Harm.REFUSED,
    CloseReason.QUEUE_TIMEOUT: Harm.REFUSED,
    CloseReason.NO_BACKEND: Harm.REFUSED,
    CloseReason.CONNECT_FAILED: Harm.REFUSED,
    CloseReason.CONNECT_TIMEOUT: Harm.REFUSED,
    CloseReason.PROXY_UNTRUSTED: None,
    CloseReason.PROXY_INVALID: None,
    CloseReason.PROXY_TIMEOUT: None,
    CloseReason.DRAIN_TIMEOUT: None,
    CloseReason.SHUTDOWN: None,
    CloseReason.LOCAL_ERROR: Harm.REFUSED,
}
"""By what an honest client is harmed that nobody wanted: `status` judges a service by it. None: the client's own doing, or
what the configuration or an operator says shall happen."""


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
