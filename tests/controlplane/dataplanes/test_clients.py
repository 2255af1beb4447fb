"""Both clients: what went wrong is told in one way, whatever the other side does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import BlockingClient, ask_all
from controlplane.dataplanes.client import DataPlaneClient
from controlplane.dataplanes.endpoint import endpoint_of
from controlplane.errors import LateError, RefusedError, UnreachableError

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"pid": 7}'


@contextmanager
def server(path, *parts: bytes, hang=False) -> Iterator[str]:
    """Answer one connection with these bytes, then close it, or keep it open."""
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve():
            while not done.is_set():
                connection, _ = listener.accept()
                with connection:
                    if done.is_set():
                        return
                    connection.recv(65536)
                    for part in parts:
                        connection.sendall(part)
                    if hang:
                        done.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield str(path)
        finally:
            done.set()
            with socket.socket(socket.AF_UNIX) as wake:
                wake.connect(str(path))
            thread.join()


async def ask_async(location, timeout_s):
    """Ask with the daemon's client."""
    async with DataPlaneClient(endpoint_of(location)) as client:
        return await client.ask(requests.get("/v1/info"), timeout_s=timeout_s)


async def ask_blocking(location, timeout_s):
    """Ask with the commands' client."""
    return BlockingClient(endpoint_of(location)).ask(requests.get("/v1/info"), timeout_s=timeout_s)


both = pytest.mark.parametrize("ask", [ask_async, ask_blocking])


@both
async def test_answer(tmp_path, ask):
    """A JSON object is the answer."""
    with server(tmp_path / "s", OK) as location:
        assert await ask(location, 5) == {"pid": 7}


@both
async def test_nobody_there_is_unreachable(tmp_path, ask):
    """A missing socket, or one that nobody listens on, is said with its path."""
    with pytest.raises(UnreachableError, match=r"nothing.*: No such file"):
        await ask(str(tmp_path / "nothing"), 5)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "dead"))
    with pytest.raises(UnreachableError, match="refused"):
        await ask(str(tmp_path / "dead"), 5)


@both
async def test_address_without_a_scheme_is_told_from_a_path(tmp_path, ask):
    """What looks like host and port was meant for TCP."""
    hint = r"No such file or directory; for TCP write http://127\.0\.0\.1:1 or https://127\.0\.0\.1:1$"
    with pytest.raises(UnreachableError, match=hint):
        await ask("127.0.0.1:1", 5)
    with pytest.raises(UnreachableError, match=r"No such file or directory$"):
        await ask(str(tmp_path / "a:1"), 5)


@both
async def test_silence_is_late(tmp_path, ask):
    """A data plane that hangs is named as late at the deadline."""
    with (
        server(tmp_path / "s", hang=True) as location,
        pytest.raises(LateError, match=r"no answer within 0\.05 s"),
    ):
        await ask(location, 0.05)


@both
@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b"SSH-2.0-x\r\n\r\n"]
)
async def test_broken_answer_is_unreachable(tmp_path, ask, answer):
    """Whatever is no HTTP, or breaks off, comes from nobody that can be spoken to."""
    with server(tmp_path / "s", answer) as location, pytest.raises(UnreachableError):
        await ask(location, 5)


@both
async def test_error_body_is_the_refusal(tmp_path, ask):
    """Code, message and details of the error body are what an operator reads."""
    body = b'{"code": "invalid", "message": "no", "details": [{"path": "a.b", "message": "bad"}]}'
    head = f"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with server(tmp_path / "s", head + body) as location, pytest.raises(RefusedError) as caught:
        await ask(location, 5)
    assert str(caught.value) == "refused: no (a.b: bad)"
    assert (caught.value.http_status, caught.value.reason, caught.value.permanent()) == (422, "invalid", True)


@both
async def test_error_without_our_body_is_still_a_refusal(tmp_path, ask):
    """A proxy's plain text is shown as it is."""
    busy = b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy"
    with server(tmp_path / "s", busy) as location, pytest.raises(RefusedError) as caught:
        await ask(location, 5)
    assert (str(caught.value), caught.value.permanent()) == ("refused: busy", False)


def test_asking_all_returns_at_the_deadline(tmp_path):
    """One that trickles its answer byte by byte holds up nobody: the others' answers are there in order."""
    slow = [b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"]
    with server(tmp_path / "a", *slow, hang=True) as one, server(tmp_path / "b", OK) as two:
        clients = [BlockingClient(endpoint_of(each)) for each in (one, two)]
        outcomes = ask_all(clients, requests.get("/v1/info"), timeout_s=0.1)
    assert isinstance(outcomes[0].error, LateError)
    assert outcomes[1].answer == {"pid": 7}


def test_backend_ids_are_one_step_of_the_path():
    """An id with slashes or other signs stays one id."""
    call = requests.patch_backend("web", "node/10 %?#", {"weight": 3})
    assert call.target == "/v1/services/web/backends/node%2F10%20%25%3F%23"
    assert call.body == b'{"weight":3}'
