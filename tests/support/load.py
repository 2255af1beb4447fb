"""Clients that arrive whatever happens, and tell what went wrong for each.

An open loop: the next client comes when it is due, not when the last one has been served, so that a stall shows
as clients that wait instead of as clients that never came.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from tests.support.wait import DEADLINE_S

DETAILS: Final = 20
"""How many failures are kept with their details."""

T = TypeVar("T")


@dataclass(slots=True)
class Visit:
    """One connection: a short client's or a long flow's."""

    is_flow: bool
    begun: float
    """Monotonic, when it was asked for."""
    answered_by: str = ""
    """As in `Report.answered_by`, of its first answer; empty if it got none."""
    ended: float | None = None
    """None: it goes on."""
    failure: str = ""
    """Its kind; empty if it did not fail."""

    def answered(self, answer: bytes) -> None:
        """Note who answers, if it is the first time."""
        self.answered_by = self.answered_by or _answerer(answer)


@dataclass(slots=True)
class Report:
    """What became of the clients so far."""

    started: int = 0
    """Short clients: connect, send, read the answer, end."""
    succeeded: int = 0
    flows: int = 0
    """Long flows that were opened."""
    pings: int = 0
    """Round trips in long flows."""
    failures: Counter[str] = field(default_factory=Counter)
    """By kind: refused, reset, timeout, short (ended before the answer was whole), wrong, other."""
    details: list[str] = field(default_factory=list)
    """The first few failures in words."""
    answered_by: Counter[str] = field(default_factory=Counter)
    """What stands before the first colon of an answer: the name of a `LineServer`."""
    visits: list[Visit] = field(default_factory=list)
    """Every connection, in the order in which they began."""

    @property
    def failed(self) -> int:
        """How many failures there were."""
        return self.failures.total()


class _FailedError(Exception):
    """One client failed."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(kind, detail)
        self.kind = kind
        self.detail = detail


def _answerer(answer: bytes) -> str:
    return answer.partition(b":")[0].decode(errors="replace")


def _answers(sent: bytes, got: bytes) -> bool:
    """Accept `message` from an echo and `name:message` from a `LineServer`."""
    return got == sent or got.endswith(b":" + sent)


