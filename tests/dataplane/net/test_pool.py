"""Pooled backend connections: what may be in the pool, who gets one, and when each is closed."""

from __future__ import annotations

import socket
from functools import partial

import pytest

from dataplane.core.reasons import DiscardCause
from tests.dataplane.net.rig import rigged
from tests.support.backends import payload
from tests.support.clients import reset

DATA = payload(30_000_000)


def preconnect(**pool):
    """Run a rig in mode `preconnect`, with nothing that grows old by itself."""
    return rigged(pool={"mode": "preconnect", "idle_timeout": "0s", "max_age": "0s", **pool})


def reuse(backends=1, limits=None, **pool):
    """Run a rig in mode `reuse`, with nothing that grows old by itself."""
    options = {"mode": "reuse", "idle_timeout": "0s", "max_age": "0s", **pool}
    return rigged(backends=backends, pool=options, limits=limits or {})


def discarded(rig):
    """Return the counts of discarded connections by cause, those above zero."""
    totals = rig.backend().totals.discarded
    return {cause.value: count for cause, count in totals.items() if count}


def exchange(rig, client, server, question=b"question", answer=b"answer"):
    """Let a client ask and be answered."""
    client.sendall(question)
    assert rig.receive(server, len(question)) == question
    server.sendall(answer)
    assert rig.receive(client, len(answer)) == answer


def leave(rig, client):
    """Let a client end with a FIN, and wait until its flow is over or half-closed."""
    client.shutdown(socket.SHUT_WR)
    rig.settle()


