"""What happens to a client between accept and relay: limits, the queue, attempts, and the accounts."""

from __future__ import annotations

import errno
import select
import socket

import pytest

from dataplane.core.balance.sticky_table import client_key
from dataplane.core.reasons import CloseReason
from dataplane.net.reactor import Reactor
from tests.dataplane.net.rig import rigged
from tests.support.clients import reset


def clog(rig, index=0):
    """Fill a backend's accept queue, so that dials to it wait; return what fills it."""
    end = rig.ends[index]
    end.refuse()
    end.listen(backlog=0)
    return rig.keep(socket.create_connection(("127.0.0.1", end.port), timeout=5))


def unclog(rig, filler, index=0):
    """Take what fills the accept queue, so that the kernel completes the dials that wait (it retries after 1 s)."""
    rig.ends[index].accept().close()
    filler.close()


class TestQueue:
    """`limits.queue`: who finds no place waits for one, in order."""

    def test_first_come_first_served(self):
        """Places go to those who wait in the order of their arrival."""
        with rigged(limits={"connections": 1, "queue": 2}) as rig:
            first = rig.client()
            served = rig.ends[0].accept()
            second, third = rig.client(), rig.client()
            assert len(rig.service.queue) == 2
            assert rig.ends[0].nobody()
            for leaving, coming in ((first, second), (second, third)):
                reset(leaving)
                coming.sendall(b"mine")
                served = rig.ends[0].accept()
                assert rig.receive(served, 4) == b"mine"
            third.close()
            served.close()
            rig.until(lambda: not rig.service.flows)
            rig.check_accounts()

    def test_a_mode_that_changes_meanwhile(self):
        """Who waited while the mode became `sticky` gets the backend of its address, as everybody else of it."""
        with rigged(backends=3, limits={"per_backend": 1, "queue": 9}) as rig:
            firsts = [rig.client() for _ in range(3)]
            for end in rig.ends:
                end.accept()
            known = set(rig.service.flows)
            waiting = rig.client()
            assert len(rig.service.queue) == 1
            rig.configure(mode="sticky", limits={"per_backend": 9, "queue": 9})
            (flow,) = rig.service.flows - known
            assert (flow.waiting, flow.key) == (None, client_key(b"127.0.0.1", rig.service.spec.seed))
            for client in (*firsts, waiting):
                reset(client)

    def test_a_full_queue_refuses(self):
        """Who finds the queue full is closed at once, without a byte."""
        with rigged(limits={"connections": 1, "queue": 1}) as rig:
            rig.client()
            rig.client()
            assert rig.client().recv(1) == b""
            assert rig.reasons == ["queue_full"]

    @pytest.mark.parametrize(
        ("limits", "reason"),
        [({"connections": 1}, "limit_connections"), ({"per_backend": 1}, "limit_per_backend")],
    )
    def test_no_queue_refuses(self, limits, reason):
        """With `queue: 0` nobody waits."""
        with rigged(limits=limits) as rig:
            rig.client()
            assert rig.client().recv(1) == b""
            assert rig.reasons == [reason]

    def test_waiting_ends(self):
        """Who waited for `queue_timeout` is closed."""
        with rigged(limits={"connections": 1, "queue": 1, "queue_timeout": "2s"}) as rig:
            rig.client()
            waiting = rig.client()
            rig.pass_time(1.9)
            assert len(rig.service.queue) == 1
            rig.pass_time(0.2)
            assert waiting.recv(1) == b""
            assert rig.reasons == ["queue_timeout"]
            assert not rig.service.queue

    def test_who_leaves_is_not_served(self):
        """A client that resets while it waits leaves the queue."""
        with rigged(limits={"connections": 1, "queue": 2}) as rig:
            first = rig.client()
            rig.ends[0].accept()
            leaving, staying = rig.client(), rig.client()
            reset(leaving)
            rig.until(lambda: rig.reasons == ["client_gone"])
            reset(first)
            staying.sendall(b"mine")
            assert rig.receive(rig.ends[0].accept(), 4) == b"mine"

    def test_a_place_that_one_may_not_take(self):
        """A client that has tried the only backend with room goes on waiting for another one, and nothing spins."""
        with rigged(backends=2, limits={"per_backend": 1, "queue": 2}) as rig:
            rig.ends[0].refuse()
            first = rig.client()  # served by the second, after the first refused
            served = rig.ends[1].accept()
            waiting = rig.client()
            assert len(rig.service.queue) == 1
            rig.service.serve_queue()  # it would not come back
            assert len(rig.service.queue) == 1
            reset(first)
            waiting.sendall(b"mine")
            served = rig.ends[1].accept()
            assert rig.receive(served, 4) == b"mine"

    def test_one_that_may_not_take_a_place_leaves_it_to_the_next(self):
        """Who waits for another backend does not stand in the way of who can be served."""
        with rigged(backends=2, limits={"per_backend": 1, "queue": 2}) as rig:
            rig.ends[0].refuse()
            rig.client()
            rig.ends[1].accept()
            rig.client()  # has tried the first, waits for the second
            rig.ends[0].listen()
            third = rig.client()
            third.sendall(b"mine")
            assert rig.receive(rig.ends[0].accept(), 4) == b"mine"

    def test_a_place_that_the_selection_does_not_know_yet(self):
        """A backend that is usable but not selected is waited for, and nothing spins: the next selection serves."""
        with rigged(backends=2, limits={"per_backend": 1, "queue": 2}) as rig:
            rig.select(down=("b1",))
            rig.client()
            rig.ends[0].accept()
            waiting = rig.client()
            rig.backend(1).usable = True  # as in the middle of an update
            rig.service.serve_queue()  # it would not come back
            assert len(rig.service.queue) == 1
            rig.select()
            waiting.sendall(b"mine")
            assert rig.receive(rig.ends[1].accept(), 4) == b"mine"

    def test_a_failed_dial_leaves_its_place_to_who_waits(self):
        """Whose dial takes too long goes elsewhere, and the place at that backend is the next one's."""
        options = {"limits": {"per_backend": 1, "queue": 2}, "timeouts": {"connect": "1s"}}
        with rigged(backends=2, **options) as rig:
            filler = clog(rig)
            rig.client()  # waits for the first backend
            second = rig.client()
            rig.ends[1].accept()
            rig.client()  # waits for a place
            assert (len(rig.service.queue), rig.backend(0).active) == (1, 1)
            rig.pass_time(1.1)
            assert (len(rig.service.queue), rig.backend(0).active) == (
                1,
                1,
            )  # the one has gone, the other has come
            assert [flow.tried for flow in rig.service.flows].count((rig.backend(0),)) == 1
            unclog(rig, filler)
            second.close()

    @pytest.mark.parametrize("timeout", ["5s", "0s"])
    def test_a_drain_that_is_taken_back(self, timeout):
        """Who waits while its service is drained and comes back waits on, for as long as `queue_timeout` says."""
        limits = {"connections": 1, "queue": 1, "queue_timeout": timeout}
        with rigged(limits=limits) as rig:
            rig.client()
            rig.client()
            (waiting,) = [flow for flow in rig.service.flows if flow.waiting is rig.service.queue_place]
            waiting.deadline = rig.reactor.now + 1.0
            rig.service.deadlines.schedule(waiting)
            rig.pass_time(0.5)
            waiting.deadline = 0.0
            rig.service.deadlines.schedule(waiting)
            rig.pass_time(4.4)
            assert rig.reasons == []
            rig.pass_time(0.2)
            assert rig.reasons == (["queue_timeout"] if timeout != "0s" else [])

    def test_nobody_waits_for_nothing(self):
        """When the last usable backend goes, those who wait are closed at once."""
        with rigged(limits={"per_backend": 1, "queue": 2}) as rig:
            rig.client()
            waiting = rig.client()
            rig.select(down=("b0",))
            assert waiting.recv(1) == b""
            assert rig.reasons == ["no_backend"]

    def test_a_long_queue_for_nothing(self):
        """However many wait when the last usable backend goes, all are closed, and no stack grows with them."""
        with rigged(limits={"per_backend": 1, "queue": 600}) as rig:
            rig.client()
            for _ in range(500):
                rig.client()
            rig.select(down=("b0",))
            assert rig.reasons == ["no_backend"] * 500

    def test_an_event_that_was_meant_for_somebody_else(self):
        """A hang-up that is reported for a descriptor's former owner does not end the client who has it now."""
        with rigged(limits={"connections": 1, "queue": 2}) as rig:
            rig.client()
            rig.client()
            (waiting,) = [flow for flow in rig.service.flows if flow.server is None]
            waiting.on_event(select.EPOLLHUP | select.EPOLLERR)
            assert not rig.reasons


