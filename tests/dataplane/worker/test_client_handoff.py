"""Handing clients over, with two workers in one thread: the test says who accepts, and who looks into its inbox.

Clients are kept by a PROXY header that never comes, so no backend is needed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from random import Random
from typing import Any

import pytest

from dataplane.core.reasons import CloseReason
from dataplane.ipc.messages import INBOX
from dataplane.ipc.shared_counters import Board, CounterBoard
from dataplane.net.calls import receive
from dataplane.net.flow import Flow
from dataplane.net.leg import Leg
from dataplane.net.reactor import Reactor
from dataplane.node.change import Changer
from dataplane.telemetry.events import Events
from dataplane.worker.client_handoff import Inbox
from dataplane.worker.node import LentListeners, WorkerNode
from dataplane.worker.shared import SharedService
from tests.dataplane.net.descriptors import adopted
from tests.dataplane.net.rig import spec

WAITING = {
    "proxy_protocol": {"accept": "required", "trusted": ["0.0.0.0/0", "::/0"]},
    "balance_workers": True,
}
CLIENT = ("127.0.0.1", 4711)


class _Loop:
    """Stands for the event loop where a failed handler is reported: here it fails the test."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Raise what a handler raised."""
        raise context["exception"]


class Worker:
    """One worker, with its inbox; `far` has the clients' ends of what it has accepted."""

    def __init__(self, stack: ExitStack, counters: CounterBoard) -> None:
        row = counters.take_row()
        assert row is not None
        self.row = row
        self.reactor = Reactor(_Loop(), 4096)  # type: ignore[arg-type]
        stack.callback(self.reactor.epoll.close)
        self.node = WorkerNode(
            self.reactor, Events(lambda *_, **__: None, lambda: 0.0), Random(1), Board(counters, row)
        )
        self.listeners = LentListeners(self.node)
        self.reader, self.writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reader.setblocking(False)
        self.listeners.take([(INBOX, 0)], [os.dup(self.reader.fileno())])
        stack.callback(self.close)
        self._stack = stack

    async def run(self, column: int | None = 0, *, armed: bool = True, **options: Any) -> None:
        """Run one service, called `s`, as if it was staged and committed, and by now runs everywhere (`armed`)."""
        changer = Changer(self.node)
        draft = await changer.prepare([spec(**{**WAITING, **options})])
        await changer.swap(draft, self.listeners)
        self.node.count_in({} if column is None else {"s": column})
        if armed:
            self.node.arm()

    @property
    def service(self) -> SharedService:
        """The service."""
        (service,) = self.node.services()
        return service

    @property
    def clients(self) -> int:
        """How many it serves."""
        return len(self.service.flows)

    def meet(self, *others: Worker) -> None:
        """Learn of others."""
        self.node.siblings.meet([one.row for one in others], [os.dup(one.writer.fileno()) for one in others])

    def accept(self, address: tuple[str, int] | None = CLIENT) -> socket.socket:
        """Accept a client; return the client's end."""
        near, far = socket.socketpair()
        far.settimeout(10.0)
        self._stack.callback(far.close)
        self.service.balancer.entrance(adopted(near), address)
        return far

    def look(self) -> None:
        """Handle what is there, in the inbox and elsewhere, once."""
        self.reactor._handle_batch()

    def end_clients(self) -> None:
        """End all whom it serves."""
        for flow in list(self.service.flows):
            flow.end(CloseReason.CLIENT_GONE)

    def close(self) -> None:
        """Close everything."""
        self.node.siblings.meet(None, ())
        self.listeners.leave_inboxes()
        if "s" in self.node.running:
            self.end_clients()
        self.reader.close()
        self.writer.close()


@pytest.fixture
def make() -> Iterator[Callable[[], Worker]]:
    """Make workers that count together."""
    with ExitStack() as stack:
        counters = CounterBoard(4)
        counters.assign({"s"})
        yield lambda: Worker(stack, counters)
        stack.close()
        counters.close()


@pytest.fixture
async def pair(make: Callable[[], Worker]) -> tuple[Worker, Worker]:
    """Two workers that know each other and run the service."""
    one, other = make(), make()
    for worker in (one, other):
        await worker.run()
    one.meet(other)
    other.meet(one)
    return one, other


