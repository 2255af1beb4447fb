"""The relay's rules with TLS on one side or on both: in each mode, and with each version."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from dataplane.net.calls import BUFFER_BYTES
from dataplane.net.tls import Channel
from dataplane.net.tls_leg import MOST_PENDING_BYTES
from tests.dataplane.net.descriptors import asked
from tests.dataplane.net.tls_rig import MODES, TlsPeer, TlsRig, tls_rigged
from tests.support.backends import payload
from tests.support.clients import read_to_end, reset
from tests.support.tls import CertificateAuthority

DATA = payload(30_000_000)
SEALED_BYTES = 1.02
"""How much longer what is sealed is than what is in it, at most."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom all here trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(
    params=[(mode, version) for mode in MODES for version in ("TLSv1_2", "TLSv1_3")], ids="-".join
)
def rig(request, authority) -> Iterator[TlsRig]:
    """A service with one backend, and deadlines that are easy to tell apart."""
    with tls_rigged(authority, *request.param, timeouts={"idle": "10s", "half_closed": "3s"}) as rig:
        yield rig


def ends(rig: TlsRig, *, from_client: bool) -> tuple[Any, Any]:
    """Return who sends and who receives."""
    client, server = rig.pair()
    return (client, server) if from_client else (server, client)


def tls_of(*peers: Any) -> list[TlsPeer]:
    """Return those of both ends that speak TLS."""
    return [peer for peer in peers if isinstance(peer, TlsPeer)]


def receive_to_reset(rig: TlsRig, end: Any) -> bytes:
    """Return everything up to the reset; a clean end, or one without a reset, is an error."""
    data = bytearray()
    while True:
        rig.pass_time(0.05)
        try:
            piece = end.recv(1 << 20)
        except BlockingIOError:
            select.select([end], [], [], 0.01)  # its kernel has everything, and says so a little later
            continue
        except ConnectionResetError:
            return bytes(data)
        assert piece, f"a clean end after {len(data)} bytes"
        data += piece


FROM = pytest.mark.parametrize("from_client", [True, False], ids=["upload", "download"])


class TestEnds:
    """A close_notify is a FIN, and two end the flow."""

    @FROM
    def test_a_half_close(self, rig, from_client) -> None:
        """After the end of one side, the other may answer as long as it likes to."""
        sender, receiver = ends(rig, from_client=from_client)
        sender.sendall(b"question")
        sender.shutdown(socket.SHUT_WR)
        assert rig.receive_end(receiver) == b"question"
        for piece in (b"one", b"two"):
            receiver.sendall(piece)
            assert rig.receive(sender, 3) == piece
        assert rig.silent(sender)
        receiver.close()
        assert rig.receive_end(sender) == b""
        rig.settle()
        assert rig.reasons == ["client_closed" if from_client else "backend_closed"]
        rig.check_accounts()

    @FROM
    def test_it_waits_for_the_bytes_before_it(self, rig, from_client) -> None:
        """An end is passed on when all that was held back before it is written, and not earlier."""
        sender, receiver = ends(rig, from_client=from_client)
        size = rig.fill(sender, DATA)
        sender.shutdown(socket.SHUT_WR)
        rig.settle()
        assert rig.receive_end(receiver) == DATA[:size]
        receiver.shutdown(socket.SHUT_WR)
        assert rig.receive_end(sender) == b""
        rig.settle()
        rig.check_accounts()

    @FROM
    def test_both_at_once(self, rig, from_client) -> None:
        """The last bytes and the end come in one read."""
        sender, receiver = ends(rig, from_client=from_client)
        receiver.shutdown(socket.SHUT_WR)
        assert rig.receive_end(sender) == b""
        sender.sendall(DATA[:10_000])
        sender.shutdown(socket.SHUT_WR)
        assert rig.receive_end(receiver) == DATA[:10_000]
        rig.until(lambda: rig.reasons)
        assert rig.reasons == ["backend_closed" if from_client else "client_closed"]
        rig.check_accounts()

    def test_further_input_is_discarded(self, rig) -> None:
        """A backend that has answered and left costs the client nothing of the answer, whatever it still sends."""
        client, server = rig.pair()
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
        client.shutdown(socket.SHUT_WR)
        rig.until(lambda: not rig.service.flows)
        assert rig.reasons == ["backend_closed"]
        rig.check_accounts()

    def test_a_deadline(self, rig) -> None:
        """Who rests when a deadline comes is told by a close_notify that nothing is missing."""
        client, server = rig.pair()
        client.sendall(b"x")
        assert rig.receive(server, 1) == b"x"
        (flow,) = rig.service.flows
        rig.until(lambda: not asked(flow.client.fd) and not asked(flow.server.fd), "all to be acknowledged")
        rig.pass_time(10.2)
        assert rig.reasons == ["idle_timeout"]
        assert rig.receive_end(client) == rig.receive_end(server) == b""
        rig.check_accounts()

    def test_a_deadline_in_the_middle(self, rig) -> None:
        """Who stopped reading is reset: something is missing."""
        client, server = rig.pair()
        rig.pass_time(1)
        rig.fill(server, DATA)
        rig.pass_time(10.3)
        assert rig.reasons == ["idle_timeout"]
        with pytest.raises(ConnectionResetError):
            rig.receive_end(client)


