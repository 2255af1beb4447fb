"""The listeners of one process: opened before a change, started and closed with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dataplane.errors import BindError, Refused
from dataplane.net.listener import Listener, open_listener
from dataplane.net.socket_files import NO_OPTIONS, PLAIN, SocketFiles, rehearse
from dataplane.net.syn_filter import let_in

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping

    from dataplane.core.spec import ListenSpec
    from dataplane.node.node import Node

__all__ = ["OwnDoors"]


class OwnDoors:
    """One socket for each address, opened here, or by the service manager."""

    def __init__(self, node: Node, *, reuse_port: bool) -> None:
        self._node = node
        self._reuse_port = reuse_port
        self._opened: dict[str, socket.socket] = {}
        self._files = SocketFiles()
        self._lent: set[str] = set()
        """Addresses among them whose socket was inherited."""
        self.inherited: dict[str, list[socket.socket]] = {}
        """Listening sockets that a service manager opened, by address."""

    async def prepare(self, addresses: Iterable[str], options: Mapping[str, ListenSpec] = NO_OPTIONS) -> None:
        """Open what is listened on newly, all of it or none.

        Raises:
            Refused: 503.
        """
        opened: dict[str, socket.socket] = {}
        self._lent.clear()
        try:
            there = {*self._node.listeners, *self.inherited}.intersection(addresses)
            self._files.prepare(there, options)
            for address in addresses:
                if address not in self._node.listeners:
                    opened[address] = self._take(address, options.get(address, PLAIN))
        except BindError as error:
            self._files.abandon()
            self._put_back(opened)
            raise Refused(503, "bind_failed", str(error)) from error
        self._opened = opened

    async def rehearse(
        self, addresses: Iterable[str], options: Mapping[str, ListenSpec] = NO_OPTIONS
    ) -> None:
        """Find out whether all of `addresses` could be listened on.

        Raises:
            Refused: 503.
        """
        try:
            for address in addresses:
                spec = options.get(address, PLAIN)
                if address not in self._node.listeners and address not in self.inherited:
                    open_listener(address, reuse_port=self._reuse_port, listen=False, spec=spec).close()
                elif address.startswith("unix:"):
                    rehearse(address, spec)
        except BindError as error:
            raise Refused(503, "bind_failed", str(error)) from error

    def abandon(self) -> None:
        """Close what was opened: the change is not made."""
        self._files.abandon()
        self._put_back(self._opened)
        self._opened = {}

    def shut(self, addresses: Mapping[str, str]) -> None:
        """Take who is in the queue of an address that is gone, and close it."""
        listeners = self._node.listeners
        for address in [address for address in listeners if address not in addresses]:
            listeners.pop(address).close()

    def open(self, addresses: Mapping[str, str]) -> None:
        """Start what was opened, and give the others their service."""
        node = self._node
        opened, self._opened = self._opened, {}
        self._files.commit()
        for address, name in addresses.items():
            service = node.running[name].service
            listener = node.listeners.get(address)
            if listener is None:
                listener = node.listeners[address] = Listener(node.reactor, address, opened[address], service)
                listener.start()
            else:
                listener.serve(service)

    def close(self) -> None:
        """Take who is in the queues, and close everything: nobody accepts here any more."""
        self.shut({})
        self._forget_inherited()

    def leave_all(self) -> None:
        """Stop accepting; another process has copies of the sockets, and serves their queues."""
        for listener in self._node.listeners.values():
            listener.detach()
            listener.sock.close()
        self._node.listeners.clear()
        self._forget_inherited()

    def _forget_inherited(self) -> None:
        """Close what nothing was listening on yet, or a port would stay open that nobody accepts from."""
        for group in self.inherited.values():
            for sock in group:
                sock.close()
        self.inherited = {}

    def _take(self, address: str, spec: ListenSpec) -> socket.socket:
        sockets = self.inherited.get(address)
        if not sockets:
            return open_listener(address, reuse_port=self._reuse_port, spec=spec)
        self._lent.add(address)
        sock = sockets.pop()
        let_in(sock)
        return sock

    def _put_back(self, opened: Mapping[str, socket.socket]) -> None:
        """Undo `_take`; a service manager's socket, which nobody else could open again, stays open."""
        for address, sock in opened.items():
            if address in self._lent:
                self.inherited[address].append(sock)
                continue
            sock.close()
            if address.startswith("unix:"):
                Path(address[5:]).unlink(missing_ok=True)
