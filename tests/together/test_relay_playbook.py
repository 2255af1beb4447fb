"""The relay against a model of it: random events on both sides, in any order, with any timing.

The model knows four things of each side: what it sent, and whether a FIN or a reset followed. From them follows
what the other side must see: a prefix at any time, and in the end every byte, in order, and the right kind of end.
"""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.dataplane.net.descriptors import asked
from tests.dataplane.net.rig import Rig, rigged
from tests.dataplane.net.tls_rig import MODES, TlsPeer, TruncatedError, tls_rigged
from tests.support.backends import payload
from tests.support.clients import reset
from tests.support.tls import CertificateAuthority

BYTES = payload(600_000, 7)


@dataclass
class Side:
    """One end of the flow, and what the model knows of it."""

    sock: socket.socket
    sent: int = 0
    """Bytes that the kernel took from it."""
    got: bytearray = field(default_factory=bytearray)
    fin: bool = False
    was_reset: bool = False
    arrived: int = 0
    """When it reset: the bytes that had been acknowledged by then, which nothing may lose."""
    end: str = ""
    """How what it received ended: "fin" or "reset"."""
    told: bool = False
    """A write was told of a reset, so that reading will show it as an end of file."""

    def send(self, size: int) -> None:
        """Send as much of `size` bytes as the kernel takes."""
        if self.fin or self.was_reset:
            return
        try:
            self.sent += self.sock.send(BYTES[self.sent : self.sent + size])
        except ConnectionResetError:
            self.told = True
        except (BlockingIOError, BrokenPipeError):
            pass

    def finish(self) -> None:
        """Send a FIN."""
        if not self.fin and not self.was_reset:
            self.fin = True
            with contextlib.suppress(OSError):  # the other side has reset it
                self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send a reset."""
        if not self.was_reset:
            self.was_reset = True
            waiting = bytearray(4)
            fcntl.ioctl(self.sock, termios.TIOCOUTQ, waiting)
            self.arrived = self.sent - min(self.sent, struct.unpack("i", waiting)[0])
            reset(self.sock)

    def truncate(self) -> None:
        """Without TLS there is no other end than a FIN."""
        self.finish()

    def read(self, size: int) -> None:
        """Read up to `size` bytes, or an end."""
        if self.was_reset or self.end:
            return
        try:
            piece = self.sock.recv(size)
        except BlockingIOError:
            return
        except ConnectionResetError:
            self.end = "reset"
            return
        self.got += piece
        if not piece:
            self.end = "reset" if self.told else "fin"


@dataclass
class TlsSide(Side):
    """One end that speaks TLS: an end is a close_notify, and what has arrived are whole records."""

    sock: TlsPeer  # type: ignore[assignment]  # it is asked for the same
    on_wire: int = 0
    """Bytes that were sealed."""
    records: list[tuple[int, int]] = field(default_factory=list)
    """For each record what was sent, and what was sealed, up to its end."""

    def send(self, size: int) -> None:
        """Send `size` bytes, record by record, as long as the kernel takes them."""
        if self.fin or self.was_reset:
            return
        self.sock.flush()
        last = min(self.sent + size, len(BYTES))
        while self.sent < last and not self.sock.unsent and not self.sock.was_told:
            piece = BYTES[self.sent : min(last, self.sent + 16_384)]
            record = self.sock.sealed(piece)
            self.sent += len(piece)
            self.on_wire += len(record)
            self.records.append((self.sent, self.on_wire))
            self.sock.put(record)

    def finish(self) -> None:
        """Send a close_notify and a FIN; they wait for what the kernel has not taken yet."""
        if not self.fin and not self.was_reset:
            self.fin = True
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send a reset; an end that was not sent yet is none."""
        if not self.was_reset:
            self.was_reset = True
            self.fin = self.sock.has_finished
            acknowledged = self.on_wire - len(self.sock.unsent) - min(self.on_wire, asked(self.sock.fileno()))
            self.arrived = max((sent for sent, end in self.records if end <= acknowledged), default=0)
            self.sock.abort()

    def truncate(self) -> None:
        """Send a FIN alone, perhaps within a record: for the other side that is a reset."""
        if not self.was_reset and not self.sock.has_finished:
            self.was_reset, self.fin = True, False
            there = self.on_wire - len(self.sock.unsent)
            self.arrived = max((sent for sent, end in self.records if end <= there), default=0)
            self.sock.truncate()

    def read(self, size: int) -> None:
        """Read up to `size` bytes, or an end; one that is no clean end counts as a reset only if there was one."""
        try:
            super().read(size)
        except TruncatedError:
            self.end = "truncated"


SIDES = st.sampled_from(["client", "backend"])
SIZES = st.sampled_from([1, 100, 5_000, 70_000, 200_000])