class TestTruncation:
    """A FIN without a close_notify is passed on as a reset, behind all that came before it."""

    @FROM
    def test_at_every_boundary_and_within(self, rig, from_client) -> None:
        """Every record that is complete arrives, and nobody sees a clean end."""
        sizes = [1, 100, 16_384, 5_000]
        tested = 0
        for number in range(3 * len(sizes) + 2):
            sender, receiver = ends(rig, from_client=from_client)
            if not isinstance(sender, TlsPeer):
                return
            records, start = [], 0
            for size in sizes:
                records.append(sender.sealed(DATA[start : start + size]))
                start += size
            records.append(sender.close_notify())
            which, place = divmod(number, 3)
            cut = sum(map(len, records[:which]))
            cut += [0, 1, len(records[which]) - 1][place]
            sender.sock.sendall(b"".join(records)[:cut])
            sender.sock.shutdown(socket.SHUT_WR)
            rig.settle()
            assert receive_to_reset(rig, receiver) == DATA[: sum(sizes[:which])], (which, place)
            reason, flow = rig.ended[-1]
            assert (reason, flow.detail) == ("client_reset" if from_client else "backend_reset", "truncated")
            tested += 1
        assert tested == 14
        rig.check_accounts()

    @FROM
    def test_behind_a_slow_reader(self, rig, from_client) -> None:
        """Who reads slowly, longer than any deadline, gets everything, and then the reset."""
        client, server = rig.pair(receive_buffer=16_384)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sender, receiver = (client, server) if from_client else (server, client)
        if not isinstance(sender, TlsPeer):
            return
        sender.sendall(DATA[:300_000])
        rig.settle()
        rig.until(lambda: not sender._unsent and not asked(sender.fileno()))
        sender.sock.shutdown(socket.SHUT_WR)
        rig.pass_time(1)
        got = bytearray()
        while len(got) < 300_000:
            got += rig.receive(receiver, 20_000)
            rig.pass_time(1)
        assert receive_to_reset(rig, receiver) == b""
        assert got == DATA[:300_000]

    @FROM
    def test_after_the_others_end(self, rig, from_client) -> None:
        """Also when the other side has already finished."""
        sender, receiver = ends(rig, from_client=from_client)
        if not isinstance(sender, TlsPeer):
            return
        receiver.shutdown(socket.SHUT_WR)
        assert rig.receive_end(sender) == b""
        sender.sendall(b"half")
        sender.sock.shutdown(socket.SHUT_WR)
        rig.settle()
        assert receive_to_reset(rig, receiver) == b"half"