def test_a_client_goes_to_the_one_with_fewer_and_counts_there_alone(pair: tuple[Worker, Worker]) -> None:
    """The receiver admits it, with its address; the one that accepted it has no trace of it but the hand-over."""
    one, other = pair
    one.accept()
    one.accept(("192.0.2.1", 1))
    other.look()
    assert (one.clients, other.clients) == (1, 1)
    assert [flow.address for flow in other.service.flows] == [("192.0.2.1", 1)]
    totals = [worker.service.totals for worker in pair]
    assert [(one.connections, one.handed_over) for one in totals] == [(1, 1), (1, 0)]


@pytest.mark.parametrize("address", [None, ("192.0.2.1", 65535), ("2001:db8::1", 1)])
def test_the_address_comes_along(pair: tuple[Worker, Worker], address: tuple[str, int] | None) -> None:
    """IPv4, IPv6, and none on a Unix socket."""
    one, other = pair
    one.accept()
    one.accept(address)
    other.look()
    (flow,) = other.service.flows
    assert flow.address == address


def test_what_was_sent_early_and_what_is_sent_later_arrive(pair: tuple[Worker, Worker]) -> None:
    """The socket itself moves: nothing is read before, nothing ends when the sender closes its copy."""
    one, other = pair
    one.accept()
    client = one.accept()
    client.sendall(b"early")
    other.look()
    client.sendall(b" and late")
    (flow,) = other.service.flows
    assert receive(flow.client.fd, 100, leave=True) == (b"early and late", 0)


def test_what_nobody_has_taken_counts_as_the_receivers(pair: tuple[Worker, Worker]) -> None:
    """A sibling that does not look gets as many as there are here, and no more."""
    one, other = pair
    for _ in range(10):
        one.accept()
    assert (one.clients, other.clients, one.service.totals.handed_over) == (5, 0, 5)
    other.look()
    assert other.clients == 5


def test_a_full_inbox_is_no_reason_to_wait(pair: tuple[Worker, Worker]) -> None:
    """Who cannot be sent is served where it was accepted."""
    one, other = pair
    one.node.disarm(())
    for _ in range(30):
        one.accept()
    other.writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least, room for a few
    one.node.arm()
    for _ in range(20):
        one.accept()
    handed = one.service.totals.handed_over
    assert 0 < handed < 20
    assert one.clients == 50 - handed
    other.look()
    assert other.clients == handed


def test_who_has_left_is_no_longer_counted(pair: tuple[Worker, Worker]) -> None:
    """When a worker has lost its clients it gets the next ones."""
    one, other = pair
    for _ in range(4):
        one.accept()
    other.look()
    other.end_clients()
    assert (one.clients, other.clients) == (2, 0)
    for _ in range(2):
        one.accept()
    other.look()
    assert (one.clients, other.clients) == (2, 2)


@pytest.mark.parametrize("options", [{"balance_workers": False}, {"column": None}])
async def test_without_the_option_or_a_common_count_all_are_served_here(
    pair: tuple[Worker, Worker], options: dict[str, Any]
) -> None:
    """Turned off, or beyond what the shared memory has columns for, nothing is handed over any more."""
    one, _ = pair
    await one.run(**options)
    for _ in range(4):
        one.accept()
    assert (one.clients, one.service.totals.handed_over) == (4, 0)


async def test_turned_on_again_it_counts_who_is_there(pair: tuple[Worker, Worker]) -> None:
    """Clients that came while the option was off are seen by the others as soon as it is on."""
    one, other = pair
    await one.run(balance_workers=False)
    for _ in range(3):
        one.accept()
    await one.run()
    for _ in range(3):
        other.accept()
    assert (one.clients, other.clients) == (3, 3)


def test_a_staged_end_stops_it_and_an_abandoned_one_starts_it_again(pair: tuple[Worker, Worker]) -> None:
    """Between the moment when all have prepared the end of a service and the moment when it is called off."""
    one, _ = pair
    one.node.disarm({"another"})
    for _ in range(4):
        one.accept()
    assert one.service.totals.handed_over == 0
    one.node.disarm({"s"})
    one.node.arm()
    one.accept()
    assert one.service.totals.handed_over == 1


async def test_a_new_service_is_not_handed_over_before_all_run_it(make: Callable[[], Worker]) -> None:
    """Only the supervisor knows when; until it says so, clients are served where they come."""
    one, other = make(), make()
    one.meet(other)
    await one.run(armed=False)
    for _ in range(2):
        one.accept()
    assert (one.clients, one.service.totals.handed_over) == (2, 0)
    one.node.arm()
    one.accept()
    assert (one.clients, one.service.totals.handed_over) == (2, 1)


