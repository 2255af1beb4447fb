"""Connection attempts: begun without waiting, finished by the reactor, bounded by a deadline.

Theory of operation:

1. TCP answers at once that the handshake is under way (PENDING), and epoll tells when it is over.
2. A Unix socket whose accept queue is full answers BUSY (EAGAIN, connect(2)), and nothing ever tells that there is
   room again. So the same socket knocks again, after pauses that grow from the wheel's tick to MAX_PAUSE_S. A TCP
   connect that overflows its backend's queue is repeated by the kernel; here we are the ones who repeat it.
3. Whoever is busy works, and is neither down nor broken: the time runs out, but nothing is held against it.
4. A backend whose host name has several addresses is tried at one after the other (RFC 8305 without its races): each
   has its share of the time that is left, at least LEAST_S. The one that answers is the first from then on.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Protocol

from dataplane.net.calls import NOBODY, OUT, close, connect, dial
from dataplane.net.reactor import Handler
from dataplane.net.sockopts import LOCAL_ERRNOS, SocketAddress

if TYPE_CHECKING:
    from dataplane.net.reactor import Reactor

PENDING: Final = errno.EALREADY
BUSY: Final = errno.EAGAIN
UNDER_WAY: Final = frozenset({PENDING, BUSY})
"""What `begin` returns for an attempt that a `Dial` goes on with."""
MAX_PAUSE_S: Final = 0.1
LEAST_S: Final = 0.25
"""What RFC 8305, section 5 waits for one address before the next."""


def begin(target: SocketAddress, ceiling: int) -> tuple[int, int]:
    """Open a socket and connect it; return its descriptor with 0, PENDING, BUSY, or the errno that the attempt met.

    Args:
        target: Where to.
        ceiling: Descriptor numbers from here on are kept for the API, the checks and the logs.

    Returns:
        The descriptor is NOBODY if no socket could be had, a matter of this machine.
    """
    return dial(target.family, target.packed, ceiling, check=target.ephemeral)


def share_s(left_s: float, others: int) -> float:
    """Return how long one address may take, if `others` come after it and `left_s` seconds are left for all."""
    return left_s if not others else min(left_s, max(LEAST_S, left_s / (others + 1)))


class Attempt(Protocol):
    """A connection attempt: a dial, or the TLS handshake after it."""

    def cancel(self) -> None:
        """Forget it; who wants the connection hears nothing."""


class DialOwner(Protocol):
    """Who wants the connection."""

    def dialled(self, dial: Dial, code: int) -> None:
        """Take `dial.fd` if `code` is 0; else it is closed, and `code` is the errno.

        If `dial.failure` is set, `dial.target` has answered where those before it did not (rule 4).
        """


class Dial(Handler):
    """One attempt under way, with a descriptor of `begin`: at `target`, and then at the backend's `others`."""

    __slots__ = (
        "_others",
        "deadline",
        "failure",
        "fd",
        "owner",
        "pause_s",
        "reactor",
        "started_at",
        "target",
        "tick",
    )

    def __init__(
        self,
        reactor: Reactor,
        target: SocketAddress,
        others: tuple[SocketAddress, ...],
        fd: int,
    ) -> None:
        self.is_backend = True
        self.reactor = reactor
        self.target = target
        self.fd = fd
        self.started_at = reactor.now
        self.tick = 0
        self.deadline = 0.0
        """When it gives up; 0: never."""
        self.pause_s = 0.0
        """How long it waits before it knocks again; 0: it never had to."""
        self.owner: DialOwner | None = None
        """None: it has ended."""
        self._others = others
        """The addresses that have not been tried."""
        self.failure = 0
        """How the addresses before this one have failed; 0: it is the first."""

    def start(self, owner: DialOwner, timeout_s: float, code: int) -> int:
        """Go on after `begin` has returned `code`, for at most `timeout_s` seconds (0: as long as the kernel does).

        Returns:
            PENDING, and the owner will hear; else the errno of all addresses, and it will not.
        """
        if timeout_s:
            self.deadline = self.reactor.now + timeout_s
        if code == PENDING:
            self._watch()
        elif code == BUSY:
            self.pause_s = self.reactor.wheel.resolution_s
            self._pause()
        else:
            close(self.fd)
            code = self._go_on(code)
            if code != PENDING:
                return code
        self.owner = owner
        return PENDING

    def _watch(self) -> None:
        self.reactor.watch(self.fd, self, OUT)
        if self.deadline:
            now = self.reactor.now
            self.reactor.wheel.at(self, now + share_s(self.deadline - now, len(self._others)))

    def _pause(self) -> None:
        when = self.reactor.now + self.pause_s
        self.reactor.wheel.at(self, min(when, self.deadline) if self.deadline else when)

    def _connect(self) -> int:
        return connect(self.fd, self.target.packed, check=self.target.ephemeral)

    def on_event(self, events: int) -> None:  # noqa: ARG002 - a hint; the call tells
        """See how the handshake went."""
        code = self._connect()
        if code == PENDING:
            return
        self._settle(code)

    def on_timer(self, now: float) -> None:
        """Knock again, or give up."""
        is_late = self.deadline and now >= self.deadline
        if not self.pause_s:
            self._settle(errno.ETIMEDOUT)
            return
        code = self._connect()
        if code == BUSY and not is_late:
            self.pause_s = min(2 * self.pause_s, MAX_PAUSE_S)
            self._pause()
            return
        if code == 0:
            try:
                self.reactor.watch(self.fd, self, OUT)
            except OSError:  # fs.epoll.max_user_watches
                code = errno.ENOBUFS
        self._settle(code)

    def on_failure(self) -> None:
        """Give up: a bug of ours was met."""
        self._others = ()
        self._settle(errno.ENOBUFS)

    def cancel(self) -> None:
        """Forget the attempt; the owner hears nothing."""
        self.owner = None
        self._close()

    def _settle(self, code: int) -> None:
        owner, self.owner = self.owner, None
        if owner is None:
            return
        if code:
            self._close()
            code = self._go_on(code)
            if code == PENDING:
                self.owner = owner
                return
        else:
            self.reactor.wheel.cancel(self)
        owner.dialled(self, code)

    def _go_on(self, code: int) -> int:
        """Begin at the next address that does not fail at once; return PENDING, or the errno if there is none."""
        if not self.failure or self.failure in LOCAL_ERRNOS:
            self.failure = (
                code  # what an address says of the backend outlives what this machine lacks for another
            )
        while self._others and not 0.0 < self.deadline <= self.reactor.now:
            self.target, *others = self._others
            self._others = tuple(others)
            fd, code = begin(self.target, self.reactor.dial_ceiling)
            if fd == NOBODY:
                return code
            if code in {0, PENDING}:
                self.fd = fd
                self._watch()
                return PENDING
            close(fd)
            if self.failure in LOCAL_ERRNOS:
                self.failure = code
        return self.failure

    def _close(self) -> None:
        self.reactor.wheel.cancel(self)
        self.reactor.forget(self.fd)
        close(self.fd)
