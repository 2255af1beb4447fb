"""The relay's rules through a real process, with the sizes and the numbers that matter."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import select
import socket
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.dataplane.net.through import through
from tests.support.backends import (
    EarlyAnswerer,
    EchoServer,
    HalfCloser,
    Recorder,
    Resetter,
    Sink,
    Source,
    payload,
)
from tests.support.clients import dial, read_exactly, read_to_end, read_to_reset
from tests.support.dataplane import DataPlane
from tests.support.faultproxy import Slicer
from tests.support.wait import wait_for

MIB = 1 << 20


@pytest.fixture(scope="module")
def plane():
    """One data plane for all of these tests."""
    with DataPlane() as plane:
        yield plane


def read_early(sock):
    """Return everything up to the end, whether it is a FIN or a reset."""
    data = bytearray()
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return bytes(data)


@pytest.mark.parametrize("late", [False, True], ids=["at-once", "late"])
def test_an_early_answer_is_complete(plane, late):
    """Rule 4: a backend that answers 200 kB and closes on unread input costs the client no byte, 100 times."""
    upload = payload(100_000, 1)
    with EarlyAnswerer() as backend, through(plane, backend.address) as service:
        for number in range(100 if not late else 10):
            with dial(service.address) as client:
                client.sendall(upload)
                if late:
                    backend.wait_until(
                        lambda done=number + 1: backend.accepted == done and not backend.active
                    )
                assert read_early(client) == backend.answer


def test_an_early_answer_to_who_keeps_sending(plane):
    """A client that sends while it reads still gets everything, whatever its writes are told meanwhile."""
    with EarlyAnswerer() as backend, through(plane, backend.address) as service:
        for _ in range(10):
            with dial(service.address) as client:
                client.sendall(b"x" * 1000)
                got = bytearray()
                while len(got) < len(backend.answer):
                    got += client.recv(1000)
                    with contextlib.suppress(ConnectionError):
                        client.sendall(b"x" * 100)
                assert got == backend.answer


def test_a_clean_answer_to_who_keeps_sending(plane):
    """5.4.23: after the backend's FIN the client's input is discarded, and it sees a clean end whatever it sends."""
    answer = payload(200_000)

    class Answerer(Source):
        async def serve(self, connection):
            await connection.recv()
            await connection.send(self.data)
            await connection.wait_acknowledged()  # and close: what comes now is answered with a reset

    with Answerer(data=answer) as backend, through(plane, backend.address) as service:
        for number in range(20):
            with dial(service.address) as client:
                client.sendall(b"question")
                backend.wait_until(lambda done=number + 1: backend.accepted == done and not backend.active)
                for _ in range(10):
                    client.sendall(b"x" * 1000)
                assert read_to_end(client) == answer
        service.wait_closed(backend_closed=20)


def test_half_closes(plane):
    """Rule 1: a request that ends with a FIN is answered, 1 MB each way, and both ends are clean."""
    question, answer = payload(MIB, 1), payload(MIB, 2)
    with HalfCloser(answer=answer) as backend, through(plane, backend.address) as service:
        with dial(service.address) as client:
            client.sendall(question)
            client.shutdown(socket.SHUT_WR)
            assert read_to_end(client) == answer
        backend.wait_active(0)
        assert backend.requests == [question]
        service.wait_closed(client_closed=1)


def test_resets_reach_the_client(plane):
    """Rule 2: a backend's reset arrives as one, behind every byte, 20 times and at every size."""
    with through(plane) as service:
        for size in (1, 1000, 300_000):
            with Resetter(after=size) as backend:
                service.configure(backend.address)
                for _ in range(20):
                    with dial(service.address) as client:
                        client.sendall(b"question")
                        assert read_to_reset(client) == backend.answer
        service.wait_closed(backend_reset=60)


def test_fifty_mib_to_a_reader_that_pauses(plane):
    """Rule 3: a client that stops reading stops the backend, nothing is lost, and our memory stays what it was."""
    data = payload(50 * MIB)
    with Source(data=data) as backend, EchoServer() as other, through(plane, backend.address) as service:
        before = resident_bytes(plane.pid)
        with dial(service.address) as client:
            got = hashlib.sha256(read_exactly(client, MIB))
            passed = stalled(service)
            assert passed < 40 * MIB, "the backend has to wait"
            assert backend.active == 1
            service.configure(
                backend.address, {"address": other.address, "weight": 0}
            )  # the process is not stuck
            assert resident_bytes(plane.pid) - before < 8 * MIB
            while piece := client.recv(MIB):
                got.update(piece)
            client.shutdown(socket.SHUT_WR)
        assert got.hexdigest() == hashlib.sha256(data).hexdigest()
        service.wait_closed(backend_closed=1)