@pytest.mark.parametrize("balanced", [True, False])
async def test_ends_are_told_to_the_access_log_too(make: Callable[[], Worker], *, balanced: bool) -> None:
    """Who counts clients for the others stands before the log, for as long as they are balanced."""
    one, ended = make(), []
    one.node.access_log = lambda flow, reason, server: ended.append(reason)
    await one.run(balance_workers=not balanced)
    await one.run(balance_workers=balanced)
    one.accept()
    one.end_clients()
    assert ended == [CloseReason.CLIENT_GONE]


def test_a_client_of_a_service_that_is_gone_is_closed(make: Callable[[], Worker]) -> None:
    """Such a one was handed over to a worker that died, and the service went before there was a successor."""
    one = make()
    near, far = socket.socketpair()
    with far:
        far.settimeout(10.0)
        one.node.deliver("gone", adopted(near), CLIENT, "")
        assert far.recv(1) == b""


def test_short_of_descriptors_it_leaves_them_to_others(pair: tuple[Worker, Worker]) -> None:
    """A worker that might not get the next descriptor takes nobody; a sibling that is lent the inbox does."""
    one, other = pair
    for _ in range(6):
        one.accept()
    other.reactor.limit_descriptors(8)
    other.look()
    other.look()
    assert other.clients == 1
    one.listeners.take([(INBOX, 1)], [os.dup(other.reader.fileno())])
    one.look()
    assert (one.clients, other.clients) == (5, 1)
    one.listeners.drop([(INBOX, 1)])


def test_after_a_pause_it_goes_on(pair: tuple[Worker, Worker]) -> None:
    """As soon as descriptors are to be had, those who wait are taken."""
    one, other = pair
    for _ in range(6):
        one.accept()
    other.reactor.limit_descriptors(8)
    other.look()
    other.reactor.wheel.advance(other.reactor.now + 1)
    other.look()
    assert other.clients == 1
    other.reactor.limit_descriptors(4096)
    other.reactor.wheel.advance(other.reactor.now + 2)
    other.look()
    assert other.clients == 3


def test_who_is_replaced_leaves_its_inbox_to_the_successor(pair: tuple[Worker, Worker]) -> None:
    """Those in it are served by somebody who stays; but when all go, by the last who can."""
    one, other = pair
    for _ in range(4):
        one.accept()
    other.listeners.leave_inboxes()
    assert other.clients == 0
    other.listeners.take([(INBOX, 0)], [os.dup(other.reader.fileno())])
    other.node.siblings.meet(None, ())
    other.listeners.leave_inboxes()
    assert other.clients == 2


def test_nobody_left_who_could_send_is_no_reason_to_spin(pair: tuple[Worker, Worker]) -> None:
    """An inbox whose writing ends are all closed is not watched any more."""
    one, other = pair
    watched = [handler for handler in other.reactor.handlers.all().values() if isinstance(handler, Inbox)]
    assert len(watched) == 1
    one.meet()
    other.writer.close()
    other.look()
    assert not any(isinstance(handler, Inbox) for handler in other.reactor.handlers.all().values())


@pytest.mark.parametrize("watched", [False, True])
async def test_a_routed_client_that_cannot_be_sent_is_watched_as_its_leg_says(
    make: Callable[[], Worker],
    watched: bool,  # noqa: FBT001 - a parameter of a test
) -> None:
    """Whose ClientHello was there at once has not been watched before; it stays, and can be relayed."""
    one, other = make(), make()
    for worker in (one, other):
        await worker.run(proxy_protocol={"accept": "off"})
    one.meet(other)
    other.writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least, room for a few
    service = one.service
    stays = False
    for index in range(50):
        near, far = socket.socketpair()
        far.close()
        flow = Flow(service, CLIENT, one.reactor.now)
        flow.client = Leg(flow, adopted(near), False)
        service.flows.add(flow)
        if watched:
            one.reactor.watch(flow.client.fd, flow, 0)
            flow.client.mask = 0
        if index < 30:
            continue  # so that the other one has fewer
        stays = not service.balancer.hand_over_routed(flow, "127.0.0.1:443")
        if stays:
            break
    assert stays
    assert service.totals.handed_over > 0
    flow.watch_client()
