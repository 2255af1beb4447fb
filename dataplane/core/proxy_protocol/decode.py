"""A peer's PROXY header, of whichever version it is: the first byte tells, and nothing else starts a header."""

from __future__ import annotations

from typing import Literal

from dataplane.core.proxy_protocol.header import NEED_DATA, Fault, Header, NeedData, ProxyError
from dataplane.core.proxy_protocol.v1 import V1_FIRST, V1_MAX, check_cut_line, parse_line
from dataplane.core.proxy_protocol.v2 import V2_FIRST, decode_v2


def decode(data: bytes | bytearray | memoryview) -> tuple[Header, int] | Literal[NeedData.NEED_DATA]:
    """Read the header at the start of what a peer has sent so far.

    Args:
        data: Every byte since the connection began; what follows the header is not looked at.

    Returns:
        The header and the number of bytes it took (the payload begins there), or `NEED_DATA`.

    Raises:
        ProxyError: No continuation makes this a valid header.
    """
    if not len(data):
        return NEED_DATA
    if data[0] == V2_FIRST:
        return decode_v2(data)
    head = bytes(data[:V1_MAX])
    if data[0] != V1_FIRST:
        raise ProxyError(Fault.START, head)
    end = head.find(b"\r\n")
    if end < 0:
        check_cut_line(head)
        return NEED_DATA
    return Header(1, parse_line(head[:end])), end + 2
