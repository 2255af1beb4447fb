"""Which requests over TCP were meant for us: a web page whose DNS name was turned to us still says its own name.

Theory of operation (DNS rebinding):

1. A browser names in `Host` what its user, or a page, has asked for, and whose page asks in `Origin`. It always does. A
   request without `Host` is none of a browser's, such as a health check of HTTP/1.0, so nobody's page is behind it.
2. Somebody else's DNS can turn a name of theirs to us, but not an IP address, nor localhost, which leads to the browser's own
   machine (RFC 6761, 6.3). So these are let through; any other name only if the operator has given it.
3. The port plays no part: a tunnel (`ssh -L`), a container and a proxy have another one in front of ours.
4. An `Origin` is ours if it is what `Host` says: the page was loaded from where it calls. A proxy may write its own `Host`;
   then it is ours by a name that the operator has given.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\Z")
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^][:/@\s]+)(:[0-9]*)?\Z")


def host_name(text: str) -> str:
    """Return a name that leads here, as it is compared. ValueError: it is none."""
    name = text.lower().removesuffix(".")
    if not _NAME.match(name):
        raise ValueError(f"{text!r} is no host name, which has no scheme, port or path")
    return name


class Hosts:
    """Those of callers who meant one listener, `host:port`; a name in its address leads here, too.

    `names` are more that do, as `host_name` returns them, given by `option`.
    """

    def __init__(self, address: str, names: Iterable[str] = (), *, option: str) -> None:
        self._option = option
        self._names = frozenset({"localhost", _bare(address), *names}) - {""}
        self._given = frozenset(names)

    def foreign_host(self, given: Sequence[str]) -> str | None:
        """Say why a request is refused for its `Host` headers; None: it is not."""
        if not given:
            return None
        if len(given) > 1:
            return "a request has one Host"
        host = _bare(given[0])
        if host in self._names or _is_address(host):
            return None
        return (
            f"Host {given[0]!r} is not known to lead here: call an IP address or localhost, "
            f"or give the name with {self._option}"
        )

    def is_own(self, origin: str, given: Sequence[str]) -> bool:
        """Tell whether a page of this `Origin` may call, the request having these `Host` headers."""
        try:
            netloc = urlsplit(origin).netloc
        except ValueError:
            return False
        return bool(netloc) and (netloc.lower() in map(str.lower, given) or _bare(netloc) in self._given)


def _bare(host: str) -> str:
    """Return a host without its port, as it is compared; nothing if it is none."""
    match = _HOST.match(host)
    return match["host"].strip("[]").lower().removesuffix(".") if match else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
