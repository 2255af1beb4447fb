"""Each fault does what its name says, and nothing else."""

import socket
import sys

import pytest

from tests.support.backends import EchoServer, HalfCloser, Resetter, Sink, Source, payload
from tests.support.clients import ask, dial, read_exactly, read_to_end, read_to_reset
from tests.support.faultproxy import Bandwidth, FaultProxy, Latency, Partition, ResetAfter, Slicer, SlowClose


@pytest.mark.parametrize(
    "fault",
    [
        FaultProxy,
        lambda target: Latency(target, seconds=0.01),
        lambda target: Slicer(target, size=500),
        lambda target: Bandwidth(target, rate=2_000_000),
        lambda target: SlowClose(target, seconds=0.01),
        Partition,
    ],
    ids=["none", "latency", "slicer", "bandwidth", "slow-close", "partition"],
)
def test_bytes_and_half_close_survive(fault):
    """Whatever is slow, no byte is lost and a half-close stays one."""
    data = payload(20_000)
    with HalfCloser(answer=data) as server, fault(server.address) as proxy:
        assert ask(proxy.address, data) == data
        assert server.requests == [data]


def test_reset_is_passed_on():
    """A target's RST behind its bytes reaches the client as that."""
    with Resetter(after=1000) as server, FaultProxy(server.address) as proxy, dial(proxy.address) as client:
        client.sendall(b"go")
        assert read_to_reset(client) == payload(1000)


def test_slicer_makes_a_segment_of_each_byte():
    """Every byte crosses the wire alone."""
    with (
        Source(data=b"hello world") as server,
        Slicer(server.address) as proxy,
        dial(proxy.address) as client,
    ):
        assert read_to_end(client) == b"hello world"
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
        segments = int.from_bytes(info[152:156], sys.byteorder)  # struct tcp_info: tcpi_data_segs_in
        assert segments == len(b"hello world")


def test_reset_after_counts_answers():
    """Exactly `size` bytes of the answer arrive before the RST."""
    with (
        EchoServer() as server,
        ResetAfter(server.address, size=1234) as proxy,
        dial(proxy.address) as client,
    ):
        # a backend that spoke first could be reset before the client has connected
        client.sendall(payload(5000))
        assert read_to_reset(client) == payload(5000)[:1234]


def test_reset_after_counts_requests():
    """Exactly `size` bytes of the request arrive before the RST."""
    with Sink() as server, ResetAfter(server.address, size=10, count="request") as proxy:
        with dial(proxy.address) as client:
            client.sendall(b"x" * 1000)
            assert read_to_reset(client) == b""
        server.wait_until(lambda: server.reset_by_peer == 1)


def test_partition_cuts_and_heals():
    """Behind a cut, nothing arrives; after it, everything does."""
    with EchoServer() as server, Partition(server.address) as proxy, dial(proxy.address) as client:
        client.sendall(b"1")
        assert read_exactly(client, 1) == b"1"
        proxy.cut()
        client.sendall(b"2")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        proxy.heal()
        client.settimeout(10)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"2"