class TestResets:
    """A reset, and whatever breaks a session, is passed on as a reset."""

    @FROM
    def test_a_reset(self, rig, from_client) -> None:
        """Behind every byte that came before it."""
        client, server = rig.pair(receive_buffer=16_384)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        sender, receiver = (client, server) if from_client else (server, client)
        sender.sendall(DATA[:100_000])
        rig.settle()
        rig.until(lambda: not getattr(sender, "_unsent", b"") and not asked(sender.fileno()))
        reset(getattr(sender, "sock", sender))
        rig.settle()
        assert rig.receive(receiver, 100_000) == DATA[:100_000]
        assert receive_to_reset(rig, receiver) == b""
        rig.settle()
        assert rig.reasons == ["client_reset" if from_client else "backend_reset"]
        rig.check_accounts()

    @FROM
    def test_a_record_that_was_changed(self, rig, from_client) -> None:
        """What came before it arrives, then a reset; who has sent it is told by an alert."""
        sender, receiver = ends(rig, from_client=from_client)
        if not isinstance(sender, TlsPeer):
            return
        good, bad = sender.sealed(b"good"), bytearray(sender.sealed(b"bad"))
        bad[-1] ^= 1
        sender.sock.sendall(good + bad)
        assert rig.receive(receiver, 4) == b"good"
        assert receive_to_reset(rig, receiver) == b""
        with pytest.raises((ssl.SSLError, ConnectionResetError)) as told:
            rig.receive(sender, 1)
        if isinstance(told.value, ssl.SSLError):
            assert "ALERT_BAD_RECORD_MAC" in str(told.value)
        reason, flow = rig.ended[-1]
        assert (reason, flow.detail) == ("client_reset" if from_client else "backend_reset", "bad_record")
        rig.check_accounts()

    def test_a_client_that_is_gone(self, rig) -> None:
        """A client that has ended and then left has nobody to answer: the backend learns it from a reset."""
        client, server = rig.pair()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert rig.receive_end(server) == b"question"
        client.close()
        server.sendall(b"an answer")
        rig.until(lambda: not rig.service.flows)
        assert rig.reasons == ["client_reset"]
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            getattr(server, "sock", server).send(b"x")
        rig.check_accounts()


