"""TLS of one service: the contexts that the connection path uses, and the files that they are made of.

What is in here is made when a change is prepared, and whenever files are renewed; the connection path reads one attribute.
A renewal makes all contexts anew: connections in place keep theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from dataplane.core.spec import BackendTlsSpec, CertificateSpec, TlsSpec
from dataplane.tls.contexts import backend_context, server_context
from dataplane.tls.files import Pair, read_authorities, read_pair, refuse_expired
from dataplane.tls.renewal import Look, Renewed, Trouble, look_at

if TYPE_CHECKING:
    import ssl

    from dataplane.net.backend_tls import Peer
    from dataplane.net.tls import Channel

SYSTEM: Final = "system"
MOST_SESSIONS: Final = 10_000
"""Kept of a service: as many as a snapshot has backends."""
_Pairs: TypeAlias = list[Renewed[Pair]]


@dataclass(frozen=True, slots=True)
class News:
    """Something that has become of files of a service."""

    kind: str
    """Of the event."""
    place: str
    """The key that names the file, such as `tls.certificates[0]`."""
    path: str
    cause: str = ""
    """Why the newest files are not in use; empty: they are."""
    ends: float | None = None
    """When the certificate in use ends, in Unix seconds; None: it is about none."""


@dataclass(frozen=True, slots=True)
class CertificateView:
    """What status and metrics say of a certificate; nothing of its key but who may read it."""

    place: str
    cert: str
    names: tuple[str, ...]
    key: str
    """The kind of key."""
    serial: str
    not_before: float
    not_after: float
    """Unix seconds."""
    trouble: str
    """Why what is in the files now is not in use; empty: it is."""
    since: float | None
    """Since when (monotonic seconds)."""
    key_readable: bool
    """Whether everybody on the machine may read the key."""

    @property
    def is_stale(self) -> bool:
        """Whether there is something newer, which cannot be used."""
        return bool(self.trouble)


class _Files:
    """The files of one section of a service, and what became of them.

    Args:
        section: `tls` or `backend_tls`.
        pairs: Certificates with their keys, by place below the section.
        authorities: The file of authorities, by place; empty: there is none.
        wall: The time, in Unix seconds.
        look: Tells what a path leads to.
    """

    def __init__(
        self,
        section: str,
        pairs: dict[str, CertificateSpec],
        authorities: tuple[str, str],
        wall: float,
        look: Look,
    ) -> None:
        self._section = section
        self._specs = pairs
        self.pairs: _Pairs = [
            Renewed.of((spec.cert, spec.key), partial(_read_pair, spec, place, first=[True]), wall, look)
            for place, spec in pairs.items()
        ]
        place, self._ca_path = authorities
        self._ca_place = place
        self.authorities: Renewed[str] | None = None
        if self._ca_path:
            self.authorities = Renewed.of(
                (self._ca_path,), lambda _wall: read_authorities(self._ca_path, place), wall, look
            )

    def renew(self, now: float, wall: float) -> Iterator[News]:
        """Look at all files, and yield what is new."""
        for (place, spec), renewed in zip(self._specs.items(), self.pairs, strict=True):
            if renewed.renew(now, wall):
                yield self._news(
                    "certificate",
                    place.rstrip("."),
                    spec.cert,
                    renewed.trouble,
                    renewed.value.certificate.not_after,
                )
        if self.authorities is not None and self.authorities.renew(now, wall):
            yield self._news("authorities", self._ca_place, self._ca_path, self.authorities.trouble)

    def _news(
        self, what: str, place: str, path: str, trouble: Trouble | None, ends: float | None = None
    ) -> News:
        kind = f"{what}_renewed" if trouble is None else f"{what}_not_renewed"
        where = f"{self._section}.{place}".rstrip(".")
        return News(kind, where, path, "" if trouble is None else trouble.cause, ends)

    def views(self) -> Iterator[CertificateView]:
        """Yield what is to be said of each certificate."""
        for (place, spec), renewed in zip(self._specs.items(), self.pairs, strict=True):
            pair, trouble = renewed.value, renewed.trouble
            known = pair.certificate
            yield CertificateView(
                f"{self._section}.{place}".rstrip("."),
                spec.cert,
                known.names,
                known.key,
                known.serial,
                known.not_before,
                known.not_after,
                "" if trouble is None else trouble.cause,
                None if trouble is None else trouble.since,
                pair.readable_by_all,
            )


def _read_pair(spec: CertificateSpec, place: str, wall: float, *, first: list[bool]) -> Pair:
    """Read a pair; one that replaces another has to hold now, for the other does, or did for longer.

    The first one is all there is: who starts with a certificate that has ended is told, and serves those who accept it.
    """
    pair = read_pair(spec, place)
    if not first[0]:
        refuse_expired(pair.certificate, spec.cert, f"{place}cert", wall)
    first[0] = False
    return pair


class ServerTls:
    """How TLS of a service's clients ends; `context` is what the connection path uses."""

    def __init__(self, spec: TlsSpec, wall: float, look: Look = look_at) -> None:
        """Read all files; `TlsFileError` if one cannot be used."""
        self.spec = spec
        pairs = {f"certificates[{index}].": one for index, one in enumerate(spec.certificates)}
        self.files = _Files("tls", pairs, ("client_ca", spec.client_ca), wall, look)
        self.context: ssl.SSLContext = self._made()

    def _made(self) -> ssl.SSLContext:
        authorities = self.files.authorities
        pairs = [one.value for one in self.files.pairs]
        return server_context(self.spec, pairs, "" if authorities is None else authorities.value)

    def renew(self, now: float, wall: float) -> list[News]:
        """Take files that were renewed; return what is new, for people."""
        news = list(self.files.renew(now, wall))
        if any(not one.cause for one in news):
            self.context = self._made()
        return news