class TestAbandoned:
    """`limits.queue_abandoned`: whether a FIN that comes while a client waits means that it has left."""

    LIMITS = {"per_backend": 1, "queue": 9}  # noqa: RUF012 - nobody changes it

    @pytest.mark.parametrize("sent", [b"", b"request"])
    def test_drop(self, sent):
        """Who has finished leaves the queue at once, whatever it had sent before, and the others move up."""
        with rigged(limits={**self.LIMITS, "queue_abandoned": "drop"}) as rig:
            first = rig.client()
            rig.ends[0].accept()
            leaving, staying = rig.client(), rig.client()
            leaving.sendall(sent)
            leaving.close()
            rig.until(lambda: rig.reasons == ["abandoned"])
            assert len(rig.service.queue) == 1
            reset(first)
            staying.sendall(b"mine")
            served = rig.ends[0].accept()
            assert rig.receive(served, 4) == b"mine"
            assert rig.ends[0].nobody()

    def test_keep(self):
        """By default a FIN is a half-close: the request reaches a backend in its turn, and the answer the client."""
        with rigged(limits=self.LIMITS) as rig:
            first = rig.client()
            rig.ends[0].accept()
            waiting = rig.client()
            waiting.sendall(b"request")
            waiting.shutdown(socket.SHUT_WR)
            rig.pass_time(1.0)
            assert len(rig.service.queue) == 1
            reset(first)
            served = rig.ends[0].accept()
            assert rig.receive_end(served) == b"request"
            served.sendall(b"answer")
            served.close()
            assert rig.receive_end(waiting) == b"answer"

    def test_in_the_moment_of_its_turn(self):
        """A place that comes free in the same moment as the FIN goes to the next one."""
        with rigged(limits={**self.LIMITS, "queue_abandoned": "drop"}) as rig:
            first = rig.client()
            rig.ends[0].accept()
            leaving, staying = rig.client(), rig.client()
            (served,) = [flow for flow in rig.service.flows if flow.server is not None]
            leaving.shutdown(socket.SHUT_WR)  # nobody has looked yet
            served.end(CloseReason.DRAIN_TIMEOUT)
            assert rig.reasons == ["drain_timeout", "abandoned"]
            staying.sendall(b"mine")
            assert rig.receive(rig.ends[0].accept(), 4) == b"mine"
            first.close()

    @pytest.mark.parametrize("choice", ["drop", "keep"])
    def test_during_a_dial(self, choice):
        """Who waits for a handshake waits, too; with `drop` its place is free at once."""
        with rigged(limits={"queue_abandoned": choice}) as rig:
            filler = clog(rig)
            client = rig.client()
            client.sendall(b"request")
            client.shutdown(socket.SHUT_WR)
            rig.pass_time(0.5)
            assert rig.reasons == (["abandoned"] if choice == "drop" else [])
            assert rig.backend().active == (0 if choice == "drop" else 1)
            unclog(rig, filler)
            reset(client)

    def test_a_change_concerns_those_who_wait(self):
        """It changes live, in both directions, also for who finished before."""
        with rigged(limits=self.LIMITS) as rig:
            rig.client()
            rig.ends[0].accept()
            first, second = rig.client(), rig.client()
            first.shutdown(socket.SHUT_WR)
            rig.settle()
            rig.configure(limits={**self.LIMITS, "queue_abandoned": "drop"})
            rig.until(lambda: rig.reasons == ["abandoned"])
            rig.configure(limits=self.LIMITS)
            second.shutdown(socket.SHUT_WR)
            rig.pass_time(0.5)
            assert rig.reasons == ["abandoned"]

    def test_a_relay_is_not_concerned(self):
        """Once there is a backend, a FIN is a half-close as ever."""
        with rigged(limits={**self.LIMITS, "queue_abandoned": "drop"}) as rig:
            client = rig.client()
            served = rig.ends[0].accept()
            client.sendall(b"request")
            client.shutdown(socket.SHUT_WR)
            assert rig.receive_end(served) == b"request"
            served.sendall(b"answer")
            served.close()
            assert rig.receive_end(client) == b"answer"


