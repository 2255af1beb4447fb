"""From a client to its backend: who is dialled, what is waited for, and what counts against whom."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.core.admission import WaitQueue
from dataplane.core.outlier import Evidence
from dataplane.core.reasons import CloseReason
from dataplane.net.connect import QueuePlace
from dataplane.net.dialer import MAX_PAUSE_S
from dataplane.net.reactor import Wheel
from tests.dataplane.net.descriptors import adopted
from tests.dataplane.net.rig import Rig, rigged
from tests.support.clients import reset


class BusyEnd:
    """A backend behind a Unix socket whose accept queue is full."""

    def __init__(self, rig: Rig, path: Path) -> None:
        self.rig = rig
        self._stack = contextlib.ExitStack()
        self.listener = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        self.listener.bind(str(path))
        self.listener.listen(0)
        self.listener.setblocking(False)
        self.fill(path)

    def fill(self, path: Path) -> None:
        """Take the one place that there is."""
        self._stack.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))

    def accept(self) -> socket.socket:
        """Accept the next connection, which makes room for one."""
        return self._stack.enter_context(self.listener.accept()[0])

    def close(self) -> None:
        """Close everything."""
        self._stack.close()


Start = Callable[..., tuple[Rig, BusyEnd]]


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Start]:
    """Start a service with one busy backend `u`, and others if `backends_` names them, and a connect timeout of 2 s."""
    with contextlib.ExitStack() as stack:

        def start(*others: dict[str, str], **options) -> tuple[Rig, BusyEnd]:
            path = tmp_path / "u"
            options = {
                "timeouts": {"connect": "2s"},
                "backends_": [{"address": f"unix:{path}", "id": "u"}, *others],
                **options,
            }
            rig = stack.enter_context(rigged(**options))
            end = BusyEnd(rig, path)
            stack.callback(end.close)
            return rig, end

        yield start


class TestBusy:
    """A Unix socket whose accept queue is full is busy: it is waited for, and nothing is held against it."""

    def test_waits_for_a_place(self, busy: Start) -> None:
        """As soon as there is room the client is served, whatever it has sent meanwhile."""
        rig, end = busy()
        client = rig.client()
        client.sendall(b"early")
        rig.pass_time(1.0)
        assert not rig.reasons
        end.accept()
        rig.pass_time(MAX_PAUSE_S + 0.1)
        server = end.accept()
        server.setblocking(False)
        assert rig.receive(server, 5) == b"early"
        server.sendall(b"late")
        assert rig.receive(client, 4) == b"late"
        assert rig.failures == []
        client.close()
        server.close()
        rig.until(lambda: not rig.service.flows)
        rig.check_accounts()

    def test_for_as_long_as_a_connect_may_take(self, busy: Start) -> None:
        """After `timeouts.connect` the client is closed with its reason, and the backend's record is clean."""
        rig, _ = busy()
        client = rig.client()
        rig.pass_time(1.9)
        assert not rig.reasons
        rig.pass_time(0.2)
        assert rig.reasons == ["connect_timeout"]
        assert client.recv(1) == b""
        ((_, flow),) = rig.ended
        assert flow.detail == "its accept queue is full"
        backend = rig.service.backends["u"]
        assert (rig.failures, backend.totals.connect_failures) == ([], 0)
        rig.check_accounts()

    def test_without_a_connect_timeout(self, busy: Start) -> None:
        """With `connect: 0s` the wait has no end but the client's."""
        rig, _ = busy(timeouts={"connect": "0s"})
        client = rig.client()
        rig.pass_time(60.0)
        assert not rig.reasons
        reset(client)
        rig.until(lambda: rig.reasons == ["client_gone"])
        rig.check_accounts()

    def test_then_another_backend(self, busy: Start) -> None:
        """When the time is over the client moves on to a backend that has room."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            address = f"127.0.0.1:{other.getsockname()[1]}"
            rig, _ = busy({"address": address, "id": "t"})
            client = rig.client()
            client.sendall(b"hello")
            rig.pass_time(2.1)
            rig.settle()
            server = rig.keep(other.accept()[0])
            assert rig.receive(server, 5) == b"hello"
            assert rig.service.totals.retries == 1
            assert rig.failures == []

    def test_pauses_grow(self, busy: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        """It knocks a few times a second, not once a tick."""
        rig, _ = busy()
        rig.client()
        (flow,) = rig.service.flows
        dial, pauses = flow.dial, set()
        assert dial is not None
        for _ in range(20):
            rig.pass_time(0.05)
            pauses.add(dial.pause_s)
        assert max(pauses) == MAX_PAUSE_S
        assert len(pauses) > 1
        reset(rig._clients[0])
        rig.until(lambda: rig.reasons == ["client_gone"])

    def test_the_socket_goes_away_meanwhile(self, busy: Start) -> None:
        """A backend that is no longer there when it is asked again has failed, at once."""
        rig, end = busy()
        rig.client()
        end.close()
        rig.pass_time(0.3)
        assert rig.reasons == ["connect_failed"]
        assert rig.failures == [("u", "connection refused")]

    def test_the_pool_is_not_taught_to_dial_more(self, busy: Start) -> None:
        """The time that a backend kept a client waiting is no reason to fill its queue with idle connections."""
        rig, end = busy(pool={"mode": "preconnect"})
        rig.client()
        rig.pass_time(1.0)
        demand = rig.service.backends["u"].pool.goal.demand
        end.accept()
        rig.pass_time(MAX_PAUSE_S + 0.1)
        assert rig.service.backends["u"].totals.connections == 1
        assert demand.target(rig.reactor.now, idle_timeout_s=60.0) <= 1
        assert rig.failures == []


@pytest.mark.parametrize(
    ("code", "evidence"),
    [(errno.ECONNRESET, Evidence.UNPROVOKED_RESET), (errno.ECONNREFUSED, Evidence.CONNECT)],
)
def test_what_a_failed_connect_is_evidence_of(
    code: int, evidence: Evidence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that had accepted, and has reset by the time that connect() answers, is one that resets."""
    monkeypatch.setattr("dataplane.net.connect.begin", lambda *_: (adopted(socket.socket()), code))
    with rigged() as rig:
        rig.client()
        rig.until(lambda: rig.reasons == ["connect_failed"])
        assert rig.evidence == [evidence]