class TestPreconnect:
    """A connection serves one client, and never carried a byte before."""

    def test_a_greeting_is_delivered_once(self):
        """What the backend says first waits for its one client, unread."""
        with preconnect(min_idle=2) as rig:
            expected, got = set(), []
            for number in range(6):
                while not rig.ends[0].nobody():
                    greeting = b"220 ready %d\n" % len(expected)
                    expected.add(greeting)
                    rig.ends[0].accept().sendall(greeting)
                    rig.settle()
                got.append(rig.receive(rig.client(), 12))
                assert len(set(got)) == number + 1
                assert set(got) <= expected
            assert rig.backend().totals.hits == 6
            assert discarded(rig) == {}

    def test_one_client_for_each(self):
        """A connection that served a client is closed after it, and never pooled."""
        with preconnect(min_idle=1) as rig:
            server, client = rig.ends[0].accept(), rig.client()
            exchange(rig, client, server)
            leave(rig, client)
            assert rig.receive_end(server) == b""
            server.close()
            rig.until(lambda: not rig.service.flows)
            spare = rig.ends[0].accept()
            exchange(rig, rig.client(), spare)

    def test_a_dead_one_is_never_handed_over(self):
        """A pooled connection that the backend closed is replaced before a client sees it."""
        for end in ("fin", "reset"):
            with preconnect(min_idle=1) as rig:
                dead = rig.ends[0].accept()
                {"fin": dead.close, "reset": partial(reset, dead)}[end]()
                client = rig.client()
                exchange(rig, client, rig.ends[0].accept())
                assert discarded(rig) == {"eof": 1}
                assert rig.backend().totals.misses == 1

    def test_a_greeting_before_the_end_does_not_save_it(self):
        """A connection that greeted and then closed is dead, too."""
        with preconnect(min_idle=1) as rig:
            dead = rig.ends[0].accept()
            dead.sendall(b"220 ready\n")
            rig.settle()
            dead.close()
            rig.settle()
            assert discarded(rig) == {"eof": 1}

    @pytest.mark.parametrize(
        ("age", "after_s", "served"),
        [("1s", 0.9, True), ("1s", 1.1, False), ("5s", 4.9, True), ("0s", 60, True)],
    )
    @pytest.mark.parametrize("greets_after_s", [0, 0.5])
    def test_a_greeting_is_for_a_while(self, age, after_s, served, greets_after_s):
        """A server that has greeted waits for a login since its accept: what is older than `greeting_age` is replaced."""
        with preconnect(min_idle=1, greeting_age=age) as rig:
            first = rig.ends[0].accept()
            rig.pass_time(greets_after_s)
            first.sendall(b"220 old\n")
            rig.pass_time(after_s - greets_after_s)
            client = rig.client()
            if not served:
                rig.ends[0].accept().sendall(b"220 new\n")
                assert rig.receive_end(first) == b"", "a FIN: no reset for what nobody has read"
            assert rig.receive(client, 8) == (b"220 old\n" if served else b"220 new\n")
            assert discarded(rig) == ({} if served else {"greeted": 1})
            assert (rig.backend().totals.hits, rig.backend().totals.misses) == (served, not served)
            assert rig.failures == []

    def test_an_old_greeting_is_not_handed_over(self):
        """Also one of which no event was taken yet, and no timer: the hand-over looks itself."""
        with preconnect(min_idle=1) as rig:
            first = rig.ends[0].accept()
            rig.clock.advance(2.0)
            rig.reactor.clock()
            first.sendall(b"220 old\n")
            client = rig.client()
            rig.ends[0].accept().sendall(b"220 new\n")
            assert rig.receive(client, 8) == b"220 new\n"
            assert discarded(rig) == {"greeted": 1}

    def test_without_clients_a_server_that_greets_is_left_alone(self):
        """No dial is made only to grow too old; `min_idle` asks again every few minutes whether there is a greeting still."""
        with preconnect(min_idle=2) as rig:
            for _ in range(2):
                rig.ends[0].accept().sendall(b"220 ready\n")
            rig.pass_time(2)
            assert discarded(rig) == {"greeted": 2}
            rig.pass_time(250)
            assert rig.ends[0].nobody()
            rig.pass_time(60)
            for _ in range(2):
                rig.ends[0].accept()
            rig.pass_time(60)
            assert len(rig.backend().pool) == 2, "it greets no more, and min_idle counts again"

    @pytest.mark.parametrize(("every_s", "ready"), [(0.2, True), (3.0, False)])
    def test_a_server_that_greets_is_dialled_as_far_as_demand_asks(self, every_s, ready):
        """Ahead only of clients that are likely to come before the greeting is too old."""
        with preconnect(idle_timeout="30s") as rig:
            totals, dials = rig.backend().totals, 0
            for _ in range(60):
                rig.pass_time(every_s)
                rig.client()
                rig.settle()
                while not rig.ends[0].nobody():
                    rig.ends[0].accept().sendall(b"220 ready\n")
                    dials += 1
                rig.settle()
            assert totals.hits > 40 if ready else totals.hits <= 1
            assert dials <= 60 + (10 if ready else 2)

    def test_a_quiet_backend_is_not_concerned(self):
        """Whoever waits for the client's first word has all the time that `idle_timeout` gives."""
        with preconnect(min_idle=1, idle_timeout="60s") as rig:
            server = rig.ends[0].accept()
            rig.pass_time(50)
            exchange(rig, rig.client(), server)
            assert discarded(rig) == {}

    def test_shorter_times_count_at_once(self):
        """A connection whose time is shortened below its age is closed, and one that will be is closed then."""
        with preconnect(min_idle=1, idle_timeout="10m") as rig:
            server = rig.ends[0].accept()
            rig.pass_time(1)
            rig.configure(pool={"mode": "preconnect", "idle_timeout": "3s"})
            rig.pass_time(1.9)
            assert rig.silent(server)
            rig.pass_time(0.2)
            assert rig.receive_end(server) == b""
            assert discarded(rig) == {"idle": 1}

    def test_nothing_spins(self):
        """A greeting that waits for hours reports no event again and again."""
        with preconnect(min_idle=1) as rig:
            rig.ends[0].accept().sendall(b"220 ready\n")
            rig.settle()
            assert not rig.reactor.epoll.wait(1)

    def test_min_idle_is_held(self):
        """As many as `min_idle` wait at any time: after a client, after a death, after old age."""
        with preconnect(min_idle=3, max_age="10s") as rig:
            pool = rig.backend().pool
            rig.until(lambda: len(pool) == 3)
            rig.client()
            rig.until(lambda: len(pool) == 3)
            rig.ends[0].accept()  # the client's
            rig.ends[0].accept().close()
            rig.pass_time(2)
            rig.until(lambda: len(pool) == 3)
            rig.pass_time(11)
            rig.until(lambda: len(pool) == 3)
            assert discarded(rig) == {"eof": 1, "age": 3}

    def test_a_crowd_that_dies_at_once_costs_one_pause(self):
        """When a backend restarts, all idle connections end together: the pool is full again after one second."""
        with preconnect(min_idle=8) as rig:
            pool = rig.backend().pool
            servers = [rig.ends[0].accept() for _ in range(8)]
            for server in servers:
                server.close()
            rig.until(lambda: not len(pool))
            rig.pass_time(1.2)
            rig.until(lambda: len(pool) == 8)

    def test_patience_grows_while_dials_fail(self):
        """A backend that refuses is asked after 1 s, 2 s, 4 s, however many connections are missing."""
        with preconnect(min_idle=8) as rig:
            pool = rig.backend().pool
            rig.ends[0].refuse()
            for connection in [rig.ends[0].connections.pop() for _ in rig.ends[0].connections]:
                connection.close()
            rig.backend().pool.clear(DiscardCause.CHANGED)
            pool.refiller.restock()
            for pause in (1, 2, 4):
                assert pool.refiller.retry_s == pause
                rig.pass_time(pause + 0.1)
            rig.ends[0].listen()
            rig.pass_time(8.1)
            rig.until(lambda: len(pool) == 8)

    def test_it_grows_with_demand_and_shrinks_without(self):
        """The pool follows the arrival rate between `min_idle` and `max_idle`."""
        with preconnect(max_idle=4, idle_timeout="30s") as rig:
            pool = rig.backend().pool
            assert len(pool) == 0
            clients = []
            for _ in range(30):
                rig.pass_time(0.1)
                clients.append(rig.client())
            rig.until(lambda: len(pool))
            assert len(pool) <= 4
            for client in clients:
                client.close()
            rig.pass_time(200)
            assert len(pool) == 0
            assert discarded(rig).keys() == {"idle"}

    def test_under_load_it_dials_in_batches(self):
        """With 5,000 clients a second the pool falls to half before it dials, and then dials all that is missing."""
        with preconnect(max_idle=32) as rig:
            pool, now = rig.backend().pool, rig.reactor.now
            for number in range(150_000):
                pool.goal.demand.arrived(now + number / 5000)
            rig.pass_time(30)
            pool.refiller.restock()
            rig.until(lambda: len(pool) == pool.goal.count)
            goal = len(pool)
            assert goal >= 12
            levels = []
            for _ in range(goal):
                rig.client()
                levels.append(len(pool))
            assert min(levels) == goal - pool.goal.slack
            assert levels[: pool.goal.slack + 1] == [*range(goal - 1, goal - 1 - pool.goal.slack, -1), goal]

    def test_max_idle(self):
        """`max_idle` bounds it whatever the demand; lowering it closes the surplus."""
        with preconnect(min_idle=4, max_idle=4) as rig:
            pool = rig.backend().pool
            rig.until(lambda: len(pool) == 4)
            rig.configure(pool={"mode": "preconnect", "min_idle": 0, "max_idle": 1, "idle_timeout": "0s"})
            assert len(pool) == 1
            assert discarded(rig) == {"surplus": 3}

    @pytest.mark.parametrize(("option", "cause"), [("idle_timeout", "idle"), ("max_age", "age")])
    def test_old_ones_are_closed(self, option, cause):
        """`idle_timeout` and `max_age` end unused connections with a FIN."""
        with preconnect(min_idle=1, **{option: "10s"}) as rig:
            server = rig.ends[0].accept()
            rig.pass_time(9.9)
            assert rig.silent(server)
            rig.pass_time(0.2)
            assert rig.receive_end(server) == b""
            assert discarded(rig) == {cause: 1}

    def test_a_backend_that_goes_loses_them_at_once(self):
        """Down, drained, disabled or removed: its idle connections are closed, and no new one is dialled."""
        with preconnect(min_idle=2) as rig:
            servers = [rig.ends[0].accept() for _ in range(2)]
            rig.backend().usable = False
            rig.backend().pool.clear(DiscardCause.UNUSABLE)
            rig.backend().pool.refiller.restock()
            assert all(rig.receive_end(server) == b"" for server in servers)
            rig.pass_time(60)
            assert rig.ends[0].nobody()
            assert discarded(rig) == {"unusable": 2}

    def test_an_update_leaves_them_alone(self):
        """Options that do not concern the pool leave its connections where they are."""
        with preconnect(min_idle=2) as rig:
            servers = [rig.ends[0].accept() for _ in range(2)]
            rig.configure(
                pool={"mode": "preconnect", "min_idle": 2, "idle_timeout": "0s", "max_age": "0s"},
                timeouts={"idle": "7s"},
                limits={"connections": 9},
                mode="leastconn",
            )
            assert all(rig.silent(server) for server in servers)
            assert rig.ends[0].nobody()
            assert discarded(rig) == {}

    def test_another_mode_begins_anew(self):
        """A change of the pool's mode closes what is in it."""
        with preconnect(min_idle=1) as rig:
            server = rig.ends[0].accept()
            rig.configure(pool={"mode": "off"})
            assert rig.receive_end(server) == b""
            assert discarded(rig) == {"changed": 1}