class ClientTls:
    """How TLS to a service's backends begins (dataplane.net.backend_tls.BackendTls)."""

    def __init__(self, spec: BackendTlsSpec, wall: float, look: Look = look_at) -> None:
        """Read all files; `TlsFileError` if one cannot be used."""
        self.spec = spec
        own = {"": CertificateSpec(spec.cert, spec.key)} if spec.cert else {}
        self.files = _Files("backend_tls", own, ("ca", "" if spec.ca == SYSTEM else spec.ca), wall, look)
        self._sessions: dict[tuple[str, str], ssl.SSLSession] = {}
        self.context: ssl.SSLContext = self._made()

    def _made(self) -> ssl.SSLContext:
        authorities, pairs = self.files.authorities, self.files.pairs
        return backend_context(
            self.spec,
            pairs[0].value if pairs else None,
            "" if authorities is None else authorities.value,
        )

    def renew(self, now: float, wall: float) -> list[News]:
        """Take files that were renewed; return what is new, for people."""
        news = list(self.files.renew(now, wall))
        if any(not one.cause for one in news):
            self.context = self._made()
            self._sessions.clear()  # a session belongs to its context; and who was verified by other files, was not by these
        return news

    def server_name_of(self, backend: Peer) -> str | None:
        """Return whose certificate a backend must have; None: it is a Unix socket, and `server_name` is not said."""
        if self.spec.server_name:
            return self.spec.server_name
        address = backend.spec.address
        if address.startswith("unix:"):
            return None
        host = address.rpartition(":")[0]
        return host.removeprefix("[").removesuffix("]").rstrip(".").partition("%")[0]

    def session(self, backend: Peer) -> ssl.SSLSession | None:
        """Return what a backend may remember us by; None: nothing."""
        return self._sessions.get((backend.id, backend.spec.address))

    def remember(self, backend: Peer, channel: Channel) -> None:
        """Keep a connection's session, if it can be resumed; of each backend the last one."""
        session = channel.session
        if session is None:
            return
        key = backend.id, backend.spec.address
        self._sessions.pop(key, None)
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]  # the oldest
        self._sessions[key] = session
