"""The relay's rules one by one, on real sockets and a clock of the test's own."""

from __future__ import annotations

import errno
import socket

import pytest

from dataplane.core.outlier import Evidence
from dataplane.net.calls import BUFFER_BYTES
from tests.dataplane.net.descriptors import asked
from tests.dataplane.net.rig import rigged
from tests.support.backends import payload
from tests.support.clients import read_to_reset, reset

DATA = payload(30_000_000)


@pytest.fixture
def rig():
    """A service with one backend, and deadlines that are easy to tell apart."""
    with rigged(timeouts={"idle": "10s", "half_closed": "3s"}) as rig:
        yield rig


class TestEnds:
    """Rule 1: a FIN is a half-close, and two end the flow."""

    def test_the_clients_fin_leaves_the_answer_alone(self, rig):
        """After the client's FIN, the backend may answer as long as it likes to."""
        client, server = rig.client(), rig.ends[0].accept()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert rig.receive_end(server) == b"question"
        for piece in (b"one", b"two"):
            server.sendall(piece)
            assert rig.receive(client, 3) == piece
        assert rig.silent(client)
        server.close()
        assert rig.receive_end(client) == b""
        rig.settle()
        assert rig.reasons == ["client_closed"]
        rig.check_accounts()

    def test_the_backends_fin_leaves_the_request_alone(self, rig):
        """After the backend's FIN, the client may go on sending."""
        client, server = rig.client(), rig.ends[0].accept()
        server.sendall(b"bye")
        server.shutdown(socket.SHUT_WR)
        assert rig.receive_end(client) == b"bye"
        for piece in (b"one", b"two"):
            client.sendall(piece)
            assert rig.receive(server, 3) == piece
        assert rig.silent(server)
        client.close()
        assert rig.receive_end(server) == b""
        rig.settle()
        assert rig.reasons == ["backend_closed"]
        rig.check_accounts()

    @pytest.mark.parametrize("from_client", [True, False])
    def test_a_fin_waits_for_the_bytes_before_it(self, rig, from_client):
        """A FIN is passed on when all that was held back before it is written, and not earlier."""
        client, server = rig.client(), rig.ends[0].accept()
        sender, receiver = (client, server) if from_client else (server, client)
        size = rig.fill(sender, DATA)
        sender.shutdown(socket.SHUT_WR)
        rig.settle()
        assert rig.receive_end(receiver) == DATA[:size]
        receiver.shutdown(socket.SHUT_WR)
        assert rig.receive_end(sender) == b""
        rig.settle()
        rig.check_accounts()

    def test_a_unix_peer_that_closes(self, tmp_path):
        """A Unix socket reports a hang-up with its FIN, and the answer still goes through."""
        with socket.socket(socket.AF_UNIX) as far:
            far.bind(str(tmp_path / "far"))
            far.listen()
            with rigged(backends_=[{"address": f"unix:{tmp_path}/far", "id": "b0"}]) as rig:
                client = rig.client()
                server = far.accept()[0]
                server.sendall(DATA[:50_000])
                server.close()
                client.shutdown(socket.SHUT_WR)
                assert rig.receive_end(client) == DATA[:50_000]
                rig.settle()
                assert rig.reasons == ["client_closed"]
                rig.check_accounts()