class TestPerBackend:
    """Idle connections count towards `limits.per_backend`, and a client displaces one."""

    def test_the_sum_is_bounded(self):
        """Clients, idle connections and dials together are never more than the limit."""
        with rigged(
            pool={"mode": "preconnect", "min_idle": 3, "idle_timeout": "0s", "max_age": "0s"},
            limits={"per_backend": 3},
        ) as rig:
            backend = rig.backend()
            rig.until(lambda: len(backend.pool) == 3)
            for number in range(1, 4):
                rig.client()
                rig.settle()
                assert backend.active == number
                assert backend.active + backend.pool.held <= 3
            assert rig.client().recv(1) == b""
            assert rig.reasons == ["limit_per_backend"]

    def test_a_client_displaces_a_dial(self):
        """What the pool is still dialling gives way to the client, who dials himself."""
        options = {"mode": "preconnect", "idle_timeout": "0s", "max_age": "0s"}
        with rigged(pool=options, limits={"per_backend": 1}) as rig:
            rig.ends[0].refuse()
            rig.ends[0].listen(backlog=0)
            filler = rig.keep(socket.create_connection(("127.0.0.1", rig.ends[0].port), timeout=5))
            rig.configure(pool={**options, "min_idle": 1}, limits={"per_backend": 1})
            backend = rig.backend()
            assert backend.pool.held == 1, "a dial that waits"
            rig.client()
            assert (backend.active, backend.pool.held) == (1, 0)
            filler.close()

    def test_a_client_takes_the_place_of_an_idle_one(self):
        """Clients come first: with the limit reached, nothing idle is left."""
        with reuse(min_idle=0, max_idle=2, limits={"per_backend": 2}) as rig:
            backend = rig.backend()
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            leave(rig, client)
            assert len(backend.pool) == 1
            rig.client()
            rig.client()
            assert (backend.active, backend.pool.held) == (2, 0)