def lists_of_events(*ends: str) -> st.SearchStrategy[list[tuple[str, str, int]]]:
    """Return what makes lists of events, with these ends among them."""
    one = st.one_of(
        st.tuples(SIDES, st.just("send"), SIZES),
        st.tuples(SIDES, st.just("read"), SIZES),
        st.tuples(SIDES, st.sampled_from(ends), st.just(0)),
        st.tuples(st.just("relay"), st.sampled_from(["step", "settle", "time"]), st.just(0)),
    )
    return st.lists(one, max_size=25)


def play(rig: Rig, sides: dict[str, Side], event: tuple[str, str, int]) -> None:
    """Let one event happen."""
    who, what, size = event
    if who == "relay":
        {"step": rig.step, "settle": rig.settle, "time": lambda: rig.pass_time(0.1)}[what]()
    elif what in {"send", "read"}:
        getattr(sides[who], what)(size)
    else:
        getattr(sides[who], what)()
    for receiver, sender in (("client", "backend"), ("backend", "client")):
        assert BYTES.startswith(sides[receiver].got), f"{receiver} got what nobody sent"
        assert len(sides[receiver].got) <= sides[sender].sent


def expected_end(receiver: Side, sender: Side, *, client_receives: bool) -> set[str]:
    """Return how the receiver's stream may end, "" for not at all."""
    if sender.was_reset and not sender.fin:
        return {"reset"}
    if sender.was_reset:
        # The FIN may still have been queued when the reset overtook it.
        # A backend's FIN counts, whatever follows; a client that is gone leaves nobody to answer.
        whole = sender.arrived == sender.sent and client_receives
        return {"fin"} if whole else {"fin", "reset"}
    if sender.fin:
        return {"fin"}
    return {""}


BOTH_RESET = [
    ("client", "send", 1),
    ("client", "send", 200_000),
    ("relay", "step", 0),
    ("client", "finish", 0),
    ("relay", "settle", 0),
    ("client", "reset", 0),
    ("relay", "step", 0),
    ("backend", "finish", 0),
    ("backend", "reset", 0),
]
"""What the backend has not acknowledged when it resets is counted as unsent for ever after."""


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(lists_of_events("finish", "reset"), st.sampled_from([0, 4096]))
@example(BOTH_RESET, 4096)
def test_every_byte_and_the_right_end(events, receive_buffer):
    """Whatever happens in whatever order, each side gets all that the other sent, then its FIN or its reset."""
    with rigged(timeouts={"idle": "1h", "half_closed": "1h"}) as rig:
        client = rig.client(receive_buffer=receive_buffer)
        server = rig.ends[0].accept()
        conclude(rig, {"client": Side(client), "backend": Side(server)}, events)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> CertificateAuthority:
    """Whom both ends trust."""
    return CertificateAuthority(tmp_path_factory.mktemp("authority"))


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=lists_of_events("finish", "reset", "truncate"),
    receive_buffer=st.sampled_from([0, 4096]),
    mode=st.sampled_from(MODES),
)
@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_the_same_with_tls(authority, version, events, receive_buffer, mode):
    """With TLS on one side or on both nothing is other than without: a close_notify is a FIN."""
    with tls_rigged(authority, mode, version, timeouts={"idle": "1h", "half_closed": "1h"}) as rig:
        ends = dict(zip(("client", "backend"), rig.pair(receive_buffer=receive_buffer), strict=True))
        sides = {name: (TlsSide if isinstance(end, TlsPeer) else Side)(end) for name, end in ends.items()}
        conclude(rig, sides, events)


def conclude(rig: Rig, sides: dict[str, Side], events: list[tuple[str, str, int]]) -> None:
    """Play the events, and see that both sides get what the model says."""
    for event in events:
        play(rig, sides, event)
    for name, other in (("client", "backend"), ("backend", "client")):
        receiver, sender = sides[name], sides[other]
        if receiver.was_reset:
            continue
        ends = expected_end(receiver, sender, client_receives=name == "client")
        least = sender.arrived if sender.was_reset else sender.sent

        def over(receiver: Side = receiver, ends: set[str] = ends, least: int = least) -> bool:
            receiver.read(1 << 20)
            rig.pass_time(0.05)
            return len(receiver.got) >= least and (receiver.end in ends or bool(receiver.end))

        rig.until(over, f"{name} to have {least} bytes and then one of {ends}")
        rig.settle()
        receiver.read(1)
        assert receiver.end in ends, f"{name} saw {receiver.end!r} instead of one of {ends}"
        assert BYTES[: len(receiver.got)] == receiver.got
        assert least <= len(receiver.got) <= sender.sent
    for side in sides.values():
        side.finish()
    rig.until(lambda: drained(rig, sides), "the flow to end")
    rig.settle()
    rig.check_accounts()
    assert rig.service.totals.connections == 1


def drained(rig: Rig, sides: dict[str, Side]) -> bool:
    """Read whatever is left on both sides, let time pass, and tell whether the flow has ended."""
    for side in sides.values():
        side.read(1 << 20)
    rig.pass_time(0.05)
    return not rig.service.flows