class Load:
    """Clients for a service that answers lines, in a thread of their own, for as long as the block runs.

    Args:
        address: `host:port` of the listener.
        rate: New short clients a second; 0 for none.
        flows: Long flows, open from the start to the end, each with a ping every `interval_s`.
        interval_s: Between an answer and the next ping of a flow.
        timeout_s: For each step of a client: connect, answer, end.
        accept: Takes a line as it was sent, newline included, and its answer; tells whether it is right.
        network: What is entered for all of it, as `Machine.entered`; None: this process's own network.
    """

    def __init__(  # noqa: PLR0913 - each has its default, and is named
        self,
        address: str,
        *,
        rate: float = 50.0,
        flows: int = 0,
        interval_s: float = 0.05,
        timeout_s: float = 15.0,
        accept: Callable[[bytes, bytes], bool] = _answers,
        network: Callable[[], contextlib.AbstractContextManager[None]] | None = None,
    ) -> None:
        host, _, port = address.rpartition(":")
        self._address = (host.strip("[]"), int(port))
        self._rate = rate
        self._flows = flows
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._accept = accept
        self._network = network or contextlib.nullcontext
        self._changed = threading.Condition()
        self._loop = asyncio.SelectorEventLoop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)
        self._error: BaseException | None = None
        self.report = Report()

    # What a test calls.

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> Report:
        """Let no more clients come, wait for those under way, and return the report."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self.report

    def wait_until(self, holds: Callable[[Report], object], what: str = "the condition") -> None:
        """Return as soon as `holds(report)`; it is asked again whenever a client or a ping is over."""
        with self._changed:
            reached = self._changed.wait_for(
                lambda: self._error is not None or holds(self.report), timeout=DEADLINE_S
            )
        assert reached, f"{what} did not come true: {self.report}"

    def wait_progress(self, clients: int = 20, pings: int = 0) -> None:
        """Return once so many more short clients and pings have succeeded than until now, or one failed."""
        with self._changed:
            clients += self.report.succeeded
            pings += self.report.pings
            failed = self.report.failed
        self.wait_until(
            lambda now: now.failed > failed or (now.succeeded >= clients and now.pings >= pings), "progress"
        )

    def wait_flows(self) -> None:
        """Return once every long flow has had an answer, or something failed."""
        self.wait_until(lambda now: now.failed or now.flows >= self._flows, "an answer to each flow")

    # The thread.

    def _run(self) -> None:
        try:
            with self._network():
                self._loop.run_until_complete(self._main())
        except BaseException as error:  # noqa: BLE001 - `stop` raises it in the test's thread
            with self._changed:
                self._error = error
                self._changed.notify_all()
        finally:
            self._loop.close()

    async def _main(self) -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(self._flows):
                group.create_task(self._attend(self._flow, number))
            if self._rate:
                await self._arrive(group)
            else:
                await self._stopping.wait()

    async def _arrive(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        number = 0
        while not self._stopping.is_set():
            group.create_task(self._attend(self._client, number))
            number += 1
            await self._pause(begin + number / self._rate - loop.time())

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not beyond the end."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), max(0.0, seconds))

    async def _attend(self, client: Callable[[int, Visit], Coroutine[Any, Any, None]], number: int) -> None:
        visit = Visit(client == self._flow, time.monotonic())
        self.report.visits.append(visit)
        try:
            await client(number, visit)
        except _FailedError as failure:
            visit.failure = failure.kind
            with self._changed:
                self.report.failures[failure.kind] += 1
                if len(self.report.details) < DETAILS:
                    self.report.details.append(f"{failure.kind}: {failure.detail}")
        finally:
            visit.ended = time.monotonic()
            with self._changed:
                self._changed.notify_all()

    async def _client(self, number: int, visit: Visit) -> None:
        self.report.started += 1
        line = f"client {number}\n".encode()
        what = f"client {number}"
        with await self._connect(what) as sock:
            self._count(await self._ask(sock, line, what), visit)
            try:
                sock.shutdown(socket.SHUT_WR)
            except OSError:  # ENOTCONN: a RST came behind the answer
                raise _FailedError("reset", f"{what}, after its answer") from None
            rest = await self._step(asyncio.get_running_loop().sock_recv(sock, 4096), f"{what}, end")
            if rest:
                raise _FailedError("wrong", f"{what}: {rest!r} behind the answer")
        self.report.succeeded += 1

    async def _flow(self, number: int, visit: Visit) -> None:
        what = f"flow {number}"
        with await self._connect(what) as sock:
            ping = 0
            while not self._stopping.is_set():
                answer = await self._ask(
                    sock, f"flow {number} ping {ping}\n".encode(), f"{what}, ping {ping}"
                )
                self._count(answer, visit)
                with self._changed:
                    self.report.flows += ping == 0
                    self.report.pings += 1
                    self._changed.notify_all()
                ping += 1
                await self._pause(self._interval_s)

    def _count(self, answer: bytes, visit: Visit) -> None:
        visit.answered(answer)
        self.report.answered_by[_answerer(answer)] += 1

    async def _step(self, waiting: Coroutine[Any, Any, T], what: str) -> T:
        """Await one step, and turn its failure into a kind."""
        try:
            return await asyncio.wait_for(waiting, self._timeout_s)
        except TimeoutError:
            raise _FailedError("timeout", f"{what}: nothing in {self._timeout_s:g} s") from None
        except ConnectionRefusedError:
            raise _FailedError("refused", what) from None
        except (ConnectionResetError, BrokenPipeError):
            raise _FailedError("reset", what) from None
        except OSError as error:
            raise _FailedError("other", f"{what}: {error}") from None

    async def _connect(self, what: str) -> socket.socket:
        sock = socket.socket(socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET)
        sock.setblocking(False)
        try:
            await self._step(asyncio.get_running_loop().sock_connect(sock, self._address), f"{what}, connect")
        except BaseException:
            sock.close()
            raise
        return sock

    async def _ask(self, sock: socket.socket, line: bytes, what: str) -> bytes:
        loop = asyncio.get_running_loop()
        await self._step(loop.sock_sendall(sock, line), f"{what}, send")
        got = b""
        while not got.endswith(b"\n"):
            piece = await self._step(loop.sock_recv(sock, 65536), f"{what}, answer")
            if not piece:
                raise _FailedError("short", f"{what}: ended after {got!r}")
            got += piece
        if not self._accept(line, got):
            raise _FailedError("wrong", f"{what}: {got!r} for {line!r}")
        return got
