"""The blocking client, for commands: it loads in a fraction of the time that an event loop and aiohttp take."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from controlplane.dataplanes import requests
from controlplane.dataplanes.endpoint import Endpoint
from controlplane.errors import DataPlaneError, LateError, UnreachableError

T = TypeVar("T")

LOOK_S: Final = 5.0
"""For a question that changes nothing: a data plane that needs longer hangs."""
GRACE_S: Final = 0.2
"""The socket has the same timeout as whoever waits: a little more lets it say so in its own words."""
_PROBE_S: Final = 2.0
_NOBODY: Final = requests.Caller()
_UNHEARD: Final = (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)
"""What connecting to a Unix socket fails with if nobody listens there."""


class Asking(Protocol):
    """What a command needs of a client."""

    endpoint: Endpoint

    def ask(self, call: requests.Call, *, timeout_s: float) -> dict[str, Any]:
        """Send a request and return its answer, or raise a `DataPlaneError`."""


class BlockingClient:
    """Asks one data plane, or the daemon, one question at a time; a connection for each."""

    def __init__(self, endpoint: Endpoint, caller: requests.Caller = _NOBODY) -> None:
        self.endpoint = endpoint
        self._caller = caller

    def ask(self, call: requests.Call, *, timeout_s: float) -> dict[str, Any]:
        """Send a request and return the JSON object of its answer.

        Raises:
            UnreachableError: Nobody listens there, or the answer broke off.
            LateError: Nothing came for `timeout_s` seconds.
            RefusedError: The answer is an error.
        """
        status, raw = self._exchange(call, timeout_s)
        return requests.answer(self.endpoint.name, status, raw)

    def text(self, call: requests.Call, *, timeout_s: float) -> str:
        """Send a request and return its answer as text; raises what `ask` raises."""
        status, raw = self._exchange(call, timeout_s)
        if status != http.client.OK:
            requests.answer(self.endpoint.name, status, raw)
        return raw.decode(errors="replace")

    def _exchange(self, call: requests.Call, timeout_s: float) -> tuple[int, bytes]:
        name = self.endpoint.name
        connection = self._connection(timeout_s)
        try:
            headers = self._caller.headers(call, self.endpoint)
            connection.request(call.method, call.target, call.body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError as error:
            raise LateError(name, timeout_s) from error
        except (http.client.HTTPException, OSError) as error:
            if (
                isinstance(error, http.client.HTTPException)
                and self._caller.tls.words(self.endpoint, error) is None
            ):
                raise UnreachableError(name, f"broken answer ({type(error).__name__})") from error
            raise self._caller.tls.unreachable(self.endpoint, error) from error
        finally:
            connection.close()

    def listens(self) -> bool:
        """Tell whether anybody listens on the Unix socket.

        Raises:
            OSError: It may not be seen, or whoever listens has no time to accept.
        """
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PROBE_S)
            try:
                probe.connect(self.endpoint.location)
            except _UNHEARD:
                return False
        return True

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if not self.endpoint.is_url:
            return _UnixConnection(self.endpoint.location, timeout_s)
        parts = urlsplit(self.endpoint.location)
        if self.endpoint.is_https:
            context = self._caller.tls.context(self.endpoint)
            return http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=timeout_s, context=context
            )
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one data plane answered."""

    endpoint: Endpoint
    answer: dict[str, Any] | None
    error: DataPlaneError | None = None


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Do something in a thread of its own, which nobody waits for at the end.

    A peer that sends one byte a second keeps it busy for as long as it likes, and must not keep a command from ending.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # whoever gives up waiting cannot cancel it

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def ask_all(clients: Sequence[Asking], call: requests.Call, *, timeout_s: float) -> tuple[Outcome, ...]:
    """Ask several at once, and come back at the deadline whatever they do.

    Returns:
        One outcome for each client, in the same order; those that have not answered by then are late.
    """
    asked = [in_thread(partial(client.ask, call, timeout_s=timeout_s)) for client in clients]
    wait(asked, timeout_s + GRACE_S)
    return tuple(
        _outcome(client.endpoint, answer, timeout_s) for client, answer in zip(clients, asked, strict=True)
    )


def _outcome(endpoint: Endpoint, answer: Future[dict[str, Any]], timeout_s: float) -> Outcome:
    if not answer.done():
        return Outcome(endpoint, None, LateError(endpoint.name, timeout_s))
    error = answer.exception()
    if isinstance(error, DataPlaneError):
        return Outcome(endpoint, None, error)
    return Outcome(endpoint, answer.result())
