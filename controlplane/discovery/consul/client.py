"""The one module that speaks to Consul: py-consul's asyncio client with the transport that long polls need.

py-consul builds the URL and the query. What is replaced is its session, and that it finds settings in the environment:

- a pool without a limit: its 100 connections would make watch 101 wait for a whole poll of another;
- no redirects: aiohttp would hand `X-Consul-Token` to whatever host the redirect names;
- a deadline for every call, TCP keepalive, and a limit for bodies;
- Unix sockets, and a TLS context of our own: py-consul drops the client certificate with `verify=False`;
- the certificates and the token are read again when their files change.

Every failure becomes a `ConsulError` with a `kind`; nothing else is raised.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import socket
import ssl
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import consul.aio
import consul.base

from controlplane.discovery.consul.settings import ConsulError, ConsulSettings
from schemas.http.authorities import trusting
from schemas.http.headers import TokenError, parse_token
from schemas.http.reloaded import Renewed

MAX_BODY_BYTES = 64 * 1024 * 1024  # 10,000 instances with four checks each take about 20 MiB
CONNECT_TIMEOUT_S = 5.0
FILE_RETRY_S = 1.0  # a file may be half written, and looking at it again bothers nobody
_SHOWN_CHARS = 200
# What 1.8 answers with status 500 though the fault is the question's.
_BAD_QUESTIONS = ("boolean expression evaluator", "unsupported operation", "failed to parse filter")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with status 200, or 404 or another one, which some calls expect."""

    status: int
    headers: Mapping[str, str]
    """Case-insensitive."""
    body: bytes


class _Transport(consul.aio.HTTPClient):  # type: ignore[misc]  # py-consul carries no types
    """py-consul's HTTP client over a session of ours."""

    def __init__(self, settings: ConsulSettings) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        scheme = "https" if settings.scheme == "https" else "http"
        # not aio.HTTPClient's: it would load the system's certificates (35 ms) for plain HTTP as well
        consul.base.HTTPClient.__init__(self, host, settings.port, scheme)
        connector: aiohttp.BaseConnector
        if settings.scheme == "unix":
            connector = aiohttp.UnixConnector(settings.socket, limit=0)
        else:
            connector = aiohttp.TCPConnector(limit=0, socket_factory=_keepalive_socket)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            # compressed answers save nothing on loopback and could unpack to anything
            headers={"Accept-Encoding": "identity", "User-Agent": "lb-control"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self.tls: ssl.SSLContext | None = None

    async def _request(
        self,
        _callback: None,
        method: str,
        uri: str,
        headers: dict[str, str] | None,
        data: str | bytes | None = None,
        *,
        connections_timeout: float | None = None,
        raw: bool = True,  # noqa: ARG002 - py-consul's signature
    ) -> Reply:
        timeout = aiohttp.ClientTimeout(total=connections_timeout, sock_connect=CONNECT_TIMEOUT_S)
        extra: dict[str, Any] = {} if self.tls is None else {"ssl": self.tls}
        async with self._session.request(
            method, uri, headers=headers, data=data or None, timeout=timeout, allow_redirects=False, **extra
        ) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 18):
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise ConsulError("protocol", f"an answer of more than {MAX_BODY_BYTES} bytes")
            return Reply(response.status, response.headers, bytes(body))