class _Flow:
    """A flow that only waits; `ended` is how it ended."""

    def __init__(self, last: float) -> None:
        self.last = last
        self.tick = 0
        self.ended: list[CloseReason] = []
        self.reactor = SimpleNamespace(wheel=Wheel(last, lambda *_: None))

    def end(self, reason: CloseReason) -> None:
        """Note it."""
        self.ended.append(reason)


class TestQueuePlace:
    """What a client waits for in the queue, without a service."""

    @pytest.mark.parametrize(
        ("timeout_s", "now", "ended", "waits_on"),
        [(5.0, 105.0, [CloseReason.QUEUE_TIMEOUT], False), (5.0, 104.0, [], True), (0.0, 1e9, [], False)],
    )
    def test_time(self, timeout_s: float, now: float, ended: list[CloseReason], waits_on: object) -> None:
        """It is over after `queue_timeout`; what comes earlier was a drain that was taken back."""
        limits = SimpleNamespace(queue_timeout_s=timeout_s)
        service: Any = SimpleNamespace(spec=SimpleNamespace(limits=limits))
        flow: Any = _Flow(100.0)
        QueuePlace(service).on_timeout(flow, now)
        assert (flow.ended, bool(flow.tick)) == (ended, waits_on)

    def test_who_leaves_gives_its_place_up(self) -> None:
        """Wherever it stands."""
        queue: WaitQueue[Any] = WaitQueue(3)
        flows = [_Flow(0.0) for _ in range(3)]
        for flow in flows:
            queue.push(flow)
        service: Any = SimpleNamespace(queue=queue)
        gone: Any = flows[1]
        QueuePlace(service).cancel(gone)
        assert [queue.pop(), queue.pop(), queue.pop()] == [flows[0], flows[2], None]
