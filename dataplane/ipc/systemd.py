"""What systemd gives a process and wants to hear from it: sockets (sd_listen_fds(3)) and states (sd_notify(3))."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

FIRST_FD = 3


def inherited_sockets() -> dict[str, list[socket.socket]]:
    """Return the listening sockets that the service manager opened, by address; nothing without one.

    The variables are removed, so that no child takes them for its own. Sockets that do not listen are closed.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "0")
    os.environ.pop("LISTEN_FDNAMES", None)
    sockets: dict[str, list[socket.socket]] = {}
    if pid != str(os.getpid()) or not count.isdecimal():
        return sockets
    for fd in range(FIRST_FD, FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.close()
            continue
        sock.setblocking(False)
        sockets.setdefault(address_of(sock), []).append(sock)
    return sockets


def address_of(sock: socket.socket) -> str:
    """Return where a socket listens, as lb.yaml writes it."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port, *more = name
    if more and more[1]:  # flow information, and the scope id of a link-local address
        host = f"{host}%{socket.if_indextoname(more[1])}"
    return f"[{host}]:{port}" if sock.family == socket.AF_INET6 else f"{host}:{port}"


def notify(state: str) -> None:
    """Tell the service manager, if there is one; that it does not listen is no error."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    where = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.sendto(state.encode(), where)


async def watchdog() -> None:
    """Say twice in each watchdog interval that the loop turns; return if nobody wants to hear it."""
    interval_us = os.environ.get("WATCHDOG_USEC", "")
    if not interval_us.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(int(interval_us) / 2e6)
