"""What a node listens on: opened before a change, started and closed with it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from pathlib import Path
from typing import Protocol

from dataplane.core.spec import ListenSpec
from dataplane.errors import BindError, Refused
from dataplane.net.listener import Listener, open_listener
from dataplane.net.socket_files import NO_OPTIONS, PLAIN, SocketFiles, rehearse
from dataplane.net.syn_filter import let_in
from dataplane.node.node import Node
from dataplane.node.routers import Addresses, arrange, behind


class Listeners(Protocol):
    """What a node listens on; sockets are there before the swap of a change (`NewSockets`), or follow it."""

    def shut(self, addresses: Addresses) -> None:
        """Stop listening on whatever is not among `addresses`."""

    def open(self, addresses: Addresses) -> None:
        """Listen on all of `addresses`, the running services being those that they name."""


class NewSockets:
    """The listening sockets that a change needs: opened here, all of them or none, or inherited.

    An address that cannot be had is refused (`Refused`, 503).

    Args:
        there: What is listened on, by address.
        count: Tells how many an address needs, of those that the kernel can spread clients over.
        reuse_port: Whether others may listen on the same address.
    """

    def __init__(
        self, there: Container[str], count: Callable[[], int] = lambda: 1, *, reuse_port: bool
    ) -> None:
        self._there = there
        self._count = count
        self._reuse_port = reuse_port
        self._files = SocketFiles()
        self._opened: dict[str, list[socket.socket]] = {}
        self._options = self._asked = NO_OPTIONS
        """How addresses are listened on, and how they will be."""
        self.inherited: dict[str, list[socket.socket]] = {}
        """From a service manager or a process before this one, by address; nobody could open them again."""

    def inherit(self, sockets: Mapping[str, list[socket.socket]]) -> None:
        """Take further sockets that came from outside."""
        for address, group in sockets.items():
            self.inherited.setdefault(address, []).extend(group)

    def _has(self, address: str) -> bool:
        return address in self._there or address in self.inherited

    def prepare(self, addresses: Collection[str], options: Mapping[str, ListenSpec] = NO_OPTIONS) -> None:
        """Open what is listened on newly among all `addresses`, or nothing."""
        self._opened, self._asked = {}, options
        try:
            self._files.prepare({address for address in addresses if self._has(address)}, options)
            for address in addresses:
                if not self._has(address):
                    opened = self._opened[address] = []
                    while len(opened) < (1 if address.startswith("unix:") else self._count()):
                        spec = options.get(address, PLAIN)
                        opened.append(open_listener(address, reuse_port=self._reuse_port, spec=spec))
        except BindError as error:
            self.abandon()
            raise Refused(503, "bind_failed", str(error)) from error

    def rehearse(self, addresses: Iterable[str], options: Mapping[str, ListenSpec] = NO_OPTIONS) -> None:
        """Find out whether all of `addresses` could be listened on."""
        try:
            for address in addresses:
                spec = options.get(address, PLAIN)
                if not self._has(address):
                    open_listener(address, reuse_port=self._reuse_port, listen=False, spec=spec).close()
                elif address.startswith("unix:"):
                    rehearse(address, spec)
        except BindError as error:
            raise Refused(503, "bind_failed", str(error)) from error

    def abandon(self) -> None:
        """Close what was opened: the change is not made."""
        self._files.abandon()
        for address, group in self._opened.items():
            close(address, group)
        self._opened = {}

    def take(self, addresses: Iterable[str]) -> dict[str, list[socket.socket]]:
        """Return the sockets of those `addresses` that are not listened on yet: the change is made."""
        self._files.commit()
        self._options = self._asked
        taken, self._opened = self._opened, {}
        for address in addresses:
            if address in self.inherited and address not in self._there:
                taken[address] = self.inherited.pop(address)
                for sock in taken[address]:
                    let_in(sock)
        return taken

    def grow(self, address: str, group: list[socket.socket]) -> None:
        """Open as many further sockets of an address as it lacks."""
        try:
            while len(group) < self._count():
                spec = self._options.get(address, PLAIN)
                group.append(open_listener(address, reuse_port=self._reuse_port, spec=spec))
        except BindError as error:
            raise Refused(503, "bind_failed", str(error)) from error

    def forget_inherited(self) -> None:
        """Close what nothing was listening on yet, or a port would stay open that nobody accepts from."""
        for group in self.inherited.values():
            for sock in group:
                sock.close()
        self.inherited = {}


def close(address: str, group: Collection[socket.socket]) -> None:
    """Close the sockets of an address for good; a file of which we have no socket is somebody else's."""
    for sock in group:
        sock.close()
    if group and address.startswith("unix:"):
        Path(address[5:]).unlink(missing_ok=True)


class OwnListeners:
    """The listeners of a process that accepts by itself: one for each address."""

    def __init__(self, node: Node, *, reuse_port: bool) -> None:
        self._node = node
        self.new = NewSockets(node.listeners, reuse_port=reuse_port)

    def shut(self, addresses: Addresses) -> None:
        """Take who is in the queue of an address that is gone, and close it."""
        listeners = self._node.listeners
        for address in [address for address in listeners if address not in addresses]:
            listeners.pop(address).close()

    def open(self, addresses: Addresses) -> None:
        """Start what was opened, and give the others their service."""
        node = self._node
        taken = self.new.take(addresses)
        arrange(node, addresses)
        for address, names in addresses.items():
            service, entrance = behind(node, address, names[0])
            listener = node.listeners.get(address)
            if listener is None:
                sock, *further = taken[address]
                if further:  # a service manager's, which would reset whoever is in their queues
                    self.new.inherited[address] = further
                listener = node.listeners[address] = Listener(node.reactor, address, sock, service, entrance)
                listener.start()
            else:
                listener.serve(service, entrance)

    def close(self) -> None:
        """Take who is in the queues, and close everything: nobody accepts here any more."""
        self.shut({})
        self.new.forget_inherited()

    def leave_all(self) -> None:
        """Stop accepting; another process has copies of the sockets, and serves their queues."""
        for listener in self._node.listeners.values():
            listener.detach()
            listener.sock.close()
        self._node.listeners.clear()
        self.new.forget_inherited()
