"""Which `Host` headers lead to an API over TCP: a web page whose DNS name was turned to us still says its own name."""

from __future__ import annotations

import ipaddress
from typing import Final

__all__ = ["Hosts"]

_EVERYWHERE: Final = frozenset({"", "*", "0.0.0.0", "::"})


class Hosts:
    """Those of callers who meant one listener: its address, and localhost.

    One on every address also takes any literal IP address, with its port: no name has led there.

    Args:
        address: What is listened on, `host:port`.
    """

    def __init__(self, address: str) -> None:
        host, _, self._port = address.rpartition(":")
        self._names = frozenset({address, host, "localhost", f"localhost:{self._port}"})
        self._everywhere = host.strip("[]") in _EVERYWHERE

    def __contains__(self, host: str) -> bool:
        if host in self._names:
            return True
        bare, _, port = host.rpartition(":")
        if not self._everywhere or port != self._port:
            return False
        try:
            ipaddress.ip_address(bare.strip("[]"))
        except ValueError:
            return False
        return True
