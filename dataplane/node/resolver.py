"""Host names of backends, looked up beside the connection path and kept fresh; and what leads back on this machine.

A name's addresses are tried in the order that getaddrinfo gives (RFC 6724), the families taking turns (RFC 8305,
section 4). Of them those are left out that lead back into the balancer. A lookup that fails later keeps the last ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Final

from dataplane.background import report_bug, together
from dataplane.core.health import HealthState
from dataplane.core.reasons import SkipReason
from dataplane.net.backend import Absence, Backend
from dataplane.net.sockopts import to_sockaddr
from dataplane.node.backend_addresses import find_loops
from dataplane.node.node import Node
from dataplane.node.running_service import RunningService
from schemas.loops import Loops, Machine
from schemas.system.machine import HERE

REFRESH_S: Final = 15.0
"""How often a name is looked up again; asyncio's resolver does not tell a record's own lifetime."""
RETRY_S: Final = 2.0
RTMGRP_IPV4_IFADDR: Final = 0x10
RTMGRP_IPV6_IFADDR: Final = 0x100
"""rtnetlink(7)."""

Users = list[tuple["RunningService", "Backend"]]
"""Backends with one name and port."""


class Resolver:
    """Gives a node's backends with a host name their addresses."""

    def __init__(self, node: Node, machine: Machine = HERE) -> None:
        self._node = node
        self._machine = machine
        self._wake = asyncio.Event()
        self._moved = False
        """Whether this machine's addresses have changed since the last look."""
        self._found: dict[str, tuple[str, ...]] = {}
        """By configured address: what the name resolved to last."""

    def wake(self) -> None:
        """Look now: the configuration has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Look up for ever."""
        with address_changes(self._on_move):
            while True:
                self._wake.clear()
                if self._moved:
                    self._moved = False
                    await self._look_at_loops()
                names = self._names()
                for outcome in await together(self._resolve(name, users) for name, users in names.items()):
                    if isinstance(outcome, Exception):  # a bug of ours that one name has met is no other's
                        report_bug("looking up a name failed", outcome)
                if not names:
                    await self._wake.wait()
                    continue
                failed = names.keys() - self._found.keys()
                # Not wait_for(), which can swallow a cancellation on Python 3.11.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S if failed else REFRESH_S):
                        await self._wake.wait()

    def _on_move(self) -> None:
        self._moved = True
        self._wake.set()

    def _names(self) -> Mapping[str, Users]:
        names: dict[str, Users] = defaultdict(list)
        for running in self._node.running.values():
            for backend in running.service.backends.values():
                if backend.named:
                    names[backend.spec.address].append((running, backend))
        self._found = {name: found for name, found in self._found.items() if name in names}
        return names

    async def _resolve(self, name: str, users: Users) -> None:
        try:
            self._found[name] = await _look_up(name)
        # IDNA refuses a name with an empty label, or one of over 63 bytes, with a UnicodeError
        except (OSError, UnicodeError) as error:
            cause = error.strerror or error if isinstance(error, OSError) else "not a host name"
            if name not in self._found:
                for running, backend in users:
                    self._missing(running, backend, f"name not resolved: {cause}")
                return
        loops = await self._loops() if self._lands(self._found[name]) else {}
        for running, backend in users:
            if backend.spec.address == name and not backend.removed:
                self._place(running, backend, loops.get(running.service.name, {}).get(backend.id, {}))

    def _missing(self, running: RunningService, backend: Backend, cause: str) -> None:
        if backend.absence is None or backend.absence.cause == cause or not backend.named:
            return
        absence = Absence(HealthState.DOWN, SkipReason.UNRESOLVED, cause, self._node.reactor.now)
        self._node.backend_addresses.put(running, backend, (), absence)
        self._node.events.emit("unresolved", service=running.service.name, backend=backend.id, cause=cause)

    def _place(self, running: RunningService, backend: Backend, loops: Mapping[str, str]) -> None:
        name = backend.spec.address
        found = {
            address: literal
            for literal in self._found[name]
            if literal not in loops and (address := to_sockaddr(literal)) is not None
        }
        if not found:
            self._node.backend_addresses.refuse(
                running, backend, f"{name} resolves to us: {'; '.join(loops.values())}"
            )
            return
        first = backend.address
        if first is not None and found.keys() == {first, *backend.others}:
            return
        self._node.backend_addresses.put(running, backend, tuple(found), None)
        if backend.address is not None and backend.address != first:
            self._node.events.emit(
                "resolved",
                service=running.service.name,
                backend=backend.id,
                name=name,
                address=found[backend.address],
            )

    # -- what leads back ------------------------------------------------------------------------------

    def _lands(self, addresses: Iterable[str]) -> bool:
        """Tell whether a listener of ours is at one of these addresses: then all backends have to be looked at."""
        listeners = {name: one.service.spec.listen for name, one in self._node.running.items()}
        loops = Loops(listeners, self._machine)
        return any(loops.landing(address) is not None for address in addresses)

    async def _loops(self) -> dict[str, dict[str, dict[str, str]]]:
        services = [
            (name, running.service.spec.listen, [one.spec for one in running.service.backends.values()])
            for name, running in self._node.running.items()
        ]
        return await find_loops(services, self._found, self._machine)

    async def _look_at_loops(self) -> None:
        """Look again at which configured addresses are this machine's."""
        loops = await self._loops()
        for name, running in self._node.running.items():
            self._node.backend_addresses.turn_away(running, loops.get(name, {}))


async def _look_up(name: str) -> tuple[str, ...]:
    """Return the addresses of `host:port`, in the order in which they should be tried; raises OSError."""
    host, _, port = name.rpartition(":")
    if host.startswith("["):
        if to_sockaddr(name) is None:
            raise OSError(errno.ENODEV, f"there is no network interface {host[1:-1].partition('%')[2]}")
        return (name,)
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(_literal(entry[4], port) for entry in found))
    if not addresses:
        raise OSError(errno.ENOENT, "no address")
    if len(addresses) > 1 and not _has_ipv6():
        addresses = [one for one in addresses if not one.startswith("[")] or addresses
    v6 = [one for one in addresses if one.startswith("[")]
    v4 = [one for one in addresses if not one.startswith("[")]
    both = (v6, v4) if addresses[0].startswith("[") else (v4, v6)
    return tuple(one for one in chain.from_iterable(zip_longest(*both)) if one is not None)


def _literal(sockaddr: Sequence[object], port: str) -> str:
    host = str(sockaddr[0])
    if len(sockaddr) > 3 and sockaddr[3] and "%" not in host:  # noqa: PLR2004 - with a scope id
        host = f"{host}%{sockaddr[3]}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _has_ipv6() -> bool:
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


@contextlib.contextmanager
def address_changes(on_change: Callable[[], None]) -> Iterator[None]:
    """Call `on_change` after each change of this machine's addresses; never, where the kernel does not tell."""
    loop = asyncio.get_running_loop()
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    except OSError:  # a sandbox without the family
        yield
        return

    def drain() -> None:
        with contextlib.suppress(OSError):  # nothing more there, or (ENOBUFS) more than was kept
            while sock.recv(65536):
                pass
        on_change()

    with sock:
        sock.bind((0, RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
        loop.add_reader(sock, drain)
        try:
            yield
        finally:
            loop.remove_reader(sock)
