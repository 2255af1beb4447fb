"""Commands' client: several at once, text, and whether anybody listens. What it says of faults: `test_client`."""

from __future__ import annotations

import socket
import threading

import pytest

from controlplane.dataplanes import requests
from controlplane.dataplanes.blocking_client import BlockingClient, ask_all, in_thread
from controlplane.dataplanes.endpoint import endpoint_of
from controlplane.errors import LateError, RefusedError, UnreachableError
from tests.controlplane.dataplanes.answering import OK, server


def test_asking_all_returns_at_the_deadline(tmp_path):
    """One that trickles its answer byte by byte holds up nobody: the others' answers are there in order."""
    slow = [b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n"]
    with server(tmp_path / "a", *slow, hang=True) as one, server(tmp_path / "b", OK) as two:
        clients = [BlockingClient(endpoint_of(each)) for each in (one, two)]
        outcomes = ask_all(clients, requests.get("/v1/info"), timeout_s=0.1)
    assert isinstance(outcomes[0].error, LateError)
    assert outcomes[1].answer == {"pid": 7}


def test_order_is_that_of_the_clients(tmp_path):
    """Whoever answers first: an outcome stands where its client does, an error too."""
    with server(tmp_path / "b", OK) as there:
        clients = [BlockingClient(endpoint_of(each)) for each in (str(tmp_path / "a"), there)]
        outcomes = ask_all(clients, requests.get("/v1/info"), timeout_s=5)
    assert [each.endpoint.location for each in outcomes] == [str(tmp_path / "a"), there]
    assert isinstance(outcomes[0].error, UnreachableError)
    assert (outcomes[1].answer, outcomes[1].error) == ({"pid": 7}, None)


class Broken:
    """A client with a bug."""

    endpoint = endpoint_of("/nowhere")

    def ask(self, _call, *, timeout_s):
        """Meet it."""
        raise ZeroDivisionError


def test_a_bug_is_no_outcome():
    """Only what a data plane did is shown beside the others' answers."""
    with pytest.raises(ZeroDivisionError):
        ask_all([Broken()], requests.get("/v1/info"), timeout_s=5)


def test_nobody_waits_for_a_thread_at_the_end():
    """A peer that trickles bytes for ever does not keep the program from ending."""
    assert in_thread(lambda: threading.current_thread().daemon).result(20)


@pytest.mark.parametrize("answer", [b"lb_up 1\n", b"\xff"])
def test_text_is_any_text(tmp_path, answer):
    """Metrics are no JSON; bytes that are no UTF-8 end nothing."""
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n".encode()
    with server(tmp_path / "s", head + answer) as location:
        text = BlockingClient(endpoint_of(location)).text(requests.get("/metrics"), timeout_s=5)
    assert text == answer.decode(errors="replace")


def test_text_that_is_refused(tmp_path):
    """It is an error, and not the text of one."""
    refusal = b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nbusy"
    with server(tmp_path / "s", refusal) as location, pytest.raises(RefusedError, match="busy"):
        BlockingClient(endpoint_of(location)).text(requests.get("/metrics"), timeout_s=5)


def test_who_listens(tmp_path):
    """Nothing there, a file's name within, and a socket that was left behind are nobody."""
    path = tmp_path / "s"
    client = BlockingClient(endpoint_of(str(path)))
    assert not client.listens()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert not client.listens()
        assert not BlockingClient(endpoint_of(f"{path}/below")).listens()
        listener.listen()
        assert client.listens()
