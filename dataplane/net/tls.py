"""TLS without I/O: what came from the wire goes in and what was in it comes out, and the other way.

Theory of operation. A `Channel` is one session, of a server's side or of a client's. It has no socket; who has one gives it
what was read there, and sends what it is given.

1. After each call everything that can be decrypted is decrypted. Nothing waits here for an event that does not come. What
   came in with the end of the handshake is `early`, for whoever begins to read.
2. Reading may give something to be sent, too: `outgoing`. That is an alert, or the answer to a KeyUpdate.
3. An end is `closed`, after the peer's close_notify, or `failure`, one word for what went wrong. What had come before it
   was given out before. A FIN without either is a truncation (RFC 8446, section 6.1), which the owner of the socket sees.
4. The two directions end on their own: after `finish` the peer is still read, after `closed` it is still written to.
5. All channels of a process share the memory that OpenSSL reads from and writes to (`_incoming`, `_outgoing`), and the buffer
   that is decrypted into: a session that is idle has no buffer. It works because OpenSSL takes all of its input before it
   asks for more, even half a record, and because whatever it has written is taken away before any other session's turn.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Final

from dataplane.core.tls_cause import TlsCause, cause_of
from dataplane.net.calls import BUFFER_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECORD_BYTES: Final = 16 * 1024
"""The most that one record carries (RFC 8446, section 5.1)."""
OVERHEAD_BYTES: Final = 512
"""The most that a record is longer than what it carries, rounded up."""

_incoming: Final = ssl.MemoryBIO()
_outgoing: Final = ssl.MemoryBIO()
_plain: Final = memoryview(bytearray(BUFFER_BYTES + 2 * RECORD_BYTES))
"""Takes what is decrypted of one read, and of the part of a record that was there before."""
_NOTHING: Final = _plain[:0]


def harden(context: ssl.SSLContext) -> None:
    """Set what every context of ours has: no renegotiation, no compression."""
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION


class Channel:
    """One TLS session.

    Args:
        context: Has certificates, authorities, versions and ciphers.
        server_side: Whether the peer is the client.
        server_name: For a client's side: what the peer's certificate must say, which is sent as SNI unless it is an IP.
        session: For a client's side: an earlier session with the same server, to be resumed.
    """

    __slots__ = (
        "_object",
        "_owed",
        "closed",
        "context",
        "early",
        "failure",
        "handshake_s",
        "is_finished",
        "is_open",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        server_side: bool,  # noqa: FBT001 - compiled functions have no keyword-only arguments
        server_name: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self._object = context.wrap_bio(
            _incoming, _outgoing, server_side=server_side, server_hostname=server_name, session=session
        )
        self._owed = b""
        self.context = context
        """What it was made with."""
        self.is_open = False
        """The handshake is over."""
        self.closed = False
        """The peer's close_notify has come: it sends nothing more."""
        self.is_finished = False
        """Our close_notify was made: nothing more can be sealed."""
        self.failure: TlsCause | None = None
        """Why the session cannot go on."""
        self.early = b""
        """What the peer has sent right behind its handshake; whoever takes it sets it to b""."""
        self.handshake_s = 0.0
        """How long the handshake took: set by who has a clock."""

    def handshake(self, data: bytes | memoryview) -> bool:
        """Go on with the handshake, with what has come from the peer; return whether it is over.

        `outgoing` has what is to be sent in any case, also when it fails.

        Args:
            data: From the wire; nothing, for a client's side that begins.

        Raises:
            ssl.SSLError: It failed; `failure` has the word for it.
        """
        _incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            self.failure = _word(error)
            raise
        else:
            self.is_open = True
            if _incoming.pending:
                self.early = bytes(self._read())
            return True
        finally:
            self._collect()

    def receive(self, data: bytes | memoryview) -> memoryview:
        """Decrypt what has come from the peer; return it, until the next call of any channel.

        Afterwards `closed`, `failure` and `outgoing` say what else it was.
        """
        _incoming.write(data)
        try:
            return self._read()
        finally:
            self._collect()

    def _read(self) -> memoryview:
        """Decrypt all that is there; with less than a record left, the last call would raise, so it is not made."""
        read = self._object.read
        size = 0
        try:
            while _incoming.pending:
                got = read(RECORD_BYTES, _plain[size:])
                if not got:
                    self.closed = True
                    break
                size += got  # type: ignore[operator]  # with a buffer it is how much is in there
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # as above, when our own close_notify was sent before
            self.closed = True
        except ssl.SSLError as error:
            self.failure = _word(error)
        return _plain[:size] if size else _NOTHING

    def _collect(self) -> None:
        """Take what is to be sent, and what is of no use after an end, before another session's turn."""
        if _outgoing.pending:
            self._owed += _outgoing.read()
        if _incoming.pending:
            _incoming.read()

    def outgoing(self) -> bytes:
        """Return what is to be sent to the peer besides what `seal` returns, once."""
        owed, self._owed = self._owed, b""
        return owed

    def seal(self, data: bytes | memoryview) -> bytes:
        """Return `data`, which is not empty, as the peer is to be sent it; not after `finish` or a `failure`."""
        write = self._object.write
        try:
            done, size = write(data), len(data)
            if done < size:  # one call makes one record
                rest = memoryview(data)
                while done < size:
                    done += write(rest[done:])
            return _outgoing.read()
        finally:
            if _outgoing.pending:
                _outgoing.read()

    def finish(self) -> bytes:
        """Return a close_notify, as the peer is to be sent it: nothing more will be sealed; nothing if there can be none."""
        if self.is_finished or self.failure is not None or not self.is_open:
            return b""
        self.is_finished = True
        try:
            self._object.unwrap()
        except ssl.SSLError:  # it looks for the peer's close_notify as well, which is not there
            pass
        finally:
            self._collect()
        return self.outgoing()

    # -- what is told of it ---------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """As OpenSSL says it: `TLSv1.3`."""
        return self._object.version() or ""

    @property
    def cipher(self) -> str:
        """As OpenSSL says it: `TLS_AES_256_GCM_SHA384`."""
        found = self._object.cipher()
        return found[0] if found else ""

    @property
    def alpn(self) -> str:
        """What both agreed to speak; empty: nothing."""
        return self._object.selected_alpn_protocol() or ""

    @property
    def sni(self) -> str:
        """The name that was asked for: on a server's side what the context's `sni_callback` has noted (`note_sni`)."""
        return getattr(self._object, "sni", None) or self._object.server_hostname or ""

    @property
    def resumed(self) -> bool:
        """Whether an earlier session went on."""
        return bool(self._object.session_reused)

    @property
    def session(self) -> ssl.SSLSession | None:
        """What a later handshake may resume; with TLS 1.3 it is there when the peer's ticket has been read."""
        return self._object.session

    @property
    def peer_name(self) -> str | None:
        """The common name in the peer's certificate, empty if it has none there; None: it has shown none, or none was verified.

        In a session that went on, the certificate is that of when it began.
        """
        certificate: Mapping[str, Any] | None = self._object.getpeercert() if self.is_open else None
        if not certificate:
            return None
        subject: Sequence[Sequence[tuple[str, str]]] = certificate.get("subject", ())
        return next((value for part in subject for key, value in part if key == "commonName"), "")


def certificate_names(channel: Channel) -> tuple[tuple[str, str], ...]:
    """Return whom the peer's certificate is for, as kinds and values; nothing if it was not verified."""
    certificate: Mapping[str, Any] = channel._object.getpeercert() or {}  # noqa: SLF001 - it is this module's
    return tuple(certificate.get("subjectAltName", ()))


def note_sni(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None) -> None:
    """Keep the name that a client has asked for; an `sni_callback` calls it, which alone is told of it."""
    connection.sni = name  # type: ignore[union-attr]


def _word(error: ssl.SSLError) -> TlsCause:
    if isinstance(error, ssl.SSLZeroReturnError):  # a close_notify in the middle of the handshake
        return TlsCause.TRUNCATED
    return cause_of(error.reason or "", getattr(error, "verify_code", 0))