def test_a_backend_that_pauses(plane):
    """Rule 3 the other way round: a backend that does not read stops the client."""
    gate = threading.Event()

    class Late(Sink):
        async def serve(self, connection):
            await asyncio.get_running_loop().run_in_executor(None, gate.wait)
            await super().serve(connection)

    data = payload(30 * MIB)
    with Late() as backend, through(plane, backend.address) as service, dial(service.address) as client:
        client.setblocking(False)
        sent = 0

        def full():
            nonlocal sent
            try:
                sent += client.send(data[sent : sent + 65536])
            except BlockingIOError:
                return stalled(service) and not writable(client)
            return False

        wait_for(full, "the client to be stopped", every_s=0)
        assert sent < len(data)
        gate.set()
        client.setblocking(True)
        client.sendall(data[sent:])
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b""
        backend.wait_until(lambda: backend.totals)
        assert backend.totals == [(len(data), hashlib.sha256(data).hexdigest())]


def writable(sock):
    """Tell whether a socket takes more within the time that loopback needs."""
    return bool(select.select([], [sock], [], 0.05)[1])


def stalled(service):
    """Return how many bytes a service has carried once nothing moves any more."""
    last = -1

    def same():
        nonlocal last
        totals = service.status()["totals"]
        now = totals["bytes_in"] + totals["bytes_out"]
        last, before = now, last
        return now == before and now

    return wait_for(same, "nothing to move any more", every_s=0.1)


def resident_bytes(pid):
    """Return the physical memory that a process has."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_one_byte_at_a_time(plane):
    """Segments of one byte, both ways, arrive in order and complete."""
    data = payload(700)
    with ExitStack() as stack:
        echo = stack.enter_context(EchoServer())
        far = stack.enter_context(Slicer(echo.address))
        service = stack.enter_context(through(plane, far.address))
        near = stack.enter_context(Slicer(service.address))
        client = stack.enter_context(dial(near.address))
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == data


def test_two_hundred_slow_readers(plane):
    """200 clients that read 1 KiB now and then cost no memory that grows with time, and each gets every byte."""
    data = payload(2 * MIB)
    with ExitStack() as stack:
        backend = stack.enter_context(Source(data=data))
        service = stack.enter_context(through(plane, backend.address))
        before = resident_bytes(plane.pid)
        clients = []
        for _ in range(200):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(10)
            host, _, port = service.address.rpartition(":")
            client.connect((host, int(port)))
            clients.append(client)
        got = [bytearray() for _ in clients]
        for client, data_read in zip(clients, got, strict=True):
            data_read.extend(read_exactly(client, 1024))
        stalled(service)
        full = resident_bytes(plane.pid)
        assert full - before < 200 * 128 * 1024 + 8 * MIB, "one read for each, at most"
        for _ in range(20):
            for client, data_read in zip(clients, got, strict=True):
                data_read.extend(read_exactly(client, 1024))
        assert resident_bytes(plane.pid) - full < 2 * MIB, "it grows while they read"
        for client, data_read in zip(clients, got, strict=True):
            assert data.startswith(data_read)
            client.close()


def test_a_long_exchange_in_small_messages(plane):
    """Ten thousand messages on one connection, each answered before the next: none lost, none doubled."""
    with EchoServer() as backend, through(plane, backend.address) as service, dial(service.address) as client:
        for number in range(10_000):
            message = b"%d\n" % number
            client.sendall(message)
            assert read_exactly(client, len(message)) == message


def test_nothing_is_read_ahead_of_the_backend(plane):
    """What a client sends before its backend is connected arrives whole and first."""
    with Recorder() as backend, through(plane, backend.address) as service:
        backend.stop()
        backend.start()
        with dial(service.address) as client:
            client.sendall(b"first ")
            client.sendall(b"second")
            backend.wait_received(b"first second")