class TestReuse:
    """A connection goes back only when the exchange on it is over beyond doubt."""

    def test_the_next_client_gets_it(self):
        """A client that was answered and leaves with a FIN hands its connection on."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            leave(rig, client)
            assert client.recv(1) == b""
            assert rig.silent(server), "the backend notices nothing"
            second = rig.client()
            exchange(rig, second, server, b"again", b"and again")
            assert rig.ends[0].nobody()
            assert rig.reasons == ["client_closed"]
            assert (rig.backend().totals.hits, rig.backend().totals.misses) == (1, 1)

    def test_the_next_in_the_queue_gets_it(self):
        """A connection that comes free goes to who waits for a place: the backend never sees one more than the limit."""
        with reuse(limits={"per_backend": 1, "queue": 5}) as rig:
            clients = [rig.client() for _ in range(3)]
            server = rig.ends[0].accept()
            for client in clients:
                exchange(rig, client, server)
                leave(rig, client)
                assert rig.ends[0].nobody()
            assert rig.reasons == ["client_closed"] * 3
            assert discarded(rig) == {}

    def test_the_last_one_in_is_the_first_one_out(self):
        """The most recently used connection is used next, so that the others may grow old."""
        with reuse() as rig:
            clients = [rig.client() for _ in range(3)]
            servers = [rig.ends[0].accept() for _ in range(3)]
            for client, server in zip(clients, servers, strict=True):
                exchange(rig, client, server)
                leave(rig, client)
            exchange(rig, rig.client(), servers[-1])

    def test_a_request_without_an_answer(self):
        """A FIN behind a request that nobody has answered is a half-close: the answer still comes, and no reuse."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            client.sendall(b"question")
            leave(rig, client)
            assert rig.receive_end(server) == b"question"
            server.sendall(b"late answer")
            server.close()
            assert rig.receive_end(client) == b"late answer"
            assert len(rig.backend().pool) == 0

    def test_a_request_that_is_not_through(self):
        """While some of the client's bytes are held back, the connection is not given away."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            sent = rig.fill(client, DATA)
            server.sendall(b"!")  # speaks last, without having read
            rig.settle()
            leave(rig, client)
            assert len(rig.backend().pool) == 0
            assert rig.receive_end(server) == DATA[:sent]

    def test_an_answer_that_is_not_read(self):
        """While some of the backend's bytes are held back for this client, no other client gets the connection."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            client.sendall(b"question")
            assert rig.receive(server, 8)
            sent = rig.fill(server, DATA)
            leave(rig, client)
            assert len(rig.backend().pool) == 0
            other = rig.client()
            assert rig.silent(other)
            exchange(rig, other, rig.ends[0].accept())
            server.shutdown(socket.SHUT_WR)
            assert rig.receive_end(client) == DATA[:sent], "it is still the first one's"

    def test_a_reset_client(self):
        """A client that resets does not hand its connection on."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            reset(client)
            rig.until(lambda: not rig.service.flows)
            assert len(rig.backend().pool) == 0
            with pytest.raises(ConnectionResetError):
                server.recv(1)

    def test_a_client_that_said_nothing(self):
        """Nobody spoke: there was no exchange that could be over, and the FIN is passed on."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            leave(rig, client)
            assert rig.receive_end(server) == b""

    def test_a_backend_that_has_finished(self):
        """After the backend's FIN there is nothing to hand on."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            client.sendall(b"question")
            assert rig.receive(server, 8)
            server.sendall(b"answer")
            server.shutdown(socket.SHUT_WR)
            assert rig.receive_end(client) == b"answer"
            leave(rig, client)
            assert len(rig.backend().pool) == 0
            assert rig.receive_end(server) == b""
            assert discarded(rig) == {}, "it never was in the pool"

    @pytest.mark.parametrize("late", ["byte", "fin", "reset"])
    def test_a_late_byte_discards_it(self, late):
        """Whatever comes from a backend on an idle connection is meant for nobody: the connection is closed."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            leave(rig, client)
            {"byte": lambda: server.sendall(b"x"), "fin": server.close, "reset": lambda: reset(server)}[
                late
            ]()
            rig.settle()
            assert len(rig.backend().pool) == 0
            assert discarded(rig) == {"unread" if late == "byte" else "eof": 1}

    def test_a_late_byte_at_the_moment_of_the_hand_over(self):
        """The pool looks once more: the next client never sees what was meant for the last one."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            leave(rig, client)
            server.sendall(b"secret")
            assert rig.backend().pool.take() is None  # no event was handled in between
            assert discarded(rig) == {"unread": 1}

    def test_a_full_pool(self):
        """Beyond `max_idle` a connection is closed."""
        with reuse(max_idle=1) as rig:
            clients = [rig.client() for _ in range(2)]
            servers = [rig.ends[0].accept() for _ in range(2)]
            for client, server in zip(clients, servers, strict=True):
                exchange(rig, client, server)
                leave(rig, client)
            assert len(rig.backend().pool) == 1
            assert rig.receive_end(servers[1]) == b""
            assert discarded(rig) == {"full": 1}

    def test_age_counts_from_the_dial(self):
        """`max_age` bounds a connection's whole life, not the time since its last client."""
        with reuse(max_age="10s") as rig:
            server = None
            for _ in range(3):
                client = rig.client()
                server = server or rig.ends[0].accept()
                exchange(rig, client, server)
                rig.pass_time(3)
                leave(rig, client)
            assert len(rig.backend().pool) == 1
            rig.pass_time(1.2)
            assert rig.receive_end(server) == b""
            assert discarded(rig) == {"age": 1}

    def test_a_connection_that_came_of_age_while_in_use(self):
        """A connection that is too old when its client leaves is closed."""
        with reuse(max_age="10s") as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            rig.pass_time(11)
            exchange(rig, client, server)
            leave(rig, client)
            assert rig.receive_end(server) == b""
            assert discarded(rig) == {"age": 1}

    def test_a_backend_that_is_not_wanted_any_more(self):
        """A drained backend's connections are closed when their clients leave."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            rig.backend().usable = False
            leave(rig, client)
            assert rig.receive_end(server) == b""
            assert discarded(rig) == {"unusable": 1}

    def test_min_idle_is_held(self):
        """Unasked bytes that discard idle connections leave the pool short only for a moment."""
        with reuse(min_idle=2) as rig:
            pool = rig.backend().pool
            for _ in range(2):
                rig.ends[0].accept().sendall(b"hello?")
            rig.until(lambda: not len(pool))
            rig.pass_time(1.2)
            rig.until(lambda: len(pool) == 2)

    def test_a_dead_one_is_replaced(self):
        """A connection that died between hand-over and the client's first byte is replaced unnoticed."""
        with reuse() as rig:
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            leave(rig, client)
            second = rig.client()
            server.close()
            rig.settle()
            exchange(rig, second, rig.ends[0].accept())
            leave(rig, second)
            assert rig.reasons == ["client_closed", "client_closed"]


class TestOff:
    """No pool: a dial for each client."""

    def test_off(self):
        """Nothing is dialled ahead, nothing kept, nothing counted."""
        with rigged(pool={"mode": "off", "min_idle": 5}) as rig:
            rig.pass_time(60)
            assert rig.ends[0].nobody()
            client = rig.client()
            server = rig.ends[0].accept()
            exchange(rig, client, server)
            leave(rig, client)
            assert rig.receive_end(server) == b""
            assert (rig.backend().totals.hits, rig.backend().totals.misses) == (0, 0)
