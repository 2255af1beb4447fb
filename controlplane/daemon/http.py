"""What the daemon listens on: its Unix socket; and TCP: who may call there, the headers of every answer, and the page's files.

Theory of operation:

1. Without a token nothing can be changed, and only this machine can connect. With one, every call of the API
   needs it; the dashboard's files do not, for they hold nothing and are where the token is entered.
2. `Host` must lead here (`schemas.http.hosts`): a foreign page whose DNS entry was turned to this address still
   says its own name.
3. A request that names an `Origin` must name this one, reading included. There are no cookies, so a foreign
   page has no authority to borrow either.
4. Nothing that comes from here may load, run or embed anything from elsewhere (`HEADERS`).
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import socket
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path, PurePath
from typing import Final

from aiohttp import web

from controlplane.errors import BusyError, PlaceError
from schemas.addresses import too_long
from schemas.http.answers import MUTATIONS, Refusal, refuse_host, refuse_token
from schemas.http.hosts import Hosts
from schemas.http.reloaded import Renewed
from schemas.system.ownership import explain_error
from schemas.system.unix_socket import InUse, OwnSocket

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""On every answer over TCP; `Cache-Control: no-store` besides, so that no proxy or disk keeps a status."""
_KINDS: Final = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}
_OPEN: Final = frozenset({"/access.json", "/livez"})
_MAX_PORT: Final = 65535


class Tcp:
    """Who may call over TCP, and the dashboard: a page, its style and its modules, read once.

    Args:
        address: The bound `host:port`.
        token: Required on every call of the API; None: nothing may be changed.
        names: By which a proxy leads here, as `host_name` returns them.
    """

    def __init__(self, address: str, token: Renewed[str] | None, names: Sequence[str] = ()) -> None:
        self._hosts = Hosts(address, names, option="--http-host")
        self._token = token
        files = sorted((resources.files("controlplane") / "ui").iterdir(), key=lambda each: each.name)
        self._page = {
            "/" if each.name == "index.html" else f"/{each.name}": (each.read_bytes(), kind)
            for each in files
            if (kind := _KINDS.get(PurePath(each.name).suffix)) is not None
        }

    def refusal(self, request: web.Request) -> Refusal | None:
        """Return why a call is not allowed; None if it is."""
        foreign = self._foreign(request)
        if foreign is not None or request.path in self._page or request.path in _OPEN:
            return foreign
        if self._token is None:
            changes = request.method in MUTATIONS
            return (
                Refusal(403, "read_only", "without a token nothing can be changed here") if changes else None
            )
        return refuse_token(request, self._token.now())

    def _foreign(self, request: web.Request) -> Refusal | None:
        if (refusal := refuse_host(request, self._hosts)) is not None:
            return refusal
        origin = request.headers.get("Origin")
        if origin is not None and not self._hosts.is_own(origin, request.headers.getall("Host", [])):
            words = "another web page may neither read nor change anything here"
            return Refusal(
                403, "foreign_origin", f"{words}; behind a proxy, name the page's host: --http-host"
            )
        return None

    def add_page(self, app: web.Application) -> None:
        """Add the page's routes and headers to an application that is served over TCP."""
        digest = hashlib.sha256(b"\0".join(body for body, _ in self._page.values())).hexdigest()
        access = {"changes": "never" if self._token is None else "token", "page": digest[:16]}

        async def file(request: web.Request) -> web.Response:
            body, kind = self._page[request.path]
            return web.Response(body=body, content_type=kind, charset="utf-8")

        async def tell_access(_request: web.Request) -> web.Response:
            return web.json_response(access)

        app.add_routes([web.get(path, file) for path in self._page])
        app.add_routes([web.get("/access.json", tell_access)])
        app.on_response_prepare.append(_guard)


async def _guard(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")


def listener(address: str, *, token: bool) -> tuple[socket.socket, str]:
    """Bind the TCP address; without a token only on this machine.

    Args:
        address: `host:port`; port 0 for any.
        token: Whether every call will need one.

    Returns:
        The socket, and the address with the port that it got.

    Raises:
        PlaceError: The address is none, is taken, or would be open to everybody.
    """
    host, _, port = address.rpartition(":")
    bare = host.strip("[]")
    try:
        local = bare == "localhost" or ipaddress.ip_address(bare).is_loopback
    except ValueError:
        local = False
    if not token and not local:
        raise PlaceError(f"--http {address}: without --http-token-file only on a loopback address")
    family = socket.AF_INET6 if ":" in bare else socket.AF_INET
    if not port.isdecimal() or int(port) > _MAX_PORT:
        raise PlaceError(f"--http {address}: the port must be 0 to {_MAX_PORT}")
    try:
        sock = socket.create_server((bare, int(port)), family=family)
    except OSError as error:
        # Python adds the address to the system's words; a resolver's error has words of its own.
        number = error.errno or 0
        words = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise PlaceError(f"--http {address}: cannot listen there: {words.lower()}") from error
    return sock, f"{host}:{sock.getsockname()[1]}"


@contextlib.contextmanager
def bound(path: Path) -> Iterator[socket.socket]:
    """Bind the daemon's own Unix socket: private, never stolen from a daemon that lives, gone when it ends.

    It changes the umask for a moment: at start-up, before there are threads to suffer from it.

    Raises:
        BusyError: Another process holds the path; its pid is in the message.
        PlaceError: The directory cannot be made or written, or belongs to others, or its name is too long.
    """
    if problem := too_long(path):
        raise PlaceError(f"--runtime-dir {path.parent}: {problem}")
    own = OwnSocket(path)
    try:
        own.acquire()
        listener = own.listen()
    except InUse as error:
        raise BusyError(str(path), error.pid) from error
    except OSError as error:
        own.unlock()
        place = Path(error.filename) if isinstance(error.filename, str) else path
        raise PlaceError(f"{path}: {explain_error(place, error)}") from error
    try:
        yield listener
    finally:
        own.close()
        listener.close()