class TestNoBackend:
    """Clients for whom there is no backend."""

    def test_closed_without_a_byte(self):
        """With nobody usable, a client is closed at once."""
        with rigged() as rig:
            rig.select(down=("b0",))
            assert rig.client().recv(1) == b""
            assert rig.reasons == ["no_backend"]
            rig.check_accounts()


class TestRedial:
    """A pooled connection that turns out dead before anything was sent is replaced, and the client notices nothing."""

    @pytest.fixture
    def rig(self):
        """One backend with one pooled connection."""
        with rigged(pool={"mode": "preconnect", "min_idle": 1}) as rig:
            yield rig

    def test_dead_before_the_clients_first_byte(self, rig):
        """The client gets a fresh connection, even if the dead one had been handed over already."""
        pooled = rig.ends[0].accept()
        client = rig.client()
        rig.ends[0].accept()  # the pool's next one
        pooled.close()
        fresh = rig.ends[0].accept()
        client.sendall(b"hello")
        assert rig.receive(fresh, 5) == b"hello"
        fresh.sendall(b"world")
        assert rig.receive(client, 5) == b"world"
        assert rig.failures == []
        client.close()
        fresh.close()
        rig.until(lambda: not rig.service.flows)
        rig.check_accounts()

    def test_the_client_speaks_while_it_is_replaced(self, rig):
        """What a client sends during the new dial waits for it: no byte is lost, and no reset is seen."""
        pooled = rig.ends[0].accept()
        client = rig.client()
        rig.ends[0].accept()
        filler = clog(rig)
        pooled.close()
        rig.until(lambda: next(iter(rig.service.flows)).waiting is not None, "a dial that waits")
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert rig.silent(client)
        unclog(rig, filler)
        fresh = rig.ends[0].accept()
        assert rig.receive_end(fresh) == b"hello"
        fresh.sendall(b"world")
        fresh.close()
        assert rig.receive_end(client) == b"world"
        rig.settle()
        assert rig.reasons == ["client_closed"]
        rig.check_accounts()

    def test_the_client_leaves_while_it_is_replaced(self, rig):
        """A client that resets during the new dial ends at once, and so does the dial."""
        pooled = rig.ends[0].accept()
        client = rig.client()
        rig.ends[0].accept()
        clog(rig)
        pooled.close()
        rig.until(lambda: next(iter(rig.service.flows)).waiting is not None, "a dial that waits")
        reset(client)
        rig.until(lambda: not rig.service.flows)
        assert rig.reasons == ["client_gone"]
        rig.check_accounts()

    def test_the_clients_fin_before_it_is_replaced(self, rig):
        """A client that has finished without a byte is still given a connection, and its FIN."""
        pooled = rig.ends[0].accept()
        client = rig.client()
        rig.ends[0].accept()
        client.shutdown(socket.SHUT_WR)
        assert rig.receive_end(pooled) == b""
        pooled.close()
        fresh = rig.ends[0].accept()
        assert rig.receive_end(fresh) == b""
        fresh.sendall(b"bye")
        fresh.close()
        assert rig.receive_end(client) == b"bye"

    def test_not_after_the_clients_first_byte(self, rig):
        """Once a byte was sent on it, its end is the client's: rule 5."""
        pooled = rig.ends[0].accept()
        client = rig.client()
        rig.ends[0].accept()
        client.sendall(b"hello")
        assert rig.receive(pooled, 5) == b"hello"
        pooled.close()
        assert rig.receive_end(client) == b""
        assert rig.ends[0].nobody()

    def test_not_after_a_greeting(self, rig):
        """A pooled connection that has spoken was alive: its end is the client's."""
        pooled = rig.ends[0].accept()
        pooled.sendall(b"220 hello")
        client = rig.client()
        rig.ends[0].accept()
        pooled.close()
        assert rig.receive_end(client) == b"220 hello"
        assert rig.ends[0].nobody()

    def test_a_bad_replacement_is_a_failed_attempt(self):
        """If the new dial fails, another backend is tried."""
        with rigged(backends=2, pool={"mode": "preconnect", "min_idle": 1}) as rig:
            pooled = [end.accept() for end in rig.ends]
            client = rig.client()
            rig.ends[0].accept()
            rig.ends[0].refuse()
            pooled[0].close()
            client.sendall(b"hello")
            assert rig.receive(pooled[1], 5) == b"hello"
            assert rig.failures == [("b0", "connection refused")]


class FullReactor(Reactor):
    """A reactor in whose epoll there is no room but for the first: the listener."""

    def watch(self, fd, handler, events):
        """Refuse it."""
        if self.handlers:
            raise OSError(errno.ENOSPC, "full")
        super().watch(fd, handler, events)


def test_an_epoll_that_is_full_leaves_nothing_behind():
    """A client for which there is no room in the epoll is closed, and counted as what it is."""
    with rigged(reactor=FullReactor) as rig:
        with pytest.raises(OSError, match="full"):
            rig.client()
        assert rig.reasons == ["local_error"]
        rig.check_accounts()