class TestBackPressure:
    """While one side cannot be written, the other is not read."""

    @FROM
    def test_one_read_is_held_at_most(self, rig, from_client) -> None:
        """What does not fit stays in the sender's kernel; we hold one read's worth, and nothing while idle."""
        client, server = rig.pair()
        sender, receiver = (client, server) if from_client else (server, client)
        size = rig.fill(sender, DATA)
        (flow,) = rig.service.flows
        near, far = (flow.client, flow.server) if from_client else (flow.server, flow.client)
        assert 0 < len(far.pending) <= BUFFER_BYTES * SEALED_BYTES
        assert near.received < size, "it was read on"
        assert not near.mask
        assert rig.receive(receiver, size) == DATA[:size]
        rig.settle()
        assert far.pending is None
        assert near.received == size

    @FROM
    def test_the_other_direction_goes_on(self, rig, from_client) -> None:
        """Who does not read may still write."""
        sender, receiver = ends(rig, from_client=from_client)
        size = rig.fill(sender, DATA)
        for _ in range(3):
            receiver.sendall(b"ping")
            assert rig.receive(sender, 4) == b"ping"
        assert rig.receive(receiver, size) == DATA[:size]

    @FROM
    def test_nothing_spins(self, rig, from_client) -> None:
        """A stuck flow, even with a peer that has hung up, reports no event again and again."""
        sender, receiver = ends(rig, from_client=from_client)
        rig.fill(sender, DATA)
        reset(getattr(sender, "sock", sender))
        rig.settle()
        receiver.shutdown(socket.SHUT_WR)
        rig.settle()
        for _ in range(5):
            assert not select.select([rig.reactor.epoll], [], [], 0)[0]

    def test_bulk_both_ways(self, rig) -> None:
        """Slow readers on both sides get every byte, in order."""
        client, server = rig.pair(receive_buffer=16_384)
        size = 3_000_000
        sent = {"up": 0, "down": 0}
        got = {"up": bytearray(), "down": bytearray()}
        ways = {"up": (client, server), "down": (server, client)}
        sizes = [1, 700, 40_000, 9, 150_000]
        turn = 0
        while any(len(got[way]) < size for way in ways):
            for way, (sender, receiver) in ways.items():
                turn += 1
                if sent[way] < size:
                    with contextlib.suppress(BlockingIOError):
                        sent[way] += sender.send(DATA[sent[way] : min(size, sent[way] + sizes[turn % 5] * 9)])
                with contextlib.suppress(BlockingIOError):
                    got[way] += receiver.recv(sizes[(turn + 2) % 5])
            rig.step()
        assert got["up"] == got["down"] == DATA[:size]
        (flow,) = rig.service.flows
        assert (flow.client.received, flow.server.received) == (size, size)

    @FROM
    def test_one_record_in_single_bytes(self, rig, from_client) -> None:
        """However slowly it comes: it is passed on when it is whole, and each byte counts as activity."""
        sender, receiver = ends(rig, from_client=from_client)
        if not isinstance(sender, TlsPeer):
            return
        (flow,) = rig.service.flows
        wire = sender.sealed(b"a message")
        for number in range(len(wire)):
            assert rig.silent(receiver)
            rig.clock.advance(1.0)
            sender.sock.send(wire[number : number + 1])
            rig.until(lambda: flow.last == rig.clock())
        assert rig.receive(receiver, 9) == b"a message"


class Chatty(Channel):
    """A session that answers everything, at length, once it is told to."""

    is_told = False

    def outgoing(self) -> bytes:
        """Return far too much."""
        return bytes(100_000) if self.is_told else super().outgoing()


def test_who_takes_no_answers(authority) -> None:
    """A peer that makes its session answer and never reads does not make it grow for ever: it is cut."""
    with tls_rigged(authority, "backend") as rig:
        rig.channel_class = Chatty
        client, server = rig.pair()
        rig.fill(client, DATA)
        (flow,) = rig.service.flows
        leg = flow.server
        leg.tls.is_told = True
        most = turn = 0
        while not leg.broken:
            turn += 1
            server.sendall(b"x")
            rig.until(lambda turn=turn: leg.received == turn or leg.broken)
            most = max(most, len(leg.pending or b""))
        assert BUFFER_BYTES < most <= MOST_PENDING_BYTES
        rig.until(lambda: (rig.pass_time(0.05), rig.reasons)[1])
        reason, flow = rig.ended[-1]
        assert (reason, flow.detail) == ("backend_reset", "protocol_error")


class TestBegin:
    """What came before the relay."""

    def test_a_backend_that_speaks_first(self, rig) -> None:
        """A greeting reaches the client, though the client says nothing."""
        client, server = rig.pair()
        server.sendall(b"220 ready")
        assert rig.receive(client, 9) == b"220 ready"
        (flow,) = rig.service.flows
        assert flow.first_at

    def test_tickets_are_no_first_byte(self, authority) -> None:
        """What a backend's TLS says on its own is not the backend's word."""
        with tls_rigged(authority, "backend") as rig:
            _, server = rig.pair()
            rig.settle()
            (flow,) = rig.service.flows
            assert flow.server.received == 0
            assert not flow.first_at
            server.abort()
            rig.until(lambda: rig.reasons)
            assert rig.failures == [("b0", "reset before the first byte")]


