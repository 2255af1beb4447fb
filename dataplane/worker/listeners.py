"""The listeners of a worker: its listening sockets come and go, and are the supervisor's."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

from dataplane.ipc.messages import INBOX
from dataplane.net.listener import Listener
from dataplane.worker.client_handoff import Inbox
from dataplane.worker.node import WorkerNode

__all__ = ["LentListeners"]


def _key(address: str, index: int) -> str:
    """Return what a socket is called among the node's listeners: an address has several, each with its own queue."""
    return f"{address}#{index}"


class LentListeners:
    """The listeners of a worker, on sockets that the supervisor lends it, and the inboxes that it reads."""

    def __init__(self, node: WorkerNode) -> None:
        self._node = node
        self._inboxes: dict[int, Inbox] = {}

    def shut(self, addresses: Mapping[str, str]) -> None:
        """Take who is in the queue of an address that is gone, and close it."""
        listeners = self._node.listeners
        for key in [key for key, listener in listeners.items() if listener.address not in addresses]:
            listeners.pop(key).close()

    def open(self, addresses: Mapping[str, str]) -> None:
        """Give the listeners their services; sockets of new addresses follow."""
        services = {service.name: service for service in self._node.services()}
        for listener in self._node.listeners.values():
            service = services[addresses[listener.address]]
            listener.serve(service, service.balancer.entrance)

    def take(self, held: Iterable[tuple[str, int]], fds: Iterable[int]) -> None:
        """Accept from sockets, too; one of an address that is not configured here (any more) is closed."""
        node = self._node
        services = {address: service for service in node.services() for address in service.spec.listen}
        for (address, index), fd in zip(held, fds, strict=True):
            key = _key(address, index)
            sock = socket.socket(fileno=fd)
            if address == INBOX:
                inbox = self._inboxes[index] = Inbox(node.reactor, sock, node.deliver)
                inbox.start()
                continue
            service = services.get(address)
            if service is None or key in node.listeners:
                sock.close()
                continue
            sock.setblocking(False)
            entrance = service.balancer.entrance
            listener = node.listeners[key] = Listener(node.reactor, address, sock, service, entrance)
            listener.start()

    def drop(self, held: Iterable[tuple[str, int]]) -> None:
        """Leave sockets, and those in their queues, to the others who have them."""
        listeners = self._node.listeners
        for address, index in held:
            if address == INBOX:
                self._inboxes.pop(index).close()
                continue
            listener = listeners.pop(_key(address, index), None)
            if listener is None:
                continue
            self._leave(listener)
            other = next((one for one in listeners.values() if one.address == address), None)
            if other is not None:
                other.accepted += listener.accepted  # the total of an address never falls

    def leave_all(self) -> None:
        """Accept nothing more; the listeners stay listed, for their counts."""
        for listener in self._node.listeners.values():
            self._leave(listener)

    def empty_inboxes(self) -> None:
        """Serve everybody who was handed over."""
        for inbox in self._inboxes.values():
            inbox.empty()

    def leave_inboxes(self) -> None:
        """Take nobody else; who is in an inbox is a sibling's or a successor's, unless there is none."""
        if self._node.siblings.apart:
            self.empty_inboxes()
        while self._inboxes:
            self._inboxes.popitem()[1].close()

    @staticmethod
    def _leave(listener: Listener) -> None:
        if listener.sock.fileno() >= 0:  # else it was left before, and a client may have its number by now
            listener.detach()
            listener.sock.close()