class ConsulClient:
    """Asks one agent. Made and closed inside a running event loop."""

    def __init__(self, settings: ConsulSettings) -> None:
        files = settings.files()
        self._settings = settings
        self._secrets: Renewed[tuple[str, ssl.SSLContext | None]] | None = None
        """The token and the certificates, as their files say now; None: there is nothing to read."""
        if files or settings.scheme == "https":
            self._secrets = Renewed(files.values(), lambda: _read(settings, files), wrong=ConsulError)
        self._http = _Transport(settings)
        self._address = settings.address()

    async def get(self, path: str, params: Sequence[tuple[str, str]] = (), *, timeout_s: float) -> Reply:
        """Read.

        Args:
            path: From `/v1/` on; every segment already checked.
            params: The query.
            timeout_s: For the whole call; a blocking query's must be longer than its wait.

        Raises:
            ConsulError: There is no answer, or it is neither 200 nor 404.
        """
        return await self._asked(self._http.get, path, params, timeout_s)

    async def put(
        self,
        path: str,
        params: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        *,
        timeout_s: float,
        also: Collection[int] = (),
    ) -> Reply:
        """Write; arguments and errors as for `get`, and statuses in `also` are answers as well."""
        return await self._asked(self._http.put, path, params, timeout_s, also, data=body)

    async def close(self) -> None:
        """Close every connection; what waits for an answer fails."""
        await self._http.close()

    async def _asked(
        self,
        call: Any,
        path: str,
        params: Sequence[tuple[str, str]],
        timeout_s: float,
        also: Collection[int] = (),
        **data: bytes,
    ) -> Reply:
        """Make a call with the token and the certificates of this moment; all that can go wrong is one kind of error."""
        token = self._settings.token
        if self._secrets is not None:
            token, self._http.tls = await asyncio.to_thread(self._secrets.now)  # it reads files
            if self._secrets.trouble is not None:  # what an agent is told must be what is configured
                raise self._secrets.trouble.with_traceback(None)
        headers = {"X-Consul-Token": token} if token else {}
        how = {"headers": headers, "connections_timeout": timeout_s, **data}
        try:
            reply: Reply = await call(None, path, list(params), **how)
        except TimeoutError as error:
            raise ConsulError("timeout", f"{self._address}: no answer within {timeout_s:.3g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            text = _words(error)
            raise ConsulError("unreachable", f"{self._address}: {text[:_SHOWN_CHARS]}") from error
        except (RuntimeError, ValueError) as error:
            # aiohttp: "Session is closed"; a header or a status line that is none
            raise ConsulError("protocol", f"{self._address}: {str(error)[:_SHOWN_CHARS]}") from error
        if reply.status not in (200, 404, *also):
            raise _refusal(reply, path)
        return reply


@contextlib.asynccontextmanager
async def connected(settings: ConsulSettings) -> AsyncIterator[ConsulClient]:
    """Yield a client, and close it.

    Raises:
        ConsulError: The library cannot be used: see `check_library`.
    """
    await check_library()
    client = ConsulClient(settings)
    try:
        yield client
    finally:
        await client.close()


def _words(error: Exception) -> str:
    """Say why nobody answers, without what aiohttp says around it."""
    reason: BaseException = error
    if isinstance(error, aiohttp.ClientConnectorError):
        reason = error.os_error
        # asyncio writes the address where the system's words belong; resolvers and TLS have words of their own
        if (reason.errno or 0) > 0 and not isinstance(reason, ssl.SSLError):
            return os.strerror(reason.errno or 0)
        if isinstance(reason, socket.gaierror):
            return reason.strerror or str(reason)
    elif isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = error.certificate_error
    return str(reason) or type(reason).__name__


def _refusal(reply: Reply, path: str) -> ConsulError:
    """Return the error for an answer that is neither 200 nor 404."""
    words = "".join(
        c if c.isprintable() else " " for c in reply.body.decode("utf-8", "replace")[:_SHOWN_CHARS]
    )
    detail = f"status {reply.status}: {' '.join(words.split())}"
    if reply.status in (401, 403):
        return ConsulError("denied", f"{detail}, for {path}")  # it depends on the path what a token lacks
    if 300 <= reply.status < 400:  # noqa: PLR2004 - HTTP's class of redirects
        return ConsulError("protocol", f"status {reply.status}: a redirect, which is not followed")
    if reply.status in (429, 503):
        return ConsulError("overloaded", detail, retry_after_s=_retry_after(reply.headers))
    if reply.status == 400 or any(sign in words.lower() for sign in _BAD_QUESTIONS):  # noqa: PLR2004 - HTTP's status
        return ConsulError("misconfigured", detail)
    return ConsulError("failed" if reply.status >= 500 else "protocol", detail)  # noqa: PLR2004 - server errors


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of `Retry-After`; its form with a date is not used by Consul."""
    text = headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) <= 6 else None  # noqa: PLR2004 - 11 days


def _read(settings: ConsulSettings, files: Mapping[str, Path]) -> tuple[str, ssl.SSLContext | None]:
    """Read the token, and make the context for `https`.

    Raises:
        ConsulError: A file is missing or holds nothing that can be used (kind `misconfigured`).
    """
    token, certificates = settings.token, {key: path for key, path in files.items() if key != "token_file"}
    if settings.token_file is not None:
        with _file_errors(settings.named("token_file")):
            token = parse_token(settings.token_file.read_bytes())
    if settings.scheme != "https":
        return token, None
    for key, path in certificates.items():
        with _file_errors(settings.named(key)):
            path.stat()
    with _file_errors(*map(settings.named, certificates)):
        context = trusting(ssl.Purpose.SERVER_AUTH, settings.ca_file)
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.cert_file is not None:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    return token, context


@contextlib.contextmanager
def _file_errors(*names: str) -> Any:
    """Turn what reading a file can raise into our error."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        if isinstance(error, TokenError):
            reason = str(error)
        raise ConsulError(
            "misconfigured", f"{', '.join(names)}: {reason}", retry_after_s=FILE_RETRY_S
        ) from error


def _keepalive_socket(info: tuple[Any, ...]) -> socket.socket:
    """Make a socket that notices a peer that has gone without a word, within 30 s."""
    made = socket.socket(info[0], info[1], info[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    return made


async def check_library() -> None:
    """Refuse to run beside python-consul, which installs another package `consul` over py-consul's.

    Raises:
        ConsulError: It is installed (kind `misconfigured`).
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        await asyncio.to_thread(importlib.metadata.distribution, "python-consul")
        raise ConsulError(
            "misconfigured",
            "python-consul is installed and overwrites py-consul, for both are the module `consul`; "
            "uninstall both, then install py-consul",
        )