class TestResets:
    """Rule 2: a reset is passed on as one, behind every byte that came before it."""

    def test_the_backends_reset_behind_a_slow_reader(self, rig):
        """A client that reads slowly, longer than any deadline, gets everything, and then the reset."""
        client, server = rig.client(), rig.ends[0].accept()
        sent = 0
        while sent < 300_000:
            sent += server.send(DATA[sent:300_000])
            rig.settle()
        rig.until(
            lambda: not asked(server.fileno()), "all of it to have arrived, for a reset takes back the rest"
        )
        reset(server)
        rig.pass_time(1)
        got = bytearray()
        while len(got) < sent:
            got += rig.receive(client, 20_000)
            rig.pass_time(1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert got == DATA[:sent]
        assert rig.reasons == ["backend_reset"]
        rig.check_accounts()

    def test_the_clients_reset(self, rig):
        """A backend that reads late gets everything, and then the reset."""
        client, server = rig.client(), rig.ends[0].accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(DATA[:100_000])
        rig.settle()
        reset(client)
        rig.settle()
        assert rig.receive(server, 100_000) == DATA[:100_000]
        rig.pass_time(0.1)
        with pytest.raises(ConnectionResetError):
            server.recv(1)
        rig.settle()
        assert rig.reasons == ["client_reset"]
        rig.check_accounts()

    @pytest.mark.parametrize("timeouts", [{"idle": "1s"}, {"lifetime": "1s"}])
    def test_a_truncated_stream_never_ends_cleanly(self, timeouts):
        """A client that does not take the rest before the deadline is reset, too: no clean end after missing data."""
        with rigged(timeouts=timeouts) as rig:
            client, server = rig.client(receive_buffer=4096), rig.ends[0].accept()
            sent = 0
            while (
                sent < 150_000
            ):  # more than the client's kernel takes, but not so much that we have to hold any
                sent += server.send(DATA[sent : sent + 10_000])
                rig.settle()
            (flow,) = rig.service.flows
            assert flow.client.pending is None
            reset(server)
            rig.settle()
            rig.pass_time(1.2)
            assert not rig.service.flows
            client.setblocking(True)
            assert DATA.startswith(read_to_reset(client))

    def test_a_client_that_is_gone_resets_the_backend(self, rig):
        """A client that half-closed and then left has nobody to answer: the backend learns it from a reset."""
        client, server = rig.client(), rig.ends[0].accept()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert rig.receive_end(server) == b"question"
        client.close()
        server.sendall(b"an answer")
        rig.until(lambda: not rig.service.flows)
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EPIPE, "a reset after our FIN"
        assert rig.reasons == ["client_reset"]
        rig.check_accounts()

    def test_a_reset_while_both_are_stuck(self, rig):
        """A client that resets while nothing moves in either direction ends the flow once, and is counted once."""
        client, server = rig.client(), rig.ends[0].accept()
        rig.fill(client, DATA)
        rig.fill(server, DATA)
        reset(server)
        rig.settle()
        reset(client)
        rig.until(lambda: not rig.service.flows)
        rig.settle()
        assert len(rig.reasons) == 1
        rig.check_accounts()

    def test_a_victim_that_leaves_first(self, rig):
        """A client that goes away while the last bytes before a backend's reset are on their way is counted once."""
        client, server = rig.client(receive_buffer=4096), rig.ends[0].accept()
        rig.fill(server, DATA)
        reset(server)
        (flow,) = rig.service.flows
        while flow.victim is None:
            rig.receive(client, 1024)  # what it has room for is less than what is still on its way
        reset(client)
        rig.until(lambda: not rig.service.flows)
        rig.settle()
        assert rig.reasons == ["backend_reset"]
        rig.check_accounts()


class TestAfterTheBackendsFin:
    """A reset after the backend's FIN concerns only the other direction."""

    def test_further_input_is_discarded(self, rig):
        """The client keeps everything, may write on and finish: it never sees the reset."""
        client, server = rig.client(), rig.ends[0].accept()
        client.sendall(b"question")
        assert rig.receive(server, 8) == b"question"
        server.sendall(DATA[:100_000])
        rig.settle()
        server.close()
        rig.settle()
        for _ in range(5):
            client.sendall(b"more")
            rig.settle()
        assert rig.receive_end(client) == DATA[:100_000]
        client.sendall(b"and more")
        rig.settle()
        client.shutdown(socket.SHUT_WR)
        rig.until(lambda: not rig.service.flows)
        assert client.recv(1) == b""
        assert rig.reasons == ["backend_closed"]
        rig.check_accounts()

    @pytest.mark.parametrize("first", ["client", "backend"])
    def test_fin_and_reset_before_anything_is_read(self, rig, first):
        """A reset that follows the FIN before we have looked is told by a write, or by a read: the end is clean."""
        client, server = rig.client(), rig.ends[0].accept()
        client.sendall(b"question")
        assert rig.receive(server, 8) == b"question"
        if first == "client":
            client.sendall(b"more")
        server.sendall(DATA[:50_000])
        server.shutdown(socket.SHUT_WR)
        reset(server)
        if first == "backend":
            client.sendall(b"more")
        assert rig.receive_end(client) == DATA[:50_000]
        client.shutdown(socket.SHUT_WR)
        rig.until(lambda: not rig.service.flows)
        rig.check_accounts()

    def test_the_half_closed_timeout_ends_it(self, rig):
        """A client that says nothing more after the backend's FIN is left after `timeouts.half_closed`."""
        client, server = rig.client(), rig.ends[0].accept()
        server.close()
        rig.pass_time(1.5)
        client.sendall(b"still here")
        rig.pass_time(2.5)
        assert rig.service.flows, "each byte begins the time anew"
        rig.pass_time(1)
        assert rig.reasons == ["half_closed_timeout"]
        rig.check_accounts()


class TestBackPressure:
    """Rule 3: while one side cannot be written, the other is not read."""

    @pytest.mark.parametrize("from_client", [True, False])
    def test_one_read_is_held_at_most(self, rig, from_client):
        """What does not fit stays in the sender's kernel; we hold one read's worth, and nothing while idle."""
        client, server = rig.client(), rig.ends[0].accept()
        sender, receiver = (client, server) if from_client else (server, client)
        size = rig.fill(sender, DATA)
        (flow,) = rig.service.flows
        near, far = (flow.client, flow.server) if from_client else (flow.server, flow.client)
        assert 0 < len(far.pending) <= BUFFER_BYTES
        assert near.received < size, "it was read on"
        assert not near.mask
        assert rig.receive(receiver, size) == DATA[:size]
        rig.settle()
        assert far.pending is None
        assert near.received == size

    def test_the_other_direction_goes_on(self, rig):
        """A client that does not read may still write, and the other way round."""
        client, server = rig.client(), rig.ends[0].accept()
        size = rig.fill(server, DATA)
        for _ in range(3):
            client.sendall(b"ping")
            assert rig.receive(server, 4) == b"ping"
        assert rig.receive(client, size) == DATA[:size]

    def test_nothing_spins_while_it_waits(self, rig):
        """A stuck flow, even with a peer that has hung up, reports no event again and again."""
        client, server = rig.client(), rig.ends[0].accept()
        rig.fill(server, DATA)
        reset(server)
        rig.settle()
        client.shutdown(socket.SHUT_WR)
        rig.settle()
        for _ in range(5):
            assert not rig.reactor.epoll.wait(1)


class TestDeadlines:
    """Each deadline ends the flow when it is over, and not before."""

    @pytest.mark.parametrize("speaker", ["client", "server"])
    def test_idle(self, rig, speaker):
        """`timeouts.idle` counts from the last byte, whoever sent it."""
        client, server = rig.client(), rig.ends[0].accept()
        sender, receiver = (client, server) if speaker == "client" else (server, client)
        for _ in range(3):
            rig.pass_time(9)
            sender.sendall(b"x")
            assert rig.receive(receiver, 1) == b"x"
        rig.pass_time(9.8)
        assert rig.service.flows
        rig.pass_time(0.4)
        assert rig.reasons == ["idle_timeout"]
        assert client.recv(1) == server.recv(1) == b""
        rig.check_accounts()

    def test_half_closed(self, rig):
        """After the backend's FIN `timeouts.half_closed` holds instead of `idle`, and counts from the last byte."""
        client, server = rig.client(), rig.ends[0].accept()
        rig.pass_time(8)
        server.shutdown(socket.SHUT_WR)
        assert rig.receive_end(client) == b""
        for _ in range(3):
            rig.pass_time(2.8)
            client.sendall(b"x")
            assert rig.receive(server, 1) == b"x"
        rig.pass_time(2.8)
        assert rig.service.flows
        rig.pass_time(0.4)
        assert rig.reasons == ["half_closed_timeout"]

    def test_a_slow_answer_is_not_idle(self, rig):
        """After the client's FIN the answer may begin late, and pause: only `idle` cuts it, which counts from the last byte."""
        client, server = rig.client(), rig.ends[0].accept()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert rig.receive_end(server) == b"question"
        for _ in range(3):
            rig.pass_time(9.5)
            server.sendall(b"x")
            assert rig.receive(client, 1) == b"x"
        rig.pass_time(9.5)
        server.close()
        assert rig.receive_end(client) == b""
        rig.settle()
        assert rig.reasons == ["client_closed"]

    def test_an_answer_that_never_comes_is_idle(self, rig):
        """A backend that ignores the client's FIN is left after `timeouts.idle`."""
        client, server = rig.client(), rig.ends[0].accept()
        client.shutdown(socket.SHUT_WR)
        assert rig.receive_end(server) == b""
        (flow,) = rig.service.flows
        rig.until(lambda: not asked(flow.server.fd), "the FIN to be acknowledged")
        rig.pass_time(9.8)
        assert rig.service.flows
        rig.pass_time(0.4)
        assert rig.reasons == ["idle_timeout"]

    def test_an_answer_takes_its_time_by_default(self):
        """35 seconds are nothing unusual, and cost no answer."""
        with rigged() as rig:
            client, server = rig.client(), rig.ends[0].accept()
            client.shutdown(socket.SHUT_WR)
            assert rig.receive_end(server) == b""
            rig.pass_time(35)
            server.sendall(b"answer")
            assert rig.receive(client, 6) == b"answer"

    def test_lifetime(self):
        """`timeouts.lifetime` ends a flow however busy it is."""
        with rigged(timeouts={"lifetime": "5s", "idle": "2s"}) as rig:
            client, server = rig.client(), rig.ends[0].accept()
            for _ in range(4):
                rig.pass_time(1.2)
                client.sendall(b"x")
                assert rig.receive(server, 1) == b"x"
            assert rig.service.flows
            rig.pass_time(0.3)
            assert rig.reasons == ["lifetime"]

    @pytest.mark.parametrize(("silent_s", "ends"), [(0.3, "reset"), (2.0, "clean"), (None, "clean")])
    @pytest.mark.parametrize("drained", [False, True])
    def test_in_the_middle_of_something(self, silent_s, ends, drained):
        """A deadline within a second of the last byte is no clean end for anybody; who rests gets one."""
        with rigged(timeouts={} if drained else {"lifetime": "5s"}) as rig:
            client, server = rig.client(), rig.ends[0].accept()
            (flow,) = rig.service.flows
            if drained:
                flow.deadline = rig.reactor.now + 5.0
                rig.service.deadlines.schedule(flow)
            rig.pass_time(5.0 - (silent_s or 0.0) - 0.1)
            if silent_s is not None:
                server.sendall(b"half of it")
                assert rig.receive(client, 10) == b"half of it"
            rig.pass_time((silent_s or 0.0) + 0.2)
            assert rig.reasons == ["drain_timeout" if drained else "lifetime"]
            for end in (client, server):
                if ends == "reset":
                    with pytest.raises(ConnectionResetError):
                        end.recv(1)
                else:
                    assert end.recv(1) == b""
            rig.check_accounts()

    def test_none(self):
        """Without deadlines a silent flow stays for ever."""
        with rigged(timeouts={"idle": "0s", "half_closed": "0s", "lifetime": "0s"}) as rig:
            client, server = rig.client(), rig.ends[0].accept()
            client.shutdown(socket.SHUT_WR)
            rig.pass_time(600)
            server.sendall(b"x")
            assert rig.receive(client, 1) == b"x"

    @pytest.mark.parametrize("finished", ["nobody", "client", "backend"])
    def test_a_slow_reader_is_not_idle(self, finished):
        """A client that takes what waits in our kernel is busy, even if so slowly that nothing passes through us."""
        with rigged(timeouts={"idle": "2s", "half_closed": "2s"}) as rig:
            client, server = rig.client(receive_buffer=131_072), rig.ends[0].accept()
            size = rig.fill(server, DATA)
            if finished == "client":
                client.shutdown(socket.SHUT_WR)
                assert rig.receive_end(server) == b""
            elif finished == "backend":
                server.shutdown(socket.SHUT_WR)
                rig.settle()
            read = 0
            while read < 1_200_000:  # less than makes our kernel ask us for more
                read += len(rig.receive(client, 100_000))
                rig.pass_time(0.5)
            assert read + len(rig.receive(client, size - read)) == size

    def test_a_stuck_flow_is_idle(self, rig):
        """A client that stops reading is cut after `timeouts.idle`, by a reset: something is missing."""
        client, server = rig.client(), rig.ends[0].accept()
        rig.pass_time(1)
        rig.fill(server, DATA)
        rig.pass_time(10.2)
        assert rig.reasons == ["idle_timeout"]
        client.setblocking(True)
        read_to_reset(client)


class TestAttempts:
    """Rule 5: another backend only before the first byte, and each at most once."""

    def test_dead_backends_are_tried_once_each(self):
        """A client whose first choices refuse is served by the next, and nobody is asked twice."""
        with rigged(backends=4) as rig:
            for end in rig.ends[:3]:
                end.refuse()
            for _ in range(3):
                client = rig.client()
                server = rig.ends[3].accept()
                client.sendall(b"hello")
                assert rig.receive(server, 5) == b"hello"
            failed = [backend for backend, _ in rig.failures]
            assert len(failed) <= 3 * 3
            for _, flow in rig.ended:
                assert len(set(flow.tried)) == len(flow.tried)
            assert rig.service.totals.retries == len(failed)

    def test_retries_bound_the_attempts(self):
        """With `retries` of 1, two backends are tried and no third."""
        with rigged(backends=4, retries=1) as rig:
            for end in rig.ends[:3]:
                end.refuse()
            client = rig.client()
            assert client.recv(1) == b""
            assert rig.reasons == ["connect_failed"]
            assert len(rig.failures) == 2
            rig.check_accounts()

    def test_never_after_the_first_byte(self):
        """A backend that resets after the client's first byte costs the client its connection, not a second try."""
        with rigged(backends=2) as rig:
            client, server = rig.client(), rig.ends[0].accept()
            client.sendall(b"once")
            assert rig.receive(server, 4) == b"once"
            reset(server)
            with pytest.raises(ConnectionResetError):
                rig.receive_end(client)
            assert rig.ends[1].nobody()
            assert rig.failures == [("b0", "reset before the first byte")]
            assert rig.reasons == ["backend_reset"]

    def test_a_fresh_connection_that_is_reset_is_passed_on(self):
        """No second try for a backend that accepted, even if no byte was sent yet."""
        with rigged(backends=2) as rig:
            client = rig.client()
            reset(rig.ends[0].accept())
            with pytest.raises(ConnectionResetError):
                rig.receive_end(client)
            assert rig.ends[1].nobody()
            assert rig.reasons == ["backend_reset"]

    @pytest.mark.parametrize(
        ("cause", "evidence"),
        [
            ("nothing", Evidence.UNPROVOKED_RESET),
            ("a byte", Evidence.RESET),
            ("a fin", Evidence.RESET),
            ("silence", Evidence.RESET),
            ("an address", Evidence.RESET),
        ],
    )
    def test_who_may_have_caused_a_reset(self, cause, evidence):
        """A client that has sent anything, that a PROXY header has named, or that was waited for, may have."""
        options = {"proxy_protocol": {"send": "v2"}} if cause == "an address" else {}
        with rigged(**options) as rig:
            client, server = rig.client(), rig.ends[0].accept()
            if cause == "a byte":
                client.sendall(b"x")
                assert rig.receive(server, 1) == b"x"
            elif cause == "a fin":
                client.shutdown(socket.SHUT_WR)
                rig.receive_end(server)
            elif cause == "silence":
                rig.pass_time(2.0)
            reset(server)
            with pytest.raises(ConnectionResetError):
                rig.receive_end(client)
            assert rig.evidence == [evidence]

    def test_a_reset_after_the_first_backend_byte_is_no_failure(self):
        """Passive health counts resets before the first byte only."""
        with rigged() as rig:
            client, server = rig.client(), rig.ends[0].accept()
            server.sendall(b"x")
            assert rig.receive(client, 1) == b"x"
            reset(server)
            with pytest.raises(ConnectionResetError):
                rig.receive_end(client)
            assert rig.failures == []

    def test_a_byte_ends_a_streak(self):
        """A backend with failures that speaks again is reported once."""
        with rigged() as rig:
            rig.backend().failures = 2
            client, server = rig.client(), rig.ends[0].accept()
            server.sendall(b"xy")
            assert rig.receive(client, 2) == b"xy"
            server.sendall(b"z")
            assert rig.receive(client, 1) == b"z"
            assert rig.spoke == ["b0"]

    def test_a_client_that_leaves_during_the_dial(self):
        """A client that resets while its backend is being dialled ends at once, and so does the dial."""
        with rigged() as rig:
            rig.ends[0].refuse()
            rig.ends[0].listen(backlog=0)
            rig.keep(socket.create_connection(("127.0.0.1", rig.ends[0].port), timeout=5))
            client = rig.client()
            (flow,) = rig.service.flows
            assert flow.server is None, "the dial waits for a place in the backend's queue"
            reset(client)
            rig.until(lambda: not rig.service.flows)
            assert rig.reasons == ["client_gone"]
            rig.check_accounts()

    def test_connect_timeout(self):
        """A backend that does not answer the handshake within `timeouts.connect` is left for the next."""
        with rigged(timeouts={"connect": "1s"}) as rig:
            rig.ends[0].refuse()
            rig.ends[0].listen(backlog=0)
            rig.keep(socket.create_connection(("127.0.0.1", rig.ends[0].port), timeout=5))
            client = rig.client()
            rig.pass_time(0.9)
            assert rig.service.flows
            rig.pass_time(0.2)
            assert client.recv(1) == b""
            assert rig.reasons == ["connect_timeout"]
            assert rig.failures == [("b0", "connect timeout")]

    def test_local_errors_count_against_nobody(self):
        """Rule 6: when this machine has no port or descriptor left, no backend is blamed."""
        with rigged(backends=2) as rig:
            rig.reactor.dial_ceiling = 0
            client = rig.client()
            assert client.recv(1) == b""
            assert rig.failures == []
            assert rig.reasons == ["local_error"]
            assert rig.local_errors
            assert all(not one.totals.connect_failures for one in rig.service.backends.values())