class TestKeys:
    """Keys that change under way, by the real openssl."""

    @pytest.mark.parametrize("letter", ["k", "K"])
    def test_new_keys(self, authority, letter) -> None:
        """A KeyUpdate is followed, and answered where it asks for that (RFC 8446, section 4.6.3)."""
        with tls_rigged(authority, "client") as rig, openssl(rig, "-tls1_3") as client:
            server = rig.ends[0].accept()
            say(client, "before")
            assert rig.receive(server, 7) == b"before\n"
            for turn in range(3):
                say(client, letter)
                assert heard(rig, client, b"KEYUPDATE")  # what is read together with a command is dropped
                say(client, f"after {turn}")
                assert rig.receive(server, 8) == f"after {turn}\n".encode()
                server.sendall(b"answer\n")
                assert heard(rig, client, b"answer\n")

    def test_a_handshake_in_the_middle(self, authority) -> None:
        """A client of TLS 1.2 that wants to negotiate again is refused, and nobody else is harmed."""
        with tls_rigged(authority, "client", "TLSv1_2") as rig:
            other, others = rig.pair()
            with openssl(rig, "-tls1_2") as client:
                server = rig.ends[0].accept()
                say(client, "before")
                assert rig.receive(server, 7) == b"before\n"
                say(client, "R")
                rig.until(lambda: client.poll() is not None, "openssl to be refused")
            rig.until(lambda: rig.reasons)
            other.sendall(b"x")
            assert rig.receive(others, 1) == b"x"


@contextlib.contextmanager
def openssl(rig: TlsRig, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client of the openssl program that takes its commands."""
    command = ["openssl", "s_client", "-connect", rig.address, "-servername", "server.test", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[bytes], line: str) -> None:
    """Type a line."""
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")
    process.stdin.flush()


def heard(rig: TlsRig, process: subprocess.Popen[bytes], what: bytes) -> bool:
    """Return once a client has printed something."""
    assert process.stdout is not None
    printed = bytearray()

    def read() -> bool:
        while select.select([process.stdout], [], [], 0)[0]:
            piece = os.read(process.stdout.fileno(), 65536)
            assert piece, bytes(printed)
            printed.extend(piece)
        return what in printed

    rig.until(read, f"{what!r} to be printed")
    return True


class TestGoodbye:
    """A backend's FIN without a close_notify resets the client, and is told by what was under way."""

    @pytest.fixture(params=["backend", "both"])
    def begun(self, request, authority) -> Iterator[TlsRig]:
        """TLS is spoken with the backend."""
        with tls_rigged(authority, request.param) as rig:
            yield rig

    def left(self, rig: TlsRig, client: Any, server: Any) -> list[str]:
        """Have the backend close its socket and nothing more; return the close reasons, once the client is reset."""
        server.sock.shutdown(socket.SHUT_WR)
        rig.until(lambda: rig.reasons)
        with pytest.raises(ConnectionResetError):
            read_to_end(getattr(client, "sock", client))
        rig.check_accounts()
        return rig.reasons

    def test_after_the_answer(self, begun) -> None:
        """The client has its answer and has ended: no backend is blamed."""
        client, server = begun.pair()
        client.sendall(b"question")
        assert begun.receive(server, 8) == b"question"
        server.sendall(b"answer")
        assert begun.receive(client, 6) == b"answer"
        client.shutdown(socket.SHUT_WR)
        assert begun.receive_end(server) == b""
        assert self.left(begun, client, server) == ["client_closed"]

    def test_before_the_answer(self, begun) -> None:
        """The client has ended, and waits for its answer: it was cut."""
        client, server = begun.pair()
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert begun.receive_end(server) == b"question"
        assert self.left(begun, client, server) == ["backend_reset"]

    def test_before_the_client(self, begun) -> None:
        """The client has not ended: what the backend said last may have been cut."""
        client, server = begun.pair()
        server.sendall(b"banner")
        assert begun.receive(client, 6) == b"banner"
        assert self.left(begun, client, server) == ["backend_reset"]
