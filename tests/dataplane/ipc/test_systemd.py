"""What a service manager gives and hears."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from dataplane.ipc.systemd import address_of, inherited_sockets, notify, watchdog
from tests.support.namespaces import Network, needs_namespaces


def test_states_are_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is one datagram; a manager that is gone is no error."""
    path = tmp_path / "n"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        notify("READY=1")
        assert manager.recv(100) == b"READY=1"


def test_an_abstract_socket_is_meant_by_an_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """`@name` is the abstract socket of that name (sd_notify(3))."""
    name = f"livelb-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        notify("STOPPING=1")
        assert manager.recv(100) == b"STOPPING=1"


def test_sockets_of_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """LISTEN_PID names whom they are for; the variables are removed all the same."""
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    monkeypatch.setenv("LISTEN_FDS", "1")
    assert inherited_sockets() == {}
    assert "LISTEN_FDS" not in os.environ


@pytest.mark.parametrize(
    ("family", "host", "text"),
    [(socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"), (socket.AF_INET6, "::1", "[::1]:{}")],
)
def test_an_address_reads_as_in_a_file(family: int, host: str, text: str) -> None:
    """IPv6 has brackets."""
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        assert address_of(sock) == text.format(sock.getsockname()[1])


@needs_namespaces
def test_a_link_local_address_reads_as_in_a_file() -> None:
    """It has its interface."""
    with Network("fe80::1/64 nodad") as network, network.entered(), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("fe80::1", 0, 0, socket.if_nametoindex("v0")))
        assert address_of(sock) == f"[fe80::1%v0]:{sock.getsockname()[1]}"


async def test_without_a_watchdog_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wants to hear it, or it is another process's: it returns at once."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    await watchdog()
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    await watchdog()
