"""A filter that keeps new clients out of a listening socket whose queue is still served.

It drops their SYN, and nothing else, so that half-open handshakes get their last packet. It is the socket's, not the
descriptor's: a service manager that opened the socket gives it to the next process with the filter on. So whoever
inherits one takes it off (`let_in`).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from array import array
from typing import Final

SO_ATTACH_FILTER: Final = 26
SO_DETACH_FILTER: Final = 27
_INSTRUCTIONS: Final = (  # classic BPF on a TCP segment, as a socket filter sees it: from the TCP header on
    (0x30, 0, 0, 13),  # load the byte of the flags
    (0x45, 0, 1, 0x02),  # SYN set? else skip one
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)


def keep_out(sock: socket.socket) -> None:
    """Let nobody else into the queue of a listening socket; a Unix socket has no such filter."""
    if sock.family == socket.AF_UNIX:
        return
    # The kernel wants a pointer; an array tells its own. ctypes would need memory that is writable and executable.
    program = array("B", b"".join(struct.pack("HBBI", *instruction) for instruction in _INSTRUCTIONS))
    where, _ = program.buffer_info()
    # Where the kernel's room for compiled filters is used up, a process without CAP_BPF gets EPERM. Then whoever connects
    # in the last moment may be reset: no reason to fail the change, or an end in good order.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(_INSTRUCTIONS), where))


def let_in(sock: socket.socket) -> None:
    """Take the filter off that whoever had the socket before may have left on it when it ended."""
    with contextlib.suppress(OSError):  # it has none
        sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
